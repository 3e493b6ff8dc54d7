"""Laws of mixed datasets: which sample a position reads, where an epoch ends, and what the loader makes of it."""

import json
import pickle
from fractions import Fraction
from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import feedline
from feedline import DataLoader, Dataset, IterableDataset, TensorDataset, mix
from feedline.datasets import MixedDataset
from feedline.datasets.mixture import Mixture

STOPS = ["first", "all", "repeat"]
WEIGHT = st.one_of(st.integers(0, 5), st.floats(0.05, 5), st.fractions(Fraction(1, 9), 2, max_denominator=20))


@st.composite
def mixed_sources(draw):
    """Sources of (source, index) pairs, and weights; what has a weight has a sample."""
    weights = draw(st.lists(WEIGHT, min_size=1, max_size=5).filter(any))
    sizes = [draw(st.integers(1 if weight else 0, 12)) for weight in weights]
    return [[(source, index) for index in range(size)] for source, size in enumerate(sizes)], weights


def expected(sources, weights, stop):
    """The epoch, position after position, until the stop rule says so."""
    mixture, seen, epoch = Mixture(weights), [0] * len(sources), []
    read = [source for source, weight in enumerate(weights) if weight]
    while True:
        source = int(mixture.sources(len(epoch), len(epoch) + 1)[0])
        ends = {
            "first": seen[source] == len(sources[source]),
            "all": all(seen[other] >= len(sources[other]) for other in read),
            "repeat": len(epoch) == sum(len(sources[other]) for other in read),
        }
        if ends[stop]:
            return epoch
        epoch.append(sources[source][seen[source] % len(sources[source])])
        seen[source] += 1


class Batched(Dataset):
    """Reads many samples at once and remembers that it did."""

    def __init__(self, values):
        self.values, self.reads = list(values), []

    def __len__(self):
        return len(self.values)

    def __getitem__(self, index):
        return self.values[index]

    def __getitems__(self, indices):
        self.reads.append(indices)
        return [self.values[index] for index in indices]


class Noisy(Dataset):
    """Sample i is (base + i, a number drawn for it)."""

    def __init__(self, base, length):
        self.base, self.length = base, length

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        return self.base + index, feedline.rng().integers(1 << 40)


class Stream(IterableDataset):
    def __iter__(self):
        return iter([1])


# ------------------------------------------------------------------------------------------------ positions


@pytest.mark.parametrize("stop", STOPS)
@given(mixed_sources())
def test_an_epoch_is_what_reading_on_until_the_stop_gives(stop, given_):
    sources, weights = given_
    mixed = mix(sources, weights, stop=stop)
    epoch = expected(sources, weights, stop)
    assert len(mixed) == len(epoch)
    assert list(mixed) == epoch
    assert [mixed.source_of(index) for index in range(len(mixed))] == epoch


@given(mixed_sources())
def test_first_reads_no_sample_twice_and_could_not_go_on(given_):
    sources, weights = given_
    epoch = list(mix(sources, weights, stop="first"))
    assert len(set(epoch)) == len(epoch)
    following = int(Mixture(weights).sources(len(epoch), len(epoch) + 1)[0])
    assert set(sources[following]) <= set(epoch), "the next source was read whole"


@given(mixed_sources())
def test_all_reads_every_sample_and_ends_with_the_last_missing_one(given_):
    sources, weights = given_
    epoch = list(mix(sources, weights, stop="all"))
    whole = {sample for source, weight in zip(sources, weights, strict=True) if weight for sample in source}
    assert set(epoch) == whole
    assert set(epoch[:-1]) == whole - {epoch[-1]}


@given(mixed_sources(), st.sampled_from(STOPS))
def test_every_prefix_has_the_shares_to_within_less_than_one(given_, stop):
    sources, weights = given_
    total, seen = sum(map(Fraction, weights)), [0] * len(weights)
    for n, (source, _) in enumerate(mix(sources, weights, stop=stop), 1):
        seen[source] += 1
        assert all(abs(s - n * Fraction(w) / total) < 1 for s, w in zip(seen, weights, strict=True))


