"""Laws of splitting: a batch made in parts, in whatever order, is the batch made whole, errors included."""

import collections
import dataclasses
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import feedline
from feedline import default_collate
from feedline.engine.arena import Arena
from feedline.engine.keys import GivenUp
from feedline.engine.making import MapMaker
from feedline.engine.policy import ErrorPolicy
from feedline.engine.task import Recipe, Task
from feedline.engine.threads.splitting import SplitBatch, is_splittable, parts_of
from feedline.order.plan import BatchPlan


class Pair(NamedTuple):
    x: np.ndarray
    y: int


@dataclasses.dataclass
class Item:
    x: np.ndarray
    y: int


class Odd(tuple):
    """A tuple that its constructor changes."""

    __slots__ = ()

    def __new__(cls, values):
        return super().__new__(cls, [*values, len(list(values))])


class Shrunk(dict):
    """A dict that drops what is at "y" when it is given an array there."""

    def __setitem__(self, key, value):
        if key == "y" and isinstance(value, np.ndarray):
            del self["y"]
        else:
            super().__setitem__(key, value)


def image(i):
    return np.full((2, 3), i, dtype=np.uint8)


def torch_tensor(i):
    import torch

    return torch.full((2,), i)


def failing(i):
    if i % 5 == 3:
        raise KeyError(i)
    return i


PLAIN = {
    "number": lambda i: i,
    "float": lambda i: i / 3,
    "scalar": np.float16,
    "array": image,
    "large": lambda i: np.full((100, 200), i, dtype=np.float32),
    "swapped": lambda i: np.full(3, i, dtype=">i4"),
    "empty": lambda i: np.zeros((0, 2)),
    "tuple": lambda i: (image(i), i),
    "list": lambda i: [i, [i, image(i)]],
    "dict": lambda i: {"x": image(i), "y": {"z": i}},
    "defaultdict": lambda i: collections.defaultdict(list, x=i),
    "named tuple": lambda i: Pair(image(i), i),
    "dataclass": lambda i: Item(image(i), i),
    "drawn": lambda i: (i, feedline.rng().random(), feedline.rng().integers(9, size=2)),
    "odd tuple": lambda i: Odd([i]),
    "no leaf": lambda i: (),
    "true or false": lambda i: i % 2 == 0,
}
OTHER = {
    "text": lambda i: {"x": image(i), "name": f"n{i}"},
    "tensor": torch_tensor,
    "wider": lambda i: i if i % 5 != 3 else i / 2,
    "wider array": lambda i: np.full(2, i, dtype=np.int16 if i < 5 else np.float32),
    "beyond int64": lambda i: i if i % 5 != 3 else 2**63 + i,
    "wider text": lambda i: np.array("x" * (i + 1)),
    "masked": lambda i: np.ma.array([i, i], mask=[i % 3 == 0, False]),
    "keys in another order": lambda i: {"x": i, "y": -i} if i % 3 else {"y": -i, "x": i},
    "other types": lambda i: (i,) if i % 3 else [i],
    "other shapes": lambda i: np.zeros(2 if i < 7 else 3),
    "other lengths": lambda i: (i, i) if i < 7 else (i,),
    "objects": lambda i: np.array([None]),
    "none": lambda i: None,
    "failing": failing,
}


class Made:
    """A dataset whose sample ``i`` is ``function(i)``."""

    uses_global_rng = False

    def __init__(self, function):
        self.function = function
        self.read = []

    def __getitem__(self, index):
        self.read.append(index)
        return self.function(index)


def recipe(dataset, transform=None, policy="raise", collate_fn=default_collate):
    return Recipe(dataset, collate_fn, True, transform, 5, ErrorPolicy(policy))


def task(indices):
    return Task(BatchPlan(2, 7, indices, 40, 40 + len(indices)))


def split(made, what, parts, order, arena=None):
    """The outcome of a batch whose parts are made in an order, each by a maker of its own; whether it was split."""
    arena = arena or Arena()
    batch = SplitBatch(what, parts, arena)
    makers = [MapMaker(made, arena, where="worker 1", seeds_globals=False) for _ in range(parts)]
    last = [batch.make(part, makers[part]) for part in order]
    assert last == [False] * (parts - 1) + [True]
    return batch.finish(makers[order[-1]]), not batch.broken


def same(one, other):
    """Equal to the bit, in types and structure."""
    assert type(one) is type(other)
    if isinstance(one, np.ma.MaskedArray):
        assert (np.ma.getmaskarray(one) == np.ma.getmaskarray(other)).all()
    if isinstance(one, np.ndarray):
        assert (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes())
    elif isinstance(one, dict):
        assert list(one) == list(other)
        same(list(one.values()), list(other.values()))
    elif isinstance(one, tuple | list):
        assert len(one) == len(other)
        for mine, theirs in zip(one, other, strict=True):
            same(mine, theirs)
    elif dataclasses.is_dataclass(one):
        same(vars(one), vars(other))
    else:
        assert repr(one) == repr(other)


