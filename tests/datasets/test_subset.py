"""Parts of datasets, chosen and random."""

import pickle
import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils import data as torch_data

from feedline.datasets import Dataset, MapDataset, StackDataset, Subset, TensorDataset, random_split
from feedline.seeding import Stream, bulk_words


class Batched(Dataset):
    def __init__(self, values):
        self.values = values

    def __len__(self):
        return len(self.values)

    def __getitem__(self, index):
        assert type(index) in {int, str}
        return self.values[index]

    def __getitems__(self, indices):
        return [self[index] for index in indices]


@st.composite
def choices(draw):
    """A length, indices into it, and places in those."""
    size = draw(st.integers(1, 20))
    indices = draw(st.lists(st.integers(-size, size - 1), min_size=1, max_size=20))
    places = draw(st.lists(st.integers(-len(indices), len(indices) - 1), min_size=1, max_size=10))
    return size, indices, places


KINDS = st.sampled_from([list, tuple, np.array, torch.tensor])


# -------------------------------------------------------------------------------------------------- subset


@given(choice=choices(), kind=KINDS)
def test_a_subset_yields_the_samples_at_its_indices(choice, kind):
    size, indices, places = choice
    values = list(range(100, 100 + size))
    subset = Subset(values, kind(indices))
    assert len(subset) == len(indices)
    assert list(subset) == [values[index] for index in indices]
    for place in places:
        assert subset[place] == values[indices[place]]
    assert subset[places] == [subset[place] for place in places]
    assert subset[np.array(places)] == [subset[place] for place in places]


@given(choice=choices(), kind=KINDS)
def test_a_subset_gathers_what_its_samples_stack_to(choice, kind):
    size, indices, places = choice
    subset = Subset(TensorDataset(np.arange(size * 2).reshape(size, 2)), kind(indices))
    reference = np.stack([subset[place][0] for place in places])
    np.testing.assert_array_equal(subset.gather(places)[0], reference)
    out = (np.zeros_like(reference),)
    assert subset.gather(np.array(places), out) is not None
    np.testing.assert_array_equal(out[0], reference)
    nested = Subset(subset, kind(places))
    np.testing.assert_array_equal(nested.gather(range(len(places)))[0], reference)


@given(choice=choices(), kind=KINDS)
def test_a_subset_reads_many_samples_at_once_where_the_dataset_does(choice, kind):
    size, indices, places = choice
    subset = Subset(
        Batched(list(range(100, 100 + size))),
        kind(indices).tolist() if kind is torch.tensor else kind(indices),
    )
    assert subset.__getitems__(places) == [subset[place] for place in places]
    assert not Subset(list(range(size)), indices).reads_in_bulk
    one_by_one = Subset(list(range(size)), indices)
    assert one_by_one.__getitems__(places) == [one_by_one[place] for place in places]
    assert Subset(list(range(size)), indices).gather is None


def test_a_subset_of_torchs_reads_in_bulk_only_where_what_it_wraps_does():
    assert not Subset(torch_data.Subset([5, 6, 7], [2, 0]), [1]).reads_in_bulk
    assert Subset(torch_data.Subset(Batched([5, 6, 7]), [2, 0]), [1]).__getitems__([0]) == [5]


@given(choice=choices(), cut=st.tuples(*[st.none() | st.integers(-20, 20)] * 2, st.sampled_from([None, 2, 3])))
def test_slices_and_lists_agree_with_torch(choice, cut):
    size, indices, places = choice
    tensors = torch.arange(size), torch.arange(size) * 0.5
    mine = Subset(TensorDataset(*tensors), indices)
    theirs = torch_data.Subset(torch_data.TensorDataset(*tensors), indices)
    for index in (slice(*cut), places):
        for got, expected in zip(mine[index], theirs[index], strict=True):
            assert torch.equal(got, expected)
    everything = list(range(len(indices)))
    mine, theirs = Subset(mine, everything), torch_data.Subset(theirs, everything)
    for got, expected in zip(mine[slice(*cut)], theirs[slice(*cut)], strict=True):
        assert torch.equal(got, expected)


def test_a_slice_of_an_array_is_an_array():
    part = Subset(np.arange(10) * 2, [5, 4, 3])[1:]
    assert part.tolist() == [8, 6]
    assert Subset(torch.arange(10), np.array([5, 4]))[[1]].tolist() == [4]


def test_indices_may_be_keys():
    dataset = {"a": 1, "b": 2, "c": 3}
    for keys in (["c", "a"], np.array(["c", "a"])):
        subset = Subset(dataset, keys)
        assert list(subset) == [3, 1]
        assert subset[:1] == [3]
    assert Subset(Batched(dataset), ["c", "a"]).__getitems__([1]) == [1]


def test_attributes_are_as_given():
    dataset, indices = [1, 2], (1, 0)
    assert Subset(dataset, indices).dataset is dataset
    assert Subset(dataset, indices).indices is indices


@pytest.mark.parametrize("index", [2, -3])
def test_a_subset_refuses_what_lies_outside(index):
    for dataset in ([1, 2, 3], TensorDataset(np.arange(3)), Batched([1, 2, 3])):
        subset = Subset(dataset, [1, 0])
        reads = [subset.__getitem__, lambda i: subset[[i]]]
        reads += [lambda i, many=many: many([i]) for many in (subset.gather, subset.__getitems__) if many]
        for read in reads:
            with pytest.raises(IndexError, match=f"Index {index} out of range for dataset of size 2"):
                read(index)


