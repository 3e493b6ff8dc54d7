"""Laws of batch samplers: consecutive lists of a sampler's indices, as torch's; strata in every batch."""

import random

import numpy as np
import pytest
import torch.utils.data as torch_data
from hypothesis import example, given, settings
from hypothesis import strategies as st

from feedline.order.batches import BatchSampler, StratifiedBatchSampler, unwrapped
from feedline.order.buckets import LengthBucketBatchSampler
from feedline.order.plan import EpochPlan, Geometry
from feedline.order.samplers import RandomSampler, SequentialSampler


@given(st.integers(0, 40), st.integers(1, 9), st.booleans())
def test_batches_are_torchs(length, size, drop_last):
    ours = BatchSampler(range(length), size, drop_last)
    theirs = torch_data.BatchSampler(range(length), size, drop_last)
    assert list(ours) == list(theirs)
    assert len(ours) == len(theirs) == len(list(ours))
    assert [ours.batch_size, ours.drop_last] == [theirs.batch_size, theirs.drop_last]
    assert ours.sampler == range(length)


def test_any_iterable_is_a_sampler():
    assert list(BatchSampler((name for name in "abc"), np.int64(2), drop_last=False)) == [["a", "b"], ["c"]]


@pytest.mark.parametrize("size", [0, -1, 1.5, True, None])
def test_batches_have_a_positive_size_as_in_torch(size):
    with pytest.raises(ValueError, match="batch_size must be a positive integer, got"):
        BatchSampler([0], size, drop_last=False)
    with pytest.raises(ValueError):
        torch_data.BatchSampler([0], size, drop_last=False)


@pytest.mark.parametrize("value", [1, None, "no"])
def test_drop_last_is_a_boolean_as_in_torch(value):
    with pytest.raises(ValueError, match="drop_last must be True or False, got"):
        BatchSampler([0], 2, value)
    with pytest.raises(ValueError):
        torch_data.BatchSampler([0], 2, value)


def test_without_the_samplers_length_there_is_none():
    with pytest.raises(TypeError, match=r"BatchSampler has no len\(\): list_iterator has no __len__"):
        len(BatchSampler(iter([1]), 2, drop_last=False))


def test_a_sampler_of_whole_batches_is_refused():
    sampler = LengthBucketBatchSampler([1, 2, 3], max_tokens=4).sampler
    with pytest.raises(TypeError, match=r"sampler must yield indices, got one .* as batch_sampler="):
        BatchSampler(sampler, 2, drop_last=False)


def test_the_epoch_is_handed_on():
    sampler = RandomSampler(range(20))
    BatchSampler(sampler, 2, drop_last=False).set_epoch(5)
    assert sampler.requested_epoch() == 5
    BatchSampler([1, 2], 2, drop_last=False).set_epoch(5)  # nobody to tell


def test_ours_comes_apart_over_any_sampler():
    sampler = SequentialSampler(range(5))
    assert unwrapped(BatchSampler(sampler, 3, drop_last=True)) == (sampler, 3, True)
    assert unwrapped(BatchSampler([0, 1], 3, drop_last=True)) == ([0, 1], 3, True)
    assert unwrapped([[0, 1]]) is None

    class Own(BatchSampler):
        def __iter__(self):
            return iter([[0]])

    assert unwrapped(Own(sampler, 3, False)) is None


LABELS = st.lists(st.integers(1, 60), min_size=1, max_size=6).map(lambda counts: np.repeat(range(len(counts)), counts))


@given(LABELS, st.integers(4, 80), st.integers(0, 2))
@example(np.repeat([0, 1], [103, 87]), 47, 1)
@example(np.arange(1_000) % 10, 50, 1)
@settings(deadline=None)
def test_each_batch_is_whole_and_holds_each_class_in_proportion(labels, size, least):
    counts = np.bincount(labels)
    if size < max(least, 1) * len(counts):
        with pytest.raises(ValueError, match="batch_size must be at least min_per_class"):
            StratifiedBatchSampler(labels, size, min_per_class=least)
        return
    sampler = StratifiedBatchSampler(labels, size, min_per_class=least)
    batches = np.array(list(sampler))
    width = batches.shape[1]
    assert batches.shape == (len(sampler), width)
    assert width == size or (len(sampler) == 1 and width < size)  # all that there is, in a batch larger than that
    assert set(batches.flat) == set(range(len(labels)))
    assert sampler.repeats == batches.size - len(labels)
    held = (labels[batches][:, :, None] == np.arange(len(counts))).sum(axis=1)
    assert held.min() >= least
    share = counts / len(labels)
    if (share * sampler.sampler.group_size).min() >= least:  # no class is drawn more often than its share
        assert np.abs(held - width * share).max() < 4


