"""Datasets side by side and end to end."""

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils import data as torch_data

from feedline.datasets import (
    ChainDataset,
    ConcatDataset,
    Dataset,
    IterableDataset,
    MapDataset,
    StackDataset,
    TensorDataset,
)
from feedline.protocols import gather_of, is_thread_safe, uses_global_rng

LISTS = st.lists(st.lists(st.integers(), max_size=8), min_size=1, max_size=5)


class Batched(Dataset):
    """Reads many samples at once and remembers that it did; ``short`` withholds one."""

    def __init__(self, values, *, short=False):
        self.values, self.short, self.reads = list(values), short, []

    def __len__(self):
        return len(self.values)

    def __getitem__(self, index):
        return self.values[index]

    def __getitems__(self, indices):
        self.reads.append(indices)
        return [self.values[index] for index in indices][self.short :]


class Count(IterableDataset):
    thread_safe = True
    uses_global_rng = False

    def __init__(self, size):
        self.size = size

    def __iter__(self):
        return iter(range(self.size))


class SizedCount(Count):
    def __len__(self):
        return self.size


# --------------------------------------------------------------------------------------------------- stack


@given(values=st.lists(st.tuples(st.integers(), st.text()), min_size=1, max_size=10), data=st.data())
def test_stack_holds_the_members_samples(values, data):
    numbers, texts = [n for n, _ in values], [t for _, t in values]
    index = data.draw(st.integers(-len(values), len(values) - 1))
    stack = StackDataset(numbers, texts)
    assert list(stack) == values
    assert stack[index] == values[index]
    assert stack[np.int64(index)] == values[index]
    named = StackDataset(n=numbers, t=texts)
    assert named[index] == {"n": numbers[index], "t": texts[index]}
    assert len(stack) == len(named) == len(values)


def test_stack_agrees_with_torch():
    members = [5, 6, 7], torch.arange(3)
    assert list(StackDataset(*members)) == [torch_data.StackDataset(*members)[i] for i in range(3)]
    named = {"a": members[0], "b": members[1]}
    assert list(StackDataset(**named)) == [torch_data.StackDataset(**named)[i] for i in range(3)]
    assert StackDataset(**named).datasets == torch_data.StackDataset(**named).datasets
    assert isinstance(StackDataset(*members).datasets, tuple)


def test_stack_refuses_members_of_different_lengths():
    with pytest.raises(ValueError, match="All datasets must have same length, got 2, 3, 2"):
        StackDataset([1, 2], [1, 2, 3], [1, 2])
    values = [1, 2]
    stack = StackDataset(values, [3, 4])
    values.append(5)
    with pytest.raises(ValueError, match="All datasets must have same length, got 3, 2"):
        stack[0]


def test_stack_refuses_other_arguments():
    with pytest.raises(ValueError, match="either by position or by name, got 1 by position and 2 by name"):
        StackDataset([1], a=[1], b=[1])
    with pytest.raises(ValueError, match="StackDataset needs at least one dataset, got none"):
        StackDataset()
    with pytest.raises(TypeError, match="StackDataset takes datasets with an index, got the iterable-style S"):
        StackDataset([1], SizedCount(1))


def test_stack_refuses_what_lies_outside():
    with pytest.raises(IndexError, match="Index 2 out of range for dataset of size 2"):
        StackDataset([1, 2])[2]
    with pytest.raises(IndexError, match="Index 4 out of range for dataset of size 2"):
        StackDataset(Batched([1, 2])).__getitems__([0, 4])


def test_stack_reads_many_samples_at_once_where_a_member_does():
    batched = Batched([5, 6, 7])
    stack = StackDataset(batched, ["a", "b", "c"])
    assert stack.__getitems__([2, -3]) == [stack[2], stack[0]] == [(7, "c"), (5, "a")]
    assert batched.reads == [[2, 0]]
    assert StackDataset(n=batched, t="abc").__getitems__([1]) == [{"n": 6, "t": "b"}]
    columnar = TensorDataset(np.arange(3))
    assert StackDataset(batched, columnar).__getitems__([1]) == [(6, (1,))]


def test_stack_reads_one_by_one_where_that_may_make_a_difference():
    """A member that may draw random numbers for each sample is not read in bulk for another's sake."""
    batched = Batched([5, 6, 7])
    assert not StackDataset([1, 2, 3], "abc").reads_in_bulk
    assert not StackDataset(batched, MapDataset([1, 2, 3], lambda x: x)).reads_in_bulk


