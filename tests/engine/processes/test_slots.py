"""Laws of the slots: a batch is written once and seen as it was made; memory is used again when nobody sees it."""

import os
import threading
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from feedline import default_collate
from feedline.engine.processes.slots import Quota, SlotReader, SlotWriter
from feedline.sharing import Block


class Pair(NamedTuple):
    """A named tuple, as batches have them."""

    image: object
    label: object


class Line:
    """A worker's slots and its parent's, without the pipe between them."""

    def __init__(self, limit=100, share=100):
        self.writer = SlotWriter()
        self.reader = SlotReader(Quota(limit, share))
        self.placed = []

    def pass_on(self, make):
        free, dropped = self.reader.returned()
        for number in free:
            self.writer.free(number)
        for number in dropped:
            self.writer.drop(number)
        self.writer.begin()
        placed = self.writer.place(make(self.writer.empty))
        self.placed.append(placed)
        if placed.block is not None:
            descriptor = os.dup(placed.block.descriptor)
            self.reader.add(
                placed.slot,
                Block.attach(placed.block.nbytes, descriptor=descriptor, private=False),
            )
            placed.block.close_descriptor()
        return self.reader.take(placed.slot, placed.description, placed.spans)


arrays = hnp.arrays(
    st.sampled_from([np.float32, np.int64, np.uint8, np.bool_, np.complex64]), hnp.array_shapes(min_dims=0, min_side=0)
)
leaves = st.one_of(arrays, st.text(), st.integers(), st.none(), st.lists(st.text(), max_size=3))
batches = st.recursive(
    leaves,
    lambda parts: st.one_of(
        st.lists(parts, max_size=3),
        st.tuples(parts, parts),
        st.dictionaries(st.text(), parts, max_size=3),
        st.dictionaries(st.integers(), parts, max_size=2),
        st.builds(Pair, parts, parts),
    ),
    max_leaves=8,
)