@pytest.mark.parametrize(
    ("counts", "size", "off"),
    [([100] * 10, 50, 2), ([500, 300, 200], 50, 2), ([73, 168], 57, 1.5), ([103, 87], 47, 1.5)],
)
def test_batches_that_are_no_multiple_of_the_group_are_in_proportion(counts, size, off):
    labels = np.repeat(range(len(counts)), counts)
    batches = np.array(list(StratifiedBatchSampler(labels, size, generator=random.Random(0))))
    held = (labels[batches][:, :, None] == np.arange(len(counts))).sum(axis=1)
    assert np.abs(held - size * np.array(counts) / len(labels)).max() <= off


def test_a_thousand_to_ten_are_in_each_batch():
    batches = list(StratifiedBatchSampler([0] * 1000 + [1] * 10, batch_size=32))
    assert all({0, 1} == {int(index >= 1000) for index in batch} for batch in batches)


def test_the_order_does_not_depend_on_the_batch_size():
    """But for where it ends: that is why an epoch's length says nothing about the data."""
    labels = [0] * 100 + [1] * 40
    samplers = [unwrapped(StratifiedBatchSampler(labels, size))[0] for size in (32, 64, 47)]
    assert [sampler.order(1, 0).length for sampler in samplers] == [160, 192, 188]
    assert not any(sampler.fixed_length for sampler in samplers)
    assert len({sampler.name for sampler in samplers}) == 1
    assert len({tuple(sampler.order(1, 0).take(0, 160).tolist()) for sampler in samplers}) == 1


def test_a_place_beyond_a_shorter_epoch_is_its_end():
    """After 188 samples in batches of 47, batches of 32 have nothing left of an epoch of 160."""
    order = unwrapped(StratifiedBatchSampler([0] * 100 + [1] * 40, 32))[0].order(1, 0)
    plan = EpochPlan(0, order, Geometry(32), origin=188)
    assert (len(plan), list(plan)) == (0, [])
    assert [len(batch.indices) for batch in EpochPlan(0, order, Geometry(32), origin=94)] == [32, 32, 2]


def test_a_group_fits_into_a_batch():
    with pytest.raises(ValueError, match="group_size must be at most batch_size = 8, so that a batch holds"):
        StratifiedBatchSampler([0, 1], 8, group_size=9)


@pytest.mark.parametrize("size", [0, 1.5, True])
def test_a_group_has_a_positive_size(size):
    with pytest.raises(ValueError, match="group_size must be a positive integer"):
        StratifiedBatchSampler([0, 1], 8, group_size=size)


def test_a_group_holds_each_class():
    with pytest.raises(ValueError, match="group_size must be at least min_per_class"):
        StratifiedBatchSampler([0, 1, 2], 8, group_size=2)


@pytest.mark.parametrize("least", [-1, 1.5, True, "1"])
def test_a_wrong_minimum_is_named_when_the_sampler_is_built(least):
    with pytest.raises(ValueError, match="min_per_class must be a non-negative integer"):
        StratifiedBatchSampler([0, 1], 8, min_per_class=least)


@pytest.mark.parametrize("labels", [[], [[0, 1]]])
def test_labels_are_one_a_sample(labels):
    with pytest.raises(ValueError, match="labels must"):
        StratifiedBatchSampler(labels, 8)


def test_stratified_batches_drop_a_short_last_one_when_asked_and_go_on_until_it_is_whole_else():
    labels = [0] * 33
    assert [len(batch) for batch in StratifiedBatchSampler(labels, 10, group_size=3, drop_last=True)] == [10, 10, 10]
    assert [len(batch) for batch in StratifiedBatchSampler(labels, 10, group_size=3)] == [10, 10, 10, 10]