def test_a_member_of_torchs_reads_in_bulk_only_where_what_it_wraps_does():
    """They have the method over any dataset: read by it, samples would be augmented by the batch's key."""
    plain, bulk = (torch_data.Subset(parent, [2, 0]) for parent in ([5, 6, 7], Batched([5, 6, 7])))
    assert not StackDataset(plain, Batched("ab")).reads_in_bulk
    assert not ConcatDataset([plain, Batched("ab")]).reads_in_bulk
    assert StackDataset(bulk, "ab").__getitems__([1]) == [(5, "b")]
    assert ConcatDataset([bulk, "ab"]).__getitems__([1, 2]) == [5, "a"]


def test_stack_refuses_a_member_that_returns_fewer_samples():
    stack = StackDataset([1, 2, 3, 4], Batched([1, 2, 3, 4], short=True))
    with pytest.raises(ValueError, match=r"output size mismatch\. Expected 4, got 3 from Batched\.__getitems__"):
        stack.__getitems__([0, 1, 2, 3])


@given(size=st.integers(1, 12), data=st.data())
def test_stack_gathers_what_the_samples_stack_to(size, data):
    left = TensorDataset(np.arange(size * 2).reshape(size, 2))
    right = TensorDataset(np.arange(size) * 0.5, np.arange(size)[::-1])
    indices = np.array(data.draw(st.lists(st.integers(-size, size - 1), min_size=1, max_size=8)))
    samples = [(left[i], right[i]) for i in indices]
    reference = (
        (np.stack([a for (a,), _ in samples]),),
        (np.stack([b for _, (b, _) in samples]), np.stack([c for _, (_, c) in samples])),
    )
    stack, named = StackDataset(left, right), StackDataset(x=left, y=right)
    out = tuple(tuple(np.zeros_like(part) for part in member) for member in reference)
    batch = stack.gather(indices)
    named_batch = named.gather(indices, {"y": out[1], "x": out[0]})
    assert list(named_batch) == ["x", "y"]
    for got in (batch, out, tuple(named_batch.values())):
        for got_member, member in zip(got, reference, strict=True):
            for got_part, part in zip(got_member, member, strict=True):
                np.testing.assert_array_equal(got_part, part)


def test_stack_gathers_only_where_every_member_does():
    columnar = TensorDataset(torch.arange(3))
    assert StackDataset(columnar, [1, 2, 3]).gather is None
    assert StackDataset(columnar, StackDataset([1, 2, 3])).gather is None
    assert StackDataset(StackDataset(columnar)).gather is not None
    assert StackDataset(torch.arange(3)).gather is None, "a tensor's method of that name is something else"
    assert gather_of(torch.arange(3)) is None


def test_gather_of_is_the_datasets_own_or_none():
    columnar = TensorDataset(np.arange(3))
    assert gather_of(columnar) == columnar.gather
    assert gather_of([1]) is None
    assert gather_of(StackDataset([1])) is None


# -------------------------------------------------------------------------------------------------- concat


@given(parts=LISTS, data=st.data())
def test_concat_is_the_members_end_to_end(parts, data):
    whole = [value for part in parts for value in part]
    concat = ConcatDataset(parts)
    assert list(concat) == whole
    assert len(concat) == len(whole)
    assert concat.cumulative_sizes == torch_data.ConcatDataset(parts).cumulative_sizes
    if whole:
        index = data.draw(st.integers(-len(whole), len(whole) - 1))
        assert concat[index] == whole[index] == torch_data.ConcatDataset(parts)[index]


@given(parts=LISTS.filter(any), data=st.data())
def test_concat_reads_many_samples_at_once_where_a_member_does(parts, data):
    whole = [value for part in parts for value in part]
    indices = data.draw(st.lists(st.integers(-len(whole), len(whole) - 1), max_size=12))
    members = [Batched(part) if place % 2 == 0 else part for place, part in enumerate(parts)]
    assert ConcatDataset(members).__getitems__(indices) == [whole[index] for index in indices]
    assert all(len(member.reads) <= 1 for member in members[::2])


def test_concat_reads_one_by_one_where_no_member_does_more():
    assert not ConcatDataset([[1], [2]]).reads_in_bulk
    assert not ConcatDataset([Batched([1]), MapDataset([2], lambda x: x)]).reads_in_bulk


def test_concat_refuses_a_member_that_returns_fewer_samples():
    with pytest.raises(ValueError, match=r"Expected 2, got 1 from Batched\.__getitems__"):
        ConcatDataset([[1], Batched([1, 2], short=True)]).__getitems__([0, 1, 2])


