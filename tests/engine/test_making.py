"""Laws of making: by gather, by __getitems__ or one by one, a batch is the same; an error arrives as itself."""

import dataclasses
from itertools import chain

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import feedline
from feedline import (
    DataLoader,
    Dataset,
    ErrorPolicy,
    FeedlineError,
    SubsetRandomSampler,
    TensorDataset,
    default_collate,
)


class Bad(Dataset):
    """Sample i is i; those in ``bad`` raise, and so does a bulk read that holds one of them."""

    def __init__(self, length, bad=(), error=KeyError):
        self.length, self.bad, self.error = length, set(bad), error
        self.asked = []

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        self.asked.append(index)
        if index in self.bad:
            raise self.error(f"cannot read {index}")
        return index


class BadInBulk(Bad):
    def __getitems__(self, indices):
        if self.bad & set(indices):
            raise self.error("cannot read them")
        return list(indices)


class BadColumns(Bad):
    def gather(self, indices, out=None):
        if self.bad & set(indices.tolist()):
            raise self.error("cannot gather them")
        return indices + 0


KINDS = [Bad, BadInBulk, BadColumns]


def run(loader, *errors):
    iterator, got = iter(loader), []
    while True:
        try:
            got.append(next(iterator).tolist())
        except StopIteration:
            return got
        except errors as error:
            got.append(type(error).__name__)


def test_gather_is_used_with_an_array_of_indices():
    class Columns(Dataset):
        def __len__(self):
            return 5

        def __getitem__(self, index):
            raise AssertionError("gather is there")

        def gather(self, indices, out=None):
            assert indices.dtype == np.int64
            assert not indices.flags.writeable
            return indices * 10

    assert run(DataLoader(Columns(), batch_size=3)) == [[0, 10, 20], [30, 40]]


def test_getitems_is_used_with_a_list_of_python_integers_also_under_a_users_collate():
    class Bulk(Dataset):
        def __len__(self):
            return 5

        def __getitem__(self, index):
            raise AssertionError("__getitems__ is there")

        def __getitems__(self, indices):
            assert [type(index) for index in indices] == [int] * len(indices)
            return [10 * index for index in indices]

    assert run(DataLoader(Bulk(), batch_size=3)) == [[0, 10, 20], [30, 40]]
    assert list(DataLoader(Bulk(), batch_size=3, collate_fn=lambda batch: batch)) == [[0, 10, 20], [30, 40]]


def test_single_samples_are_read_one_by_one():
    dataset = BadInBulk(3)
    assert list(DataLoader(dataset, batch_size=None)) == [0, 1, 2]
    assert dataset.asked == [0, 1, 2]


@pytest.mark.parametrize("count", [1, 3])
def test_getitems_returns_one_sample_for_each_index(count):
    class Wrong(Bad):
        def __getitems__(self, indices):
            return [0] * count

    with pytest.raises(
        ValueError, match=rf"__getitems__ must return one sample for each of the 2 indices, got {count}"
    ):
        next(iter(DataLoader(Wrong(4), batch_size=2)))


def slowly(batch):
    """A collate function that is not known to be ours: the samples are gathered in a list first."""
    return default_collate(batch)


def columns(batch):
    return batch if isinstance(batch, tuple) else (batch,)


COLUMNS = [np.dtype(kind) for kind in ["u1", "i8", "f2", "f4", ">f8", "c8", "?", "U3", "S2", "M8[D]"]]


@pytest.mark.parametrize("dtype", COLUMNS, ids=str)
def test_the_fast_path_and_the_slow_path_agree_to_the_bit(dtype):
    array = np.arange(12).reshape(6, 2).astype("u1").astype(dtype)
    for dataset in (array, TensorDataset(array, np.arange(6))):
        fast = list(DataLoader(dataset, batch_size=4, shuffle=True, seed=3))
        slow = list(DataLoader(dataset, batch_size=4, shuffle=True, seed=3, collate_fn=slowly))
        for one, other in zip(map(columns, fast), map(columns, slow), strict=True):
            for mine, theirs in zip(one, other, strict=True):
                assert mine.dtype == theirs.dtype
                assert mine.tobytes() == theirs.tobytes()


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_arrives_as_itself_and_the_next_batch_follows(kind):
    assert run(DataLoader(kind(7, [3]), batch_size=2), KeyError) == [[0, 1], "KeyError", [4, 5], [6]]