def same(one, other):
    assert type(one) is type(other)
    if isinstance(one, np.ndarray):
        assert (one.shape, one.dtype, one.flags.writeable) == (other.shape, other.dtype, other.flags.writeable)
        assert one.tobytes() == other.tobytes()
    elif isinstance(one, dict):
        assert list(one) == list(other)
        for key in one:
            same(one[key], other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for left, right in zip(one, other, strict=True):
            same(left, right)
    else:
        assert one == other


@settings(max_examples=200)
@given(st.lists(batches, min_size=1, max_size=4))
def test_a_batch_arrives_as_it_was_made(made):
    line = Line()
    for batch in made:
        same(line.pass_on(lambda _, batch=batch: batch), batch)


@given(st.lists(st.integers(1, 50_000), min_size=1, max_size=12), st.data())
def test_batches_that_are_held_are_never_overwritten(sizes, data):
    line = Line(limit=data.draw(st.integers(1, 6)), share=data.draw(st.integers(1, 6)))
    held = []
    for number, size in enumerate(sizes):

        def make(empty, number=number, size=size):
            array = empty((size,), np.int32)
            array[:] = number
            return array, {"more": np.full(3, number)}

        batch, more = line.pass_on(make)
        held.append((number, batch[size // 2 :], more["more"]))
        del batch, more
        if data.draw(st.booleans()):
            held.pop(data.draw(st.integers(0, len(held) - 1)))
        for expected, part, label in held:
            assert (part == expected).all()
            assert (label == expected).all()


def test_a_loop_of_equal_batches_lives_in_two_slots_and_says_its_layout_once():
    line = Line()
    for _ in range(20):
        batch = line.pass_on(lambda empty: (empty((64, 100), np.float32), empty((64,), np.int64)))
    del batch
    assert len({placed.slot for placed in line.placed}) <= 3
    assert [bool(placed.description) for placed in line.placed] == [True] + [False] * 19
    assert sum(placed.block is not None for placed in line.placed) <= 3


def test_the_first_batch_teaches_the_size_and_later_ones_are_written_in_place():
    line = Line()
    line.pass_on(lambda empty: empty((1000,), np.float64))
    inside = []

    def make(empty):
        array = empty((1000,), np.float64)
        inside.append(array.base is not None)
        return array

    line.pass_on(make)
    assert inside == [True]


def test_a_view_that_the_workers_code_keeps_is_not_overwritten():
    line, kept = Line(), []

    def make(empty, number):
        array = empty((1000,), np.float64)
        array[:] = number
        if number == 1:
            kept.append(array[10:20])
        return array

    for number in range(5):
        line.pass_on(lambda empty, number=number: make(empty, number))
    assert (kept[0] == 1).all()


def test_arrays_are_aligned_to_cache_lines():
    batch = Line().pass_on(lambda _: [np.ones(3, np.uint8), np.ones(5), np.ones((2, 2), np.float32)])
    assert [array.ctypes.data % 64 for array in batch] == [0, 0, 0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.bool, torch.int64])
def test_torch_tensors_are_views_of_the_slot_and_keep_it(dtype):
    line = Line()
    tensor = torch.arange(1000).to(dtype).reshape(10, 100)
    batches = [line.pass_on(lambda _: {"x": tensor, "names": ["a"]})["x"][2:] for _ in range(5)]
    for batch in batches:
        assert batch.dtype == dtype
        assert torch.equal(batch, tensor[2:])
    assert all(placed.slot is not None for placed in line.placed)
    assert len({placed.slot for placed in line.placed}) == 5
    placed = line.placed[-1]
    assert not placed.description, "the second batch of a layout needs no description"


def test_a_leaf_with_gradient_keeps_the_wish():
    batch = Line().pass_on(lambda _: torch.ones(3, requires_grad=True))
    assert batch.requires_grad


def test_collated_samples_arrive():
    line = Line()
    batch = line.pass_on(lambda _: default_collate([{"x": np.ones(3), "y": 1, "name": "a"}] * 4))
    assert batch["x"].shape == (4, 3)
    assert batch["name"] == ["a"] * 4


def test_beyond_the_limit_batches_are_copied_and_their_parts_live_alone():
    line = Line(limit=2)
    held = [line.pass_on(lambda empty: (empty((10_000,), np.float64), np.ones(1))) for _ in range(6)]
    assert len({placed.slot for placed in line.placed}) <= 4
    assert len(held) == 6


def test_free_slots_beyond_the_share_are_given_up():
    line = Line(share=2)
    held = [line.pass_on(lambda empty: empty((10_000,), np.float64)) for _ in range(8)]
    assert len(line.writer._slots) == 8
    del held
    line.pass_on(lambda empty: empty((10_000,), np.float64))
    line.pass_on(lambda empty: empty((10_000,), np.float64))
    assert len(line.writer._slots) <= 3
    assert len(line.reader._blocks) == len(line.writer._slots)


def test_without_shared_memory_a_batch_goes_whole(monkeypatch):
    def create(nbytes):
        raise OSError(24, "no descriptor")

    monkeypatch.setattr(Block, "create", create)
    line = Line()
    for _ in range(3):
        batch = line.pass_on(lambda empty: (empty((100,), np.float64), torch.ones(3)))
        assert batch[0].shape == (100,)
        assert batch[0].flags.writeable
        assert line.placed[-1].slot is None


def held_loop(line, sizes):
    """How many blocks are made for batches of these sizes, of which the last three are held."""
    held, first = [], len(line.placed)
    for size in sizes:
        held = [*held[-2:], line.pass_on(lambda empty, size=size: empty((size,), np.uint8))]
    return sum(placed.block is not None for placed in line.placed[first:])


def test_when_batches_have_grown_their_slots_are_used_again():
    line = Line(limit=12, share=5)
    for size in (100_000, 1_000_000, 3_000_000):
        assert held_loop(line, [size] * 100) <= 5
        assert held_loop(line, [size] * 20) == 0


def test_batches_of_mixed_lengths_live_in_a_few_slots():
    line, sizes = Line(limit=12, share=5), np.random.default_rng(0).integers(100_000, 1_000_000, 200).tolist()
    assert held_loop(line, sizes) <= 25
    assert held_loop(line, sizes) <= 5
    assert len(line.reader._blocks) <= 5


def test_a_layout_is_said_again_after_a_batch_that_went_without_memory(monkeypatch):
    def create(nbytes):
        raise OSError(28, "no memory")

    line = Line()
    held = line.pass_on(lambda empty: empty((100,), np.float64))
    with monkeypatch.context() as patch:
        patch.setattr(Block, "create", create)
        assert line.pass_on(lambda _: np.full(100, 2.0)).tolist() == [2.0] * 100
        assert line.placed[-1].slot is None
    assert line.pass_on(lambda _: np.full(100, 3.0)).tolist() == [3.0] * 100
    assert line.placed[-1].slot is not None
    assert held.shape == (100,)


def test_slots_of_a_dead_worker_count_no_more():
    line = Line()
    held = [line.pass_on(lambda empty: empty((100,), np.float64)) for _ in range(3)]
    assert line.reader._quota.leased == 3
    line.reader.close()
    assert line.reader._quota.leased == 0
    assert len(held) == 3


def test_a_batch_that_cannot_be_pickled_or_is_not_sent_leaves_its_slot_free():
    line = Line()
    line.pass_on(lambda empty: empty((100,), np.float64))
    for _ in range(5):
        with pytest.raises(TypeError, match="lock"):
            line.pass_on(lambda empty: (empty((100,), np.float64), threading.Lock()))
    for _ in range(5):
        line.writer.begin()
        line.writer.recall(line.writer.place(line.writer.empty((100,), np.float64)))
    assert len(line.writer._slots) <= 2
    assert line.pass_on(lambda _: np.full(100, 3.0)).tolist() == [3.0] * 100


@pytest.mark.parametrize("limit", [1, 3])
def test_exactly_as_many_batches_as_the_limit_says_stay_in_their_slots(limit):
    line = Line(limit=limit)
    held = [line.pass_on(lambda empty: empty((100,), np.float64)) for _ in range(limit + 2)]
    inside = []
    for batch, placed in zip(held, line.placed, strict=True):
        block = line.reader._blocks[placed.slot]
        inside.append(block.address <= batch.ctypes.data < block.address + block.nbytes)
    assert inside == [True] * limit + [False] * 2