def test_concat_by_plus():
    concat = TensorDataset(np.arange(2)) + [7] + "ab"
    assert list(concat) == [(0,), (1,), 7, "a", "b"]


@pytest.mark.parametrize("index", [3, -4])
def test_concat_refuses_what_lies_outside(index):
    with pytest.raises(IndexError, match=f"Index {index} out of range for dataset of size 3"):
        ConcatDataset([[1, 2], [3]])[index]
    with pytest.raises(IndexError, match=f"Index {index} out of range for dataset of size 3"):
        ConcatDataset([Batched([1, 2]), [3]]).__getitems__([index])


def test_concat_refuses_other_arguments():
    with pytest.raises(ValueError, match="ConcatDataset needs at least one dataset, got none"):
        ConcatDataset([])
    with pytest.raises(
        TypeError,
        match="ConcatDataset takes datasets with an index, got the iterable-style Count; use ChainD",
    ):
        ConcatDataset([[1], Count(2)])
    with pytest.raises(TypeError, match="has no len"):
        ConcatDataset([{}.get])


def test_concat_follows_its_members_lengths():
    first = [1, 2]
    concat = ConcatDataset([first, [9]])
    first.append(3)
    assert list(concat) == [1, 2, 3, 9]
    assert concat[3] == 9


# --------------------------------------------------------------------------------------------------- chain


@given(sizes=st.lists(st.integers(0, 5), max_size=4))
def test_chain_is_the_streams_end_to_end_each_time_anew(sizes):
    chain = ChainDataset([SizedCount(size) for size in sizes])
    expected = [number for size in sizes for number in range(size)]
    assert list(chain) == list(chain) == expected
    assert len(chain) == len(expected)


def test_chain_opens_a_stream_when_the_one_before_has_ended():
    opened = []

    class Telling(Count):
        def __iter__(self):
            opened.append(self.size)
            return super().__iter__()

    stream = iter(ChainDataset([Telling(2), Telling(1)]))
    assert [next(stream), next(stream)] == [0, 1]
    assert opened == [2]
    assert list(stream) == [0]
    assert opened == [2, 1]


def test_chain_has_a_length_where_all_streams_have_one():
    with pytest.raises(TypeError, match="has no len"):
        len(ChainDataset([SizedCount(2), Count(2)]))


def test_chain_takes_torch_streams():
    class TorchCount(torch_data.IterableDataset):
        def __iter__(self):
            return iter(range(2))

    assert list(ChainDataset([TorchCount(), Count(1)])) == [0, 1, 0]


def test_chain_refuses_datasets_with_an_index():
    with pytest.raises(
        TypeError, match="iterable-style datasets, got list at place 1; use ConcatDataset for datasets with"
    ):
        ChainDataset([Count(1), [1, 2]])
    with pytest.raises(TypeError, match="got int at place 0"):
        ChainDataset([3])


# ------------------------------------------------------------------------------------------------ promises


class Unpromising(Batched):
    """As a user writes it: it promises nothing."""


@pytest.mark.parametrize("combine", [StackDataset, lambda *members: ConcatDataset(members)])
def test_combinations_promise_what_all_members_promise(combine):
    plain = [1, 2], np.zeros(2), torch.zeros(2), range(2), "ab", (1, 2), TensorDataset(np.zeros(2))
    assert combine(*plain).thread_safe
    assert not combine(*plain).uses_global_rng
    assert not combine(*plain, Unpromising([1, 2])).thread_safe
    assert combine(*plain, Unpromising([1, 2])).uses_global_rng


def test_a_chain_promises_what_all_streams_promise():
    class Random(Count):
        thread_safe = False
        uses_global_rng = True

    assert ChainDataset([Count(1)]).thread_safe
    assert not ChainDataset([Count(1)]).uses_global_rng
    assert not ChainDataset([Count(1), Random(1)]).thread_safe
    assert ChainDataset([Count(1), Random(1)]).uses_global_rng


def test_a_subclass_of_a_container_promises_nothing_by_itself(tmp_path):
    class Noisy(list):
        pass

    assert not is_thread_safe(Noisy())
    assert uses_global_rng(Noisy())
    np.save(tmp_path / "x.npy", np.zeros(2))
    assert is_thread_safe(np.load(tmp_path / "x.npy", mmap_mode="r"))


def test_combinations_travel_by_pickle():
    columnar = TensorDataset(np.arange(3))
    for dataset in (StackDataset(columnar, [1, 2, 3]), StackDataset(a=columnar), ConcatDataset([columnar])):
        assert list(pickle.loads(pickle.dumps(dataset))) == list(dataset)
