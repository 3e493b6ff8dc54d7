"""What a dataset inherits, and how indices are checked."""

import numpy as np
import pytest

from feedline.datasets import (
    CachedDataset,
    ChainDataset,
    ConcatDataset,
    Dataset,
    IterableDataset,
    MapDataset,
    MapIterableDataset,
)
from feedline.datasets.positions import position, positions


class Squares(Dataset):
    def __init__(self, size):
        self.size = size

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        return index**2


class Endless(Dataset):
    """Without a length; ends with an IndexError."""

    def __getitem__(self, index):
        if index >= 3:
            raise IndexError(index)
        return index


class Countdown(IterableDataset):
    def __iter__(self):
        return iter([3, 2, 1])


def test_abstract_datasets_cannot_be_made():
    with pytest.raises(TypeError, match="abstract"):
        Dataset()
    with pytest.raises(TypeError, match="abstract"):
        IterableDataset()


def test_iterating_ends_at_the_length():
    assert list(Squares(4)) == [0, 1, 4, 9]
    assert list(Squares(0)) == []


def test_iterating_without_a_length_ends_at_the_first_index_error():
    assert list(Endless()) == [0, 1, 2]


def test_an_index_error_below_the_length_is_an_error():
    class Short(Endless):
        def __len__(self):
            return 5

    with pytest.raises(IndexError, match="3"):
        list(Short())


def test_a_derived_dataset_iterates_as_its_parent():
    """Whether the parent has a length or not, and an IndexError below the length is not swallowed."""
    assert list(Endless().map(lambda x: -x)) == [0, -1, -2]
    assert list(Endless().map(lambda x: -x).cache()) == [0, -1, -2]
    assert list(Squares(3).cache()) == [0, 1, 4]

    class Short(Endless):
        def __len__(self):
            return 5

    with pytest.raises(IndexError, match="3"):
        list(Short().map(lambda x: x))


def test_promises_are_off_by_default():
    for cls in (Dataset, IterableDataset):
        assert cls.thread_safe is False
        assert cls.uses_global_rng is True


def test_operators_and_methods_make_the_derived_datasets():
    concat = Squares(2).__add__([7])
    assert isinstance(concat, ConcatDataset)
    assert list(concat) == [0, 1, 7]
    assert isinstance(Countdown() + Countdown(), ChainDataset)
    assert list(Countdown() + Countdown()) == [3, 2, 1, 3, 2, 1]
    assert isinstance(Squares(2).map(str), MapDataset)
    assert isinstance(Countdown().map(str), MapIterableDataset)
    cached = Squares(2).cache(max_items=7)
    assert isinstance(cached, CachedDataset)
    assert cached.max_items == 7


@pytest.mark.parametrize("index", [2, np.int64(2), np.uint8(2), -1, np.array(2)])
def test_position_takes_any_integer(index):
    assert position(index, 3) == 2
    assert type(position(index, 3)) is int


def test_position_takes_booleans_as_lists_do():
    assert position(True, 3) == [10, 11, 12].index([10, 11, 12][True])


@pytest.mark.parametrize("index", [3, -4, np.int64(100), 2**70])
def test_position_refuses_what_lies_outside(index):
    with pytest.raises(IndexError, match=f"Index {index} out of range for dataset of size 3"):
        position(index, 3)


@pytest.mark.parametrize("index", [1.0, "1", None, (1,), np.array([1, 2])])
def test_position_refuses_what_is_no_integer(index):
    with pytest.raises(TypeError, match="index must be an integer, got "):
        position(index, 3)


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8, np.uint64, ">i4"])
def test_positions_takes_any_integer_dtype(dtype):
    found = positions(np.array([0, 2, 1], dtype=dtype), 3)
    assert found.dtype == np.int64
    assert found.tolist() == [0, 2, 1]


def test_positions_counts_negatives_from_the_end_and_leaves_its_argument():
    given = np.array([-1, 0, -3])
    assert positions(given, 3).tolist() == [2, 0, 0]
    assert given.tolist() == [-1, 0, -3]
    assert positions([], 3).tolist() == []
    assert positions(range(3), 3).tolist() == [0, 1, 2]


def test_positions_copies_nothing_when_nothing_changes():
    given = np.array([2, 0])
    assert positions(given, 3) is given


@pytest.mark.parametrize(("indices", "first"), [([0, 3, 9], 3), ([-1, -4], -4)])
def test_positions_names_the_first_that_lies_outside(indices, first):
    with pytest.raises(IndexError, match=f"Index {first} out of range for dataset of size 3"):
        positions(indices, 3)


def test_positions_refuses_unsigned_numbers_beyond_int64():
    with pytest.raises(IndexError, match=f"Index {2**64 - 1} out of range"):
        positions(np.array([2**64 - 1], dtype=np.uint64), 3)


def test_positions_refuses_what_is_no_list_of_integers():
    with pytest.raises(TypeError, match="indices must be integers, got an array of float64"):
        positions([0.5], 3)
    with pytest.raises(TypeError, match=r"got an array of bool; use np\.flatnonzero\(mask\)"):
        positions([True, False, True], 3)
    with pytest.raises(ValueError, match=r"indices must be one-dimensional, got shape \(1, 2\)"):
        positions([[0, 1]], 3)