def same_outcome(one, other):
    assert one.task is other.task
    assert type(one.error) is type(other.error)
    assert str(one.error) == str(other.error)
    assert getattr(one.error, "__notes__", None) == getattr(other.error, "__notes__", None)
    assert [failed.index for failed in one.failures] == [failed.index for failed in other.failures]
    if one.error is None:
        same(one.batch.value, other.batch.value)
        assert one.batch[1:3] == other.batch[1:3]


@given(st.data(), st.integers(2, 4), st.integers(8, 20), st.booleans())
def test_a_batch_in_parts_is_the_batch_made_whole(data, parts, size, as_array):
    name = data.draw(st.sampled_from(sorted(PLAIN | OTHER)))
    order = data.draw(st.permutations(range(parts)))
    indices = data.draw(st.permutations(range(size)))
    what = task(np.array(indices) if as_array else indices)
    transform = data.draw(st.sampled_from([None, lambda batch: (batch, feedline.rng().random())]))
    made = recipe(Made((PLAIN | OTHER)[name]), transform)
    whole = MapMaker(made, Arena(), where="worker 1", seeds_globals=False).make(what)
    outcome, was_split = split(made, what, parts, order)
    same_outcome(outcome, whole)
    if name in PLAIN:
        assert was_split


@pytest.mark.parametrize("name", sorted(OTHER))
def test_parts_that_disagree_or_fail_are_made_again_whole(name):
    what = task(list(range(12)))
    outcome, was_split = split(recipe(Made(OTHER[name])), what, 3, [0, 1, 2])
    assert not was_split
    same_outcome(outcome, MapMaker(recipe(Made(OTHER[name])), Arena(), where="worker 1").make(what))


def test_parts_of_which_an_array_is_lost_are_made_again_whole():
    made, what = recipe(Made(lambda i: Shrunk({"x": i, "y": i}))), task(list(range(8)))
    outcome, was_split = split(made, what, 2, [1, 0])
    assert not was_split
    same_outcome(outcome, MapMaker(made, Arena(), where="worker 1", seeds_globals=False).make(what))


def test_samples_that_are_no_plain_arrays_are_seen_at_the_first_of_them():
    dataset = Made(OTHER["text"])
    batch = SplitBatch(task(list(range(12))), 3, Arena())
    maker = MapMaker(recipe(dataset), Arena())
    assert [batch.make(part, maker) for part in range(3)] == [False, False, True]
    assert dataset.read == [0]


def test_samples_are_read_once_and_written_into_memory_of_the_arena():
    arena, dataset = Arena(), Made(PLAIN["large"])
    outcome, _ = split(recipe(dataset), task(list(range(8))), 4, [2, 0, 3, 1], arena)
    assert sorted(dataset.read) == list(range(8))
    held = outcome.batch.value.nbytes
    assert held <= arena.nbytes < 8 * held
    address = outcome.batch.value.ctypes.data
    del outcome
    again, _ = split(recipe(dataset), task(list(range(8))), 4, [0, 1, 2, 3], arena)
    assert again.batch.value.ctypes.data == address


def test_the_transform_runs_once_after_the_last_part_and_its_error_is_told():
    seen = []

    def transform(batch):
        seen.append(batch.tolist())
        raise StopIteration

    outcome, _ = split(recipe(Made(PLAIN["number"]), transform), task(list(range(6))), 3, [1, 0, 2])
    assert seen == [[0, 1, 2, 3, 4, 5]]
    assert isinstance(outcome.error, RuntimeError)
    assert "raised StopIteration (epoch 2, step 7)" in str(outcome.error)


def test_a_part_that_is_given_up_ends_before_its_next_sample():
    batch, dataset = SplitBatch(task(list(range(8))), 2, Arena()), Made(PLAIN["number"])
    maker = MapMaker(recipe(dataset), Arena())
    maker.give_up()
    with pytest.raises(GivenUp):
        batch.make(0, maker)
    assert batch.broken
    assert dataset.read == []


def test_only_what_is_read_one_by_one_and_written_as_it_comes_is_split():
    class Bulk(Made):
        def __getitems__(self, indices):
            return indices

    class Columns(Made):
        def gather(self, indices, out=None):
            return indices

    assert is_splittable(recipe(Made(image)))
    assert is_splittable(recipe([1, 2]))
    assert not is_splittable(recipe(Made(image), collate_fn=lambda batch: batch))
    assert not is_splittable(recipe(Made(image), policy="skip"))
    assert not is_splittable(recipe(Bulk(image)))
    assert not is_splittable(recipe(Columns(image)))
    assert not is_splittable(recipe(np.arange(3)))
    assert not is_splittable(recipe(feedline.TensorDataset(np.arange(3))))


@given(st.integers(0, 100), st.integers(1, 9))
def test_there_are_at_most_four_parts_and_as_many_threads_and_two_samples_in_each(size, workers):
    parts = parts_of(size, workers)
    assert 1 <= parts <= min(4, workers)
    assert parts == 1 or size >= 2 * parts
