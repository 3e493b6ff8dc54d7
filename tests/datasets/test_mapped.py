"""A function on each sample."""

import pickle
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedline.datasets import Dataset, IterableDataset, MapDataset, MapIterableDataset, TensorDataset


class Pair(NamedTuple):
    x: int
    y: int


@dataclass
class Record:
    x: int
    y: int


class Count(IterableDataset):
    thread_safe = True
    uses_global_rng = False

    def __iter__(self):
        return iter([(0, 1), (2, 3)])


class SizedCount(Count):
    def __len__(self):
        return 2


class Promising:
    """A transform that keeps the promises of ours."""

    thread_safe = True
    uses_global_rng = False

    def __call__(self, sample):
        return sample


def negative(value):
    return -value


@given(values=st.lists(st.integers(), min_size=1), data=st.data())
def test_each_sample_is_the_functions_value(values, data):
    index = data.draw(st.integers(-len(values), len(values) - 1))
    mapped = MapDataset(values, negative)
    assert list(mapped) == [-value for value in values]
    assert mapped[index] == -values[index]
    assert len(mapped) == len(values)


@pytest.mark.parametrize(
    ("sample", "key", "expected"),
    [
        ((1, 2), 0, (-1, 2)),
        ((1, 2), -1, (1, -2)),
        ([1, 2], 1, [1, -2]),
        ({"x": 1, "y": 2}, "y", {"x": 1, "y": -2}),
        (Pair(1, 2), "x", Pair(-1, 2)),
        (Pair(1, 2), 1, Pair(1, -2)),
        (Record(1, 2), "y", Record(1, -2)),
    ],
)
def test_a_key_maps_one_element_and_leaves_the_parents_sample(sample, key, expected):
    before = pickle.dumps(sample)
    for mapped in (MapDataset([sample], negative, key)[0], *MapIterableDataset([sample], negative, key)):
        assert mapped == expected
        assert type(mapped) is type(sample)
    assert pickle.dumps(sample) == before


@pytest.mark.parametrize(("key", "error"), [(2, IndexError), ("x", TypeError)])
def test_a_key_that_no_element_has_is_an_error(key, error):
    with pytest.raises(error, match="key must be"):
        MapDataset([(1, 2)], negative, key)[0]


def test_maps_chain_and_count_the_calls():
    calls = []
    dataset = TensorDataset(np.arange(3), np.arange(3)).map(lambda x: calls.append(x) or x + 1, key=0)
    assert dataset.map(sum)[2] == 5
    assert calls == [2]


def test_errors_of_the_function_pass_through():
    error = KeyError("mine")

    def fail(_):
        raise error

    for read in (lambda: MapDataset([1], fail)[0], lambda: list(MapIterableDataset([1], fail))):
        with pytest.raises(KeyError) as caught:
            read()
        assert caught.value is error


def test_a_mapped_stream_starts_anew_each_time():
    mapped = Count().map(negative, key=1)
    assert list(mapped) == list(mapped) == [(0, -1), (2, -3)]


def test_a_mapped_stream_is_lazy():
    read = []

    def endless():
        while True:
            read.append(len(read))
            yield read[-1]

    stream = iter(MapIterableDataset(endless(), negative))
    assert [next(stream), next(stream)] == [0, -1]
    assert read == [0, 1]


def test_the_length_is_the_parents():
    assert len(SizedCount().map(negative)) == 2
    with pytest.raises(TypeError, match="has no len"):
        len(Count().map(negative))

    class Endless(Dataset):
        def __getitem__(self, index):
            return index

    with pytest.raises(TypeError, match="has no len"):
        len(Endless().map(negative))
    assert Endless().map(negative)[10**12] == -(10**12)


def test_attributes_are_as_given():
    dataset = [(1, 2)]
    for mapped in (MapDataset(dataset, negative, 1), MapIterableDataset(dataset, negative, 1)):
        assert (mapped.dataset, mapped.fn, mapped.key) == (dataset, negative, 1)
        assert mapped.dataset is dataset


def test_a_map_reads_sample_by_sample():
    """The function draws its random numbers by sample, hence nothing is read in bulk."""
    mapped = TensorDataset(np.arange(3)).map(negative, key=0)
    assert not hasattr(mapped, "gather")
    assert not hasattr(mapped, "__getitems__")


@pytest.mark.parametrize("cls", [MapDataset, MapIterableDataset])
def test_what_cannot_be_called_is_refused(cls):
    with pytest.raises(TypeError, match=r"fn must be callable, got 3 \(int\)"):
        cls([1], 3)


def test_the_wrong_style_of_dataset_is_refused():
    with pytest.raises(TypeError, match="with an index, got the iterable-style Count; use MapIterableDataset"):
        MapDataset(Count(), negative)
    with pytest.raises(TypeError, match="that can be iterated, got int; use MapDataset"):
        MapIterableDataset(3, negative)


class Unpromising(Dataset):
    def __getitem__(self, index):
        return index


@pytest.mark.parametrize(
    ("dataset", "fn", "safe", "draws"),
    [
        ([1], Promising(), True, False),
        (TensorDataset(np.zeros(1)), Promising(), True, False),
        ([1], negative, False, True),
        (Unpromising(), Promising(), False, True),
        (Count(), Promising(), True, False),
        (Count(), negative, False, True),
    ],
)
def test_a_map_promises_what_dataset_and_function_promise(dataset, fn, safe, draws):
    cls = MapIterableDataset if isinstance(dataset, Count) else MapDataset
    mapped = cls(dataset, fn)
    assert mapped.thread_safe is safe
    assert mapped.uses_global_rng is draws


def test_promises_are_heard_when_they_change():
    fn = Promising()
    mapped = MapDataset([1], fn)
    fn.thread_safe = False
    assert not mapped.thread_safe