def test_a_subset_promises_what_its_dataset_promises():
    assert Subset([1], [0]).thread_safe
    assert not Subset([1], [0]).uses_global_rng
    assert not Subset(Batched([1]), [0]).thread_safe
    assert Subset(Batched([1]), [0]).uses_global_rng


def test_a_subset_travels_by_pickle():
    subset = Subset(TensorDataset(np.arange(4)), [2, 1])
    assert list(pickle.loads(pickle.dumps(subset))) == list(subset)


# -------------------------------------------------------------------------------------------- random_split


@st.composite
def splits(draw):
    counts = draw(st.lists(st.integers(1, 30), min_size=2, max_size=5))
    return sum(counts), counts


@given(split=splits(), seed=st.integers(0, 2**64 - 1))
def test_a_split_is_a_partition_and_a_function_of_the_seed(split, seed):
    size, counts = split
    parts = random_split(range(size), counts, seed=seed)
    assert [len(part) for part in parts] == counts
    assert sorted(sample for part in parts for sample in part) == list(range(size))
    assert all(part.indices.dtype == np.int64 for part in parts)
    again = random_split(range(size), counts, seed=seed)
    assert [list(part) for part in parts] == [list(part) for part in again]


def test_the_order_is_that_of_the_seeds_words():
    words = bulk_words(3, 0, Stream.SPLIT.word(), 0, 50).tolist()
    first, second = random_split(range(50), [20, 30], seed=3)
    assert [*first.indices, *second.indices] == sorted(range(50), key=words.__getitem__)
    assert [*first.indices] != [*random_split(range(50), [20, 30], seed=4)[0].indices]


@given(size=st.integers(1, 200), weights=st.lists(st.integers(1, 50), min_size=1, max_size=5))
def test_fractions_round_as_torch_rounds(size, weights):
    fractions = [weight / sum(weights) for weight in weights]
    fractions[-1] = max(0.0, 1 - sum(fractions[:-1]))
    # torch refuses fractions that sum to a hair over 1; both warn of empty parts
    if sum(fractions) > 1 or size < sum(weights):
        return
    theirs = torch_data.random_split(range(size), fractions)
    assert [len(part) for part in random_split(range(size), fractions)] == [len(part) for part in theirs]


def test_fractions_that_sum_to_a_hair_over_one_are_fractions():
    fractions = [0.2, 0.4, 0.3, 0.1]
    assert sum(fractions) > 1
    assert [len(part) for part in random_split(range(100), fractions)] == [20, 40, 30, 10]


def test_a_split_of_a_columnar_dataset_gathers():
    train, test = random_split(TensorDataset(np.arange(10)), [0.8, 0.2], seed=0)
    assert sorted([*train.gather(range(8))[0], *test.gather(range(2))[0]]) == list(range(10))


@pytest.mark.parametrize(
    "make", [random.Random, np.random.default_rng, lambda seed: torch.Generator().manual_seed(seed)]
)
def test_a_generator_gives_the_seed_and_advances(make):
    generator = make(1)
    first, second = (list(random_split(range(50), [25, 25], generator)[0]) for _ in range(2))
    assert first != second
    assert first == list(random_split(range(50), [25, 25], generator=make(1))[0])


def test_without_a_seed_it_is_drawn_from_python_random():
    random.seed(0)
    first = list(random_split(range(50), [25, 25])[0])
    assert first != list(random_split(range(50), [25, 25])[0])
    random.seed(0)
    assert first == list(random_split(range(50), [25, 25])[0])


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        (
            [5, 6],
            r"that sum to 10, the dataset's length, or fractions that sum to 1, got \[5, 6\], .* sum to 11",
        ),
        ([0.5, 0.4], r"got \[0.5, 0.4\], which sum to 0.9"),
        ([2.5, 7.5], r"got \[2.5, 7.5\], which sum to 10.0"),
        ([], r"got \[\], which sum to 0"),
        ([11, -1], r"lengths must not be negative, got \[11, -1\]"),
        ([1.5, -0.5], r"lengths must not be negative, got \[1.5, -0.5\]"),
        ([float("nan"), 1.0], r"lengths must not be negative, got \[nan, 1.0\]"),
    ],
)
def test_wrong_lengths_are_refused(lengths, message):
    with pytest.raises(ValueError, match=message):
        random_split(range(10), lengths)


def test_seed_and_generator_exclude_each_other():
    with pytest.raises(ValueError, match="give one of them, got both"):
        random_split(range(10), [5, 5], random.Random(0), seed=0)


def test_wrong_seeds_and_generators_are_refused():
    with pytest.raises(TypeError, match="seed must be an integer"):
        random_split(range(10), [5, 5], seed=1.5)
    with pytest.raises(TypeError, match=r"generator must be .*, got int; give an integer as seed="):
        random_split(range(10), [5, 5], 42)


def test_an_empty_part_warns():
    with pytest.warns(UserWarning, match="Length of split at index 1 is 0. This might result in an empty"):
        full, empty = random_split(range(3), [3, 0])
    assert len(full) == 3
    assert list(empty) == []


def test_the_whole_may_be_one_part():
    (part,) = random_split(StackDataset("abc"), [1.0])
    assert sorted(part) == [("a",), ("b",), ("c",)]
    assert sorted(random_split(MapDataset("abc", str.upper), [3])[0]) == ["A", "B", "C"]


@pytest.mark.parametrize("mask", [[True, False, True], np.array([True, False, True])])
def test_a_mask_is_no_list_of_indices(mask):
    with pytest.raises(TypeError, match=r"got a mask of booleans; use np.flatnonzero\(mask\)"):
        Subset([10, 11, 12], mask)