@pytest.mark.parametrize("stop", STOPS)
@given(st.lists(st.integers(0, 30), min_size=1, max_size=6).filter(any))
def test_without_weights_every_sample_comes_once(stop, sizes):
    sources = [[(source, index) for index in range(size)] for source, size in enumerate(sizes)]
    mixed = mix(sources, stop=stop)
    assert mixed.weights == tuple(sizes)
    assert sorted(mixed) == [sample for source in sources for sample in source]


@given(mixed_sources(), st.data())
def test_many_samples_are_those_of_one_by_one(given_, data):
    sources, weights = given_
    mixed = mix([Batched(source) for source in sources], weights, stop="all")
    size = len(mixed)
    indices = data.draw(st.lists(st.integers(-size, size - 1), max_size=12))
    assert mixed.__getitems__(indices) == [mixed[index] for index in indices]
    assert all(len(member.reads) <= 1 for member in mixed.datasets), "each source is read once"


def test_sources_are_read_in_bulk_only_where_that_makes_no_difference():
    assert mix([Batched([1]), [2]]).reads_in_bulk
    assert not mix([[1], [2]]).reads_in_bulk
    assert not mix([Batched([1]), Noisy(0, 2)]).reads_in_bulk


def test_a_long_source_beyond_the_end_is_not_gone_through():
    mixed = mix([range(10), range(10**12)], [0.5, 0.25])
    assert len(mixed) == 15
    assert mixed._mixture._table.sources.size <= 2048
    assert len(mix([range(10**9), range(3 * 10**9)], [1, 3], stop="all")) == 4 * 10**9


def test_names_are_those_given_or_numbers():
    named = mix({"web": "abc", "code": "xy"}, [1, 1])
    assert (named.names, named.source_of(1), named.source_of(-1)) == (("web", "code"), ("code", 0), ("web", 2))
    assert mix(["abc", "xy"], [1, 1]).names == (0, 1)


def test_lengths_are_the_present_ones():
    first, second = [1, 2], [10, 20, 30]
    mixed = mix([first, second], [1, 1])
    assert list(mixed) == [1, 10, 2, 20]
    first.append(3)
    assert list(mixed) == [1, 10, 2, 20, 3, 30]
    first.clear()
    with pytest.raises(ValueError, match="must hold a sample, got none in 0"):
        len(mixed)


def test_weights_may_change():
    mixed = mix({"a": range(6), "b": range(10, 16)}, [1, 1])
    mixed.weights = [2, 1]
    assert mixed.weights == (2, 1)
    assert list(mixed) == list(mix([range(6), range(10, 16)], [2, 1]))
    with pytest.raises(ValueError, match="weights must not all be zero"):
        mixed.weights = [0, 0]
    assert mixed.weights == (2, 1), "what was refused changed nothing"


def test_promises_are_those_of_all_sources():
    assert mix([[1], TensorDataset(np.zeros(2))]).thread_safe
    assert not mix([[1], TensorDataset(np.zeros(2))]).uses_global_rng
    assert not mix([[1], Noisy(0, 2)]).thread_safe
    assert mix([[1], Noisy(0, 2)]).uses_global_rng


def test_a_mixed_dataset_travels_by_pickle_and_mixes_with_others():
    mixed = mix({"a": [1, 2], "b": [3]}, [2, 1], stop="repeat")
    assert list(pickle.loads(pickle.dumps(mixed))) == list(mixed) == [1, 3, 2]
    assert isinstance(mixed, MixedDataset)
    assert list(mix([mixed, [9, 9, 9]], [1, 1])) == [1, 9, 3, 9, 2, 9]


# ------------------------------------------------------------------------------------------------- refusals


def test_what_is_no_dataset_is_refused():
    with pytest.raises(ValueError, match=r"^datasets must hold at least one dataset, got none$"):
        mix({})
    with pytest.raises(
        TypeError,
        match=r"^datasets must have a length and an index, got Stream as 'live'; read a stream into a list or",
    ):
        mix({"ok": [1], "live": Stream()})
    for wrong in (3, {1, 2}, iter([1])):
        with pytest.raises(TypeError, match=f"got {type(wrong).__name__} as 0"):
            mix([wrong])


