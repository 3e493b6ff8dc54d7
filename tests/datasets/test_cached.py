"""Samples that are kept."""

import copy
import pickle
import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from feedline.datasets import CachedDataset, Dataset, IterableDataset, TensorDataset


class Pair(NamedTuple):
    x: Any
    y: Any


@dataclass
class Record:
    x: np.ndarray
    y: int


class Counting(Dataset):
    """Counts how often each sample was read."""

    def __init__(self, values):
        self.values, self.reads = values, []

    def __len__(self):
        return len(self.values)

    def __getitem__(self, index):
        value = self.values[index]
        self.reads.append(index)
        return value


def test_each_sample_is_read_once_however_it_is_named():
    dataset = Counting([10, 11, 12])
    cached = dataset.cache()
    for index in (2, -1, np.int64(2), np.int8(-1)):
        assert cached[index] == 12
    assert dataset.reads == [2]
    assert list(cached) == list(cached) == [10, 11, 12]
    assert dataset.reads == [2, 0, 1]


@given(reads=st.lists(st.integers(-6, 5), max_size=40), max_items=st.integers(1, 7))
def test_a_bounded_cache_forgets_the_least_recently_used(reads, max_items):
    dataset = Counting(list(range(100, 106)))
    cached = dataset.cache(max_items=max_items)
    kept, misses = OrderedDict(), []
    for index in reads:
        assert cached[index] == 100 + index % 6
        if index % 6 not in kept:
            misses.append(index)
        kept[index % 6] = None
        kept.move_to_end(index % 6)
        if len(kept) > max_items:
            kept.popitem(last=False)
    assert dataset.reads == misses
    assert len(cached._kept) <= max_items


@given(size=st.integers(0, 10), data=st.data())
def test_a_cache_yields_what_the_dataset_yields(size, data):
    dataset = TensorDataset(np.arange(size), np.arange(size) * 0.5)
    cached = dataset.cache(max_items=data.draw(st.none() | st.integers(1, 5)))
    assert len(cached) == size
    for _ in range(2):
        assert list(cached) == list(dataset)


@pytest.mark.parametrize("index", [3, -4])
def test_what_lies_outside_is_the_datasets_to_refuse(index):
    cached = TensorDataset(np.arange(3)).cache()
    with pytest.raises(IndexError, match="out of range for dataset of size 3"):
        cached[index]


def test_an_error_is_not_kept():
    dataset = Counting([1])
    cached = dataset.cache()
    dataset.values = [None]
    with pytest.raises(IndexError):
        cached[1]
    dataset.values = [1, 2]
    assert cached[1] == 2


def test_keys_of_any_kind():
    dataset = Counting({"a": 1, "b": 2})
    cached = CachedDataset(dataset)
    assert [cached["b"], cached["b"], cached["a"]] == [2, 2, 1]
    assert dataset.reads == ["b", "a"]
    assert CachedDataset({-1: "minus", 1: "plus"})[-1] == "minus"


def test_a_dataset_without_a_length_is_cached_by_its_own_indices():
    class Endless(Dataset):
        reads = 0

        def __getitem__(self, index):
            self.reads += 1
            return -index

    dataset = Endless()
    cached = dataset.map(lambda x: x).cache()
    assert [cached[10**9], cached[10**9], cached[-1]] == [-(10**9), -(10**9), 1]
    assert dataset.reads == 2


SAMPLES = [
    lambda x: x,
    lambda x: (x, 1),
    lambda x: [x, 1],
    lambda x: {"x": x, "more": {"y": [x]}},
    lambda x: Pair(x, 1),
    lambda x: Record(x, 1),
]


def first_array(sample):
    while not isinstance(sample, np.ndarray):
        match sample:
            case dict() | Record():
                sample = vars(sample)["x"] if isinstance(sample, Record) else sample["x"]
            case _:
                sample = sample[0]
    return sample


@pytest.mark.parametrize("make", SAMPLES)
def test_a_later_stage_cannot_change_what_is_kept(make):
    """An array raises, whether it is just read or kept; the dataset's own array keeps its flag."""
    array = np.zeros(3)
    cached = CachedDataset([make(array)])
    for _ in range(2):
        sample = cached[0]
        assert type(sample) is type(make(array))
        with pytest.raises(ValueError, match="read-only"):
            first_array(sample)[0] = 1
    assert array.flags.writeable
    assert np.shares_memory(first_array(cached[0]), array)