def test_an_error_names_index_epoch_and_step():
    loader = DataLoader(Bad(6, [3]), batch_size=2)
    loader.set_epoch(4)
    iterator = iter(loader)
    next(iterator)
    with pytest.raises(KeyError, match="cannot read 3") as caught:
        next(iterator)
    assert "\n".join(caught.value.__notes__) == "in sample index 3\nwhile making epoch 4, step 1, in the main process"


def test_an_error_object_raised_again_and_again_does_not_pile_up_notes():
    error = KeyError("always the same")

    class Same(Bad):
        def __getitem__(self, index):
            raise error

    for _ in range(50):
        with pytest.raises(KeyError):
            next(iter(DataLoader(Same(2), batch_size=2, seed=0)))
    assert len(error.__notes__) == 2


def test_samples_that_do_not_stack_are_named_by_their_index_in_the_dataset():
    data = [np.zeros(2), np.zeros(2), np.zeros(3), np.zeros(2)]
    for collate in (None, slowly):
        with pytest.raises(ValueError, match=r"shapes \(2,\) at index 0 and \(3,\) at index 1") as caught:
            next(iter(DataLoader(data, batch_size=2, sampler=[3, 2], collate_fn=collate)))
        assert "index 1 of the batch is sample 2 of the dataset" in caught.value.__notes__


@pytest.mark.parametrize("stage", ["dataset", "bulk", "gather", "collate_fn", "batch_transform"])
@pytest.mark.parametrize("policy", ["raise", "skip", "replace"])
def test_stop_iteration_is_an_error_wherever_it_comes_from(stage, policy):
    def stops(batch):
        raise StopIteration

    datasets = {"dataset": Bad, "bulk": BadInBulk, "gather": BadColumns}
    dataset = datasets.get(stage, Bad)(4, [2] if stage in datasets else [], StopIteration)
    functions = {} if stage in datasets else {stage: stops}
    with pytest.raises(RuntimeError, match="raised StopIteration"):
        list(DataLoader(dataset, batch_size=2, on_error=policy, **functions))


@given(st.integers(1, 30), st.integers(1, 6), st.sets(st.integers(0, 29)), st.sampled_from(KINDS), st.booleans())
def test_skipping_leaves_out_the_bad_samples_and_moves_no_other(length, size, bad, kind, shuffle):
    whole = run(DataLoader(kind(length), size, shuffle, seed=1))
    expected = [[index for index in batch if index not in bad] or "FeedlineError" for batch in whole]
    assert run(DataLoader(kind(length, bad), size, shuffle, seed=1, on_error="skip"), FeedlineError) == expected


def test_a_batch_without_a_good_sample_raises():
    message = r"all 2 samples of the batch failed \(epoch 0, step 1\); the first was index 2: KeyError: 'cannot read 2'"
    iterator = iter(DataLoader(Bad(6, [2, 3]), batch_size=2, on_error="skip"))
    next(iterator)
    with pytest.raises(FeedlineError, match=message) as caught:
        next(iterator)
    assert isinstance(caught.value.__cause__, KeyError)
    assert next(iterator).tolist() == [4, 5]


def test_every_failed_sample_is_told_and_counted_also_those_of_a_batch_that_raises():
    told = []
    policy = ErrorPolicy("skip", callback=lambda failed: told.append((failed.index, failed.epoch, failed.step)))
    run(DataLoader(Bad(8, [1, 2, 3, 7]), batch_size=2, on_error=policy), FeedlineError)
    assert told == [(1, 0, 0), (2, 0, 1), (3, 0, 1), (7, 0, 3)]


def test_the_budget_counts_in_the_order_of_delivery():
    policy = ErrorPolicy("skip", max_count=2)
    assert run(DataLoader(Bad(12, [1, 3, 9]), batch_size=4, on_error=policy), FeedlineError) == [
        [0, 2],
        [4, 5, 6, 7],
        "FeedlineError",
    ]


def test_a_callback_that_raises_stop_iteration_does_not_end_the_epoch():
    def stops(failed):
        raise StopIteration

    with pytest.raises(RuntimeError, match="StopIteration"):
        list(DataLoader(Bad(6, [1]), batch_size=2, on_error=ErrorPolicy("skip", callback=stops)))