def test_an_empty_source_is_refused_where_it_would_be_read():
    with pytest.raises(
        ValueError,
        match=r"^datasets of a weight that is not zero must hold a sample, got none in 'b'; give it weight 0$",
    ):
        mix({"a": [1], "b": []}, [1, 1])
    assert list(mix({"a": [1], "b": []}, [1, 0])) == [1]
    with pytest.raises(ValueError, match=r"^datasets must hold at least one sample, got 2 without$"):
        mix([[], []])


def test_other_stops_and_numbers_of_weights_are_refused():
    with pytest.raises(ValueError, match=r"^stop must be 'first', 'all' or 'repeat', got 'last'$"):
        mix([[1]], stop="last")
    with pytest.raises(
        ValueError, match=r"^weights must be one for each of the 2 datasets \['a', 'b'\], got 3: \[1, 2, 3\]$"
    ):
        mix({"a": [1], "b": [2]}, [1, 2, 3])
    with pytest.raises(ValueError, match="weights must be finite and not negative, got -1 at index 0"):
        mix([[1]], [-1])


@pytest.mark.parametrize("index", [4, -5])
def test_what_lies_outside_is_refused(index):
    mixed = mix([[1, 2], [3, 4]], [1, 1])
    for read in (mixed.__getitem__, mixed.source_of, lambda index: mixed.__getitems__([index])):
        with pytest.raises(IndexError, match=f"Index {index} out of range for dataset of size 4"):
            read(index)


# --------------------------------------------------------------------------------------------------- loader


def read(loader):
    return [list(zip(index.tolist(), drawn.tolist(), strict=True)) for index, drawn in loader]


@pytest.mark.parametrize("shuffle", [False, True])
@given(st.integers(0, 7), st.sampled_from(STOPS))
def test_a_loader_resumes_in_the_middle_of_a_mixed_epoch(shuffle, done, stop):
    def build(size=4):
        mixed = mix({"a": Noisy(0, 15), "b": Noisy(100, 20)}, [0.7, 0.3], stop=stop)
        return DataLoader(mixed, size, shuffle=shuffle, seed=5)

    epoch = [sample for batch in read(build()) for sample in batch]
    loader = build()
    delivered = list(islice(loader, min(done, len(loader))))
    state = json.loads(json.dumps(loader.state_dict()))
    rest = build(size=3)
    rest.load_state_dict(state)
    assert [sample for batch in read(rest) for sample in batch] == epoch[4 * len(delivered) :]


def test_each_batch_of_an_unshuffled_loader_has_the_shares():
    mixed = mix([np.zeros(700, dtype=np.int64), np.ones(300, dtype=np.int64)], [0.7, 0.3])
    assert {int(batch.sum()) for batch in DataLoader(mixed, 10)} <= {2, 3, 4}
    assert np.concatenate(list(DataLoader(mixed, 10, shuffle=True, seed=1))).mean() == pytest.approx(0.3, abs=0.005)


def test_a_loader_hears_of_weights_that_changed_between_epochs():
    mixed = mix({"a": Noisy(0, 40), "b": Noisy(100, 40)}, [1, 1], stop="repeat")
    loader = DataLoader(mixed, 8, seed=1)
    assert sum(index >= 100 for batch in read(loader) for index, _ in batch) == 40
    mixed.weights = [3, 1]
    assert sum(index >= 100 for batch in read(loader) for index, _ in batch) == 20


@pytest.mark.parametrize("weights", [{0: 1, 1: 2}, {1, 2}, 3, sum], ids=repr)
def test_weights_that_are_in_no_order_are_refused(weights):
    with pytest.raises(
        TypeError, match=rf"^weights must be one a dataset, in their order, got {type(weights).__name__}; give a list"
    ):
        mix([[1], [2]], weights)


def test_what_holds_no_datasets_is_refused_and_a_generator_of_them_is_not():
    with pytest.raises(TypeError, match=r"^datasets must be a dict of datasets by name, or a list of them, got int$"):
        mix(3)
    assert len(mix([1] * n for n in (2, 2))) == 4