def test_each_reader_has_containers_of_its_own():
    cached = CachedDataset([{"image": np.zeros(2), "boxes": [1, 2], "record": Record(np.zeros(1), 5)}])
    for _ in range(2):
        sample = cached[0]
        assert sample["boxes"] == [1, 2]
        assert sample["record"].y == 5
        sample["boxes"].append(3)
        sample["record"].y = 6
        del sample["image"]
    assert set(cached[0]) == {"image", "boxes", "record"}


def test_other_objects_are_kept_as_they_are():
    tensor, numbers = torch.zeros(2), range(3)
    cached = CachedDataset([(tensor, numbers, "text", None)])
    for _ in range(2):
        assert cached[0][0] is tensor
        assert cached[0][1] is numbers
        assert cached[0][2:] == ("text", None)


def test_the_cache_starts_anew_when_the_length_changes():
    values = [1, 2, 3]
    cached = CachedDataset(values)
    assert list(cached) == [1, 2, 3]
    values[:] = [7, 8]
    assert list(cached) == [7, 8]
    assert cached[-1] == 8


def test_what_comes_before_is_computed_once_and_what_comes_after_each_time():
    draws = iter(range(100))
    dataset = Counting([0, 0]).map(lambda x: x + next(draws)).cache().map(lambda x: (x, next(draws)))
    (first, after), (again, later) = dataset[0], dataset[0]
    assert first == again
    assert after != later


def test_threads_that_read_the_same_sample_get_the_first_one_kept():
    """Both are in the dataset at once, so no lock is held there; what they return is one object."""
    both_inside = threading.Barrier(2, timeout=30)

    class Meeting(Dataset):
        def __len__(self):
            return 1

        def __getitem__(self, index):
            both_inside.wait()
            return np.zeros(1)

    cached, got = Meeting().cache(), []
    threads = [threading.Thread(target=lambda: got.append(cached[0])) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(got) == 2
    assert got[0] is got[1]


def test_many_threads_share_a_bounded_cache():
    cached = CachedDataset(list(range(50)), max_items=5)
    wrong = []

    def read(seed):
        indices = np.random.default_rng(seed).integers(0, 50, 500).tolist()
        wrong.extend(index for index in indices if cached[index] != index)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert wrong == []
    assert len(cached._kept) == 5


@pytest.mark.parametrize("travel", [lambda x: pickle.loads(pickle.dumps(x)), copy.deepcopy, copy.copy])
def test_a_pickled_cache_arrives_empty_and_works(travel):
    cached = CachedDataset(Counting([np.zeros(2), np.ones(2)]), max_items=1)
    cached[0]
    arrived = travel(cached)
    assert arrived.max_items == 1
    assert arrived.dataset.reads == [0]
    assert arrived[0].tolist() == [0, 0]
    assert arrived.dataset.reads == [0, 0]


def draw_much(sample):
    return np.zeros(10_000)


def test_a_pickled_cache_leaves_its_samples_behind():
    cached = TensorDataset(np.zeros(2)).map(draw_much).cache()
    before = len(pickle.dumps(cached))
    assert [sample.size for sample in cached] == [10_000, 10_000]
    assert len(pickle.dumps(cached)) == before


@pytest.mark.parametrize("max_items", [0, -1, 1.5, True, "3"])
def test_max_items_must_be_a_positive_integer(max_items):
    with pytest.raises(ValueError, match=f"max_items must be a positive integer, got {max_items!r}"):
        CachedDataset([1], max_items=max_items)


def test_max_items_may_be_a_numpy_integer():
    assert CachedDataset([1], np.int64(2)).max_items == 2


def test_streams_are_refused():
    class Stream(IterableDataset):
        def __iter__(self):
            return iter([1])

    with pytest.raises(TypeError, match="cache takes a dataset with an index, got the iterable-style Stream"):
        CachedDataset(Stream())


def test_a_cache_promises_what_its_dataset_promises():
    assert CachedDataset([1]).thread_safe
    assert not CachedDataset([1]).uses_global_rng
    assert not CachedDataset(Counting([1])).thread_safe
    assert CachedDataset(Counting([1])).uses_global_rng