@given(st.integers(2, 30), st.integers(1, 6), st.sets(st.integers(0, 29), max_size=3), st.sampled_from(KINDS))
def test_replacing_keeps_every_good_sample_in_its_place(length, size, bad, kind):
    good = set(range(length)) - bad
    if len(good) < length / 2:
        return
    whole = run(DataLoader(kind(length), size, shuffle=True, seed=1))
    replaced = run(DataLoader(kind(length, bad), size, shuffle=True, seed=1, on_error="replace"))
    assert [len(batch) for batch in replaced] == [len(batch) for batch in whole]
    for batch, before in zip(replaced, whole, strict=True):
        assert set(batch) <= good
        assert all(index == was for index, was in zip(batch, before, strict=True) if was in good)
    assert run(DataLoader(kind(length, bad), size, shuffle=True, seed=1, on_error="replace")) == replaced
    other = run(DataLoader(kind(length, bad), size + 1, shuffle=True, seed=1, on_error="replace"))
    assert [*chain(*other)] == [*chain(*replaced)]


def test_a_replacement_is_one_of_the_samplers_own():
    subset = [3, 5, 8, 13, 21, 34]
    for epoch in range(20):
        loader = DataLoader(Bad(50, [5]), 2, sampler=SubsetRandomSampler(subset), seed=0, on_error="replace")
        loader.set_epoch(epoch)
        assert set(np.concatenate(list(loader)).tolist()) <= set(subset) - {5}


def test_replacements_of_one_sample_differ_by_epoch():
    loader = DataLoader(Bad(100, [5]), 100, seed=0, on_error="replace")
    assert len({int(next(iter(loader))[5]) for _ in range(10)}) > 5


@pytest.mark.parametrize("users", [False, True])
def test_replacements_of_the_samples_of_a_batch_differ(users):
    how = {"sampler": (index for index in range(1000))} if users else {}
    (batch,) = run(DataLoader(Bad(1000, range(20)), 1000, seed=0, on_error="replace", **how))
    assert len(set(batch[:20])) > 15


def test_a_dataset_of_bad_samples_alone_raises_their_error():
    with pytest.raises(KeyError, match="cannot read"):
        next(iter(DataLoader(Bad(4, range(4)), batch_size=2, on_error="replace")))


def test_with_a_users_sampler_a_replacement_comes_from_the_batch():
    sampler = (index for index in [1, 2, 3, 4])
    (batch,) = run(DataLoader(Bad(50, [3]), 4, sampler=sampler, on_error="replace", seed=1))
    assert batch[:2] + batch[3:] == [1, 2, 4]
    assert batch[2] in {1, 2, 4}


class Drawing(Dataset):
    def __init__(self, length=12):
        self.length = length

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        return index, feedline.rng().random()


def test_a_sample_has_the_same_numbers_whatever_happens_to_others():
    class Stumbling(Drawing):
        def __getitem__(self, index):
            feedline.rng().random(index + 1)
            if index in (2, 7):
                raise KeyError(index)
            return super().__getitem__(index)

    class Steady(Drawing):
        def __getitem__(self, index):
            feedline.rng().random(index + 1)
            return super().__getitem__(index)

    def samples(dataset, policy):
        loader = DataLoader(dataset, 4, shuffle=True, seed=1, on_error=policy)
        return {int(i): float(x) for batch in loader for i, x in zip(*batch, strict=True)}

    whole = samples(Steady(), "raise")
    skipped = samples(Stumbling(), "skip")
    assert skipped == {index: x for index, x in whole.items() if index not in (2, 7)}


@dataclasses.dataclass
class Sample:
    x: np.ndarray
    name: str


def test_samples_are_written_into_batches_of_their_own_type():
    data = [Sample(np.full(2, i), f"n{i}") for i in range(3)]
    (batch,) = DataLoader(data, batch_size=3)
    assert batch.x.tolist() == [[0, 0], [1, 1], [2, 2]]
    assert batch.name == ["n0", "n1", "n2"]


def test_collate_and_batch_transform_draw_by_the_first_position():
    def collate(batch):
        return feedline.rng().random()

    def drawn(**how):
        return list(DataLoader(range(12), collate_fn=collate, seed=1, **how))

    assert drawn(batch_size=4) == drawn(batch_size=2)[::2]
    assert len(set(drawn(batch_size=2))) == 6
    assert drawn(batch_size=2, shard=(1, 2)) == drawn(batch_size=2)[1::2]
    noisy = list(DataLoader(range(12), 4, batch_transform=lambda x: feedline.rng().random(), seed=1))
    assert noisy == drawn(batch_size=4)
