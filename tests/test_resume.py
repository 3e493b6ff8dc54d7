"""Laws of the cursor, seen from the loader: any prefix, its state and a new loader yield the rest, exactly."""

from itertools import chain, islice

import numpy as np
import pytest
from doubles import Noisy, Own, Pairs, Stateful, through_json
from hypothesis import given, settings
from hypothesis import strategies as st

import feedline
from feedline import (
    BatchSampler,
    DataLoader,
    DatasetChanged,
    DistributedSampler,
    IterableDataset,
    LengthBucketBatchSampler,
    RandomSampler,
    SequentialSampler,
    Shard,
    StratifiedBatchSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)
from feedline.errors import StateError


class NoisyStream(IterableDataset):
    def __init__(self, length):
        self.length = length

    def __iter__(self):
        for index in range(self.length):
            yield index, feedline.rng().integers(1 << 40)


SAMPLERS = {
    "sequential": lambda n: {},
    "random": lambda n: {"shuffle": True},
    "replacement": lambda n: {"sampler": RandomSampler(range(n), replacement=True)},
    "more": lambda n: {"sampler": RandomSampler(range(n), num_samples=2 * n + 3)},
    "fewer": lambda n: {"sampler": RandomSampler(range(n), num_samples=n // 2 + 1)},
    "subset": lambda n: {"sampler": SubsetRandomSampler(range(0, n, 2))},
    "weighted": lambda n: {"sampler": WeightedRandomSampler(np.arange(1, n + 1), 2 * n)},
    "distinct": lambda n: {"sampler": WeightedRandomSampler(np.arange(1, n + 1), n, replacement=False)},
    "list": lambda n: {"sampler": [*range(n), 0, 0]},
    "own": lambda n: {"sampler": Own(n)},
    "stateful": lambda n: {"sampler": Stateful(n)},
}
RANKED = {"distributed": lambda n: {"sampler": DistributedSampler(range(n), 2, 1)}}
BATCH_SAMPLERS = {
    "batch": lambda n, size: {"batch_sampler": BatchSampler(RandomSampler(range(n)), size, drop_last=False)},
    "drop": lambda n, size: {"batch_sampler": BatchSampler(SequentialSampler(range(n)), size, drop_last=True)},
    "batch of own": lambda n, size: {"batch_sampler": BatchSampler(Own(n), size, drop_last=False)},
    "stratified": lambda n, size: {"batch_sampler": StratifiedBatchSampler([i % 3 for i in range(n)], size + 3)},
    "buckets": lambda n, size: {"batch_sampler": LengthBucketBatchSampler(range(n), size, bucket_size=8, buckets=2)},
    "tokens": lambda n, size: {"batch_sampler": LengthBucketBatchSampler(range(n), max_tokens=n * size)},
    "pairs": lambda n, size: {"batch_sampler": Pairs(n)},
    "list of lists": lambda n, size: {"batch_sampler": [[0], [n - 1, 0], list(range(n))]},
}
KINDS = [*SAMPLERS, *RANKED, *BATCH_SAMPLERS, "stream", "single", "single stream"]


def build(kind, length, size, **how):
    """A loader of a kind, as a program that is started again would build it."""
    how = {"seed": 7, **how}
    if kind in BATCH_SAMPLERS:
        return DataLoader(Noisy(length), **BATCH_SAMPLERS[kind](length, size), **how)
    if kind in ("stream", "single stream"):
        return DataLoader(NoisyStream(length), size if kind == "stream" else None, **how)
    if kind == "single":
        return DataLoader(Noisy(length), None, shuffle=True, **how)
    return DataLoader(Noisy(length), size, **{**SAMPLERS, **RANKED}[kind](length), **how)


def plain(batch):
    index, number = batch
    return list(zip(np.atleast_1d(index).tolist(), np.atleast_1d(number).tolist(), strict=True))


def read(loader):
    return [plain(batch) for batch in loader]


@pytest.mark.parametrize("kind", KINDS)
@given(st.integers(1, 20), st.integers(1, 5), st.integers(0, 2), st.data())
@settings(max_examples=25)
def test_a_prefix_its_state_and_a_new_loader_yield_the_rest(kind, length, size, epoch, data):
    straight = build(kind, length, size)
    epochs = [read(straight) for _ in range(epoch + 2)]
    done = data.draw(st.integers(0, len(epochs[epoch])), label="batches delivered")
    loader = build(kind, length, size)
    loader.set_epoch(epoch)
    iterator = iter(loader)
    assert [plain(next(iterator)) for _ in range(done)] == epochs[epoch][:done]
    resumed = build(kind, length, size, seed=None)
    resumed.load_state_dict(through_json(loader))
    assert resumed.state_dict() == loader.state_dict() or not done
    assert read(resumed) == epochs[epoch][done:]
    assert read(resumed) == epochs[epoch + 1]


@pytest.mark.parametrize("kind", KINDS)
def test_once_the_end_was_seen_the_state_is_at_the_start_of_the_next_epoch(kind):
    loader = build(kind, 9, 2)
    first, state = read(loader), through_json(loader)
    assert (state["epoch"], state["position"]) == (1, 0)
    resumed = build(kind, 9, 2)
    resumed.load_state_dict(state)
    assert first
    assert read(resumed) == read(loader)


@given(st.sampled_from([*SAMPLERS, "stream"]), st.integers(1, 24), st.integers(1, 6), st.integers(1, 6), st.data())
def test_another_batch_size_goes_on_with_the_same_samples(kind, length, size, other, data):
    whole = list(chain(*read(build(kind, length, size))))
    loader = build(kind, length, size)
    iterator = iter(loader)
    for _ in range(data.draw(st.integers(0, len(whole) // size), label="batches")):
        next(iterator)
    position = loader.state_dict()["position"]
    resumed = build(kind, length, other)
    resumed.load_state_dict(through_json(loader))
    rest = read(resumed)
    assert list(chain(*rest)) == whole[position:]
    assert all(len(batch) == other for batch in rest[:-1])


WORLDS, SIZES = st.integers(1, 4), st.integers(1, 4)


@given(
    st.sampled_from([*SAMPLERS, "stream"]),
    st.integers(1, 40),
    st.lists(st.tuples(WORLDS, SIZES, st.integers(0, 3)), max_size=4),
)
@settings(max_examples=60)
def test_exact_shards_deliver_every_sample_once_through_any_changes_of_geometry(kind, length, stages):
    expected = sorted(chain(*read(build(kind, length, 3))))
    got, state = [], None
    for world, size, steps in [*stages, (2, 3, None)]:
        states = []
        for rank in range(world):
            loader = build(kind, length, size, shard=Shard(rank, world, "exact"))
            if state is not None:
                loader.load_state_dict(state)
            left = loader.state_dict()["position"]
            full = None if steps is None else min(steps, (len(expected) - left) // (world * size))
            got += chain(*map(plain, islice(iter(loader), full)))
            states.append(through_json(loader))
        if steps is not None:
            assert all(other == states[0] for other in states)
            state = states[0]
    assert sorted(got) == expected


@given(st.integers(1, 40), WORLDS, SIZES, st.sampled_from(["pad", "drop"]), st.integers(0, 8))
def test_a_resumed_rank_yields_what_it_would_have_yielded(length, world, size, end, done):
    for kind in ("random", "own", "stateful", "stream", "pairs", "buckets", "tokens"):
        states = []
        for rank in range(world):
            shape = {"shard": Shard(rank, world, end)}
            whole = read(build(kind, length, size, **shape))
            loader = build(kind, length, size, **shape)
            iterator = iter(loader)
            steps = min(done, len(whole))
            for _ in range(steps):
                next(iterator)
            states.append(through_json(loader))
            resumed = build(kind, length, size, **shape)
            resumed.load_state_dict(states[-1])
            assert read(resumed) == whole[steps:]
        if kind != "stateful":
            assert all(state == states[0] for state in states)


def test_a_state_follows_the_iterator_that_last_took_a_batch():
    loader = build("random", 10, 2)
    first, second = iter(loader), iter(loader)
    next(first), next(second), next(second)
    assert (loader.state_dict()["epoch"], loader.state_dict()["position"]) == (1, 4)
    next(first)
    assert (loader.state_dict()["epoch"], loader.state_dict()["position"]) == (0, 4)


def test_a_state_before_the_first_batch_is_the_beginning():
    loader = build("random", 10, 2, seed=None)
    state = through_json(loader)
    assert (state["seed"], state["epoch"], state["position"]) == (None, 0, 0)
    loader.load_state_dict(state)
    assert len(read(loader)) == 5


def test_after_the_end_the_epoch_that_is_asked_for_is_in_the_state():
    loader = build("random", 10, 2)
    read(loader)
    loader.set_epoch(5)
    assert through_json(loader)["epoch"] == 5


def test_set_epoch_keeps_a_resumed_position_of_that_epoch_only():
    loader = build("random", 10, 2)
    iterator = iter(loader)
    next(iterator)
    state, whole = through_json(loader), read(build("random", 10, 2))
    resumed = build("random", 10, 2)
    resumed.load_state_dict(state)
    resumed.set_epoch(0)
    assert read(resumed) == whole[1:]
    resumed.load_state_dict(state)
    resumed.set_epoch(1)
    assert len(read(resumed)) == 5


def test_a_failed_batch_is_tried_again_until_a_later_one_was_delivered():
    loader = DataLoader([0, 1, None, 3, 4, 5], 2, seed=1)
    iterator = iter(loader)
    next(iterator)
    with pytest.raises(TypeError):
        next(iterator)
    assert loader.state_dict()["position"] == 2
    next(iterator)
    assert loader.state_dict()["position"] == 6


def test_a_batch_that_exceeded_the_budget_was_not_delivered():
    class Bad(Noisy):
        def __getitem__(self, index):
            if index == 3:
                raise KeyError(index)
            return super().__getitem__(index)

    loader = DataLoader(Bad(8), 2, seed=1, on_error=feedline.ErrorPolicy("skip", max_count=0))
    iterator = iter(loader)
    next(iterator)
    with pytest.raises(feedline.FeedlineError):
        next(iterator)
    assert loader.state_dict()["position"] == 2


def damaged(state):
    yield from (None, [], {}, {**state, "feedline": 2}, {**state, "position": 3}, {**state, "more": 1})
    yield from ({**state, "length": 4}, {**state, "seed": -1}, {**state, "sampler": "SequentialSampler"})


def test_a_damaged_state_leaves_the_loader_as_it_was():
    loader = build("random", 10, 2)
    iterator = iter(loader)
    next(iterator)
    before = through_json(loader)
    for state in damaged(before):
        with pytest.raises((StateError, DatasetChanged)):
            loader.load_state_dict(state)
        assert through_json(loader) == before
    assert len(list(iterator)) == 4


def test_a_state_of_another_sampler_is_refused():
    for kind, other in [("random", "sequential"), ("random", "replacement"), ("weighted", "distinct"), ("own", "list")]:
        with pytest.raises(StateError, match=r"the state is of a loader with .*, this one has .*: build the loader"):
            build(other, 10, 2).load_state_dict(build(kind, 10, 2).state_dict())
    with pytest.raises(StateError, match="the state is of a loader with RandomSampler, this one has IterableDataset"):
        build("stream", 10, 2).load_state_dict(build("random", 10, 2).state_dict())


ORDERS = {
    "population": lambda more: {"sampler": RandomSampler(range(60 + more), num_samples=50)},
    "population with replacement": lambda more: {"sampler": RandomSampler(range(60 + more), True, 50)},
    "weights": lambda more: {"sampler": WeightedRandomSampler([1, 2, 3 + more], 50)},
    "indices": lambda more: {"sampler": SubsetRandomSampler([1, 2, 3 + more])},
    "labels": lambda more: {"batch_sampler": StratifiedBatchSampler([0, 1] * 8 + [more, 1 - more], 4)},
}


@pytest.mark.parametrize("what", ORDERS)
def test_a_state_of_another_order_of_the_same_length_is_refused(what):
    loader = DataLoader(Noisy(99), seed=7, **ORDERS[what](0))
    iterator = iter(loader)
    next(iterator)
    state = through_json(loader)
    DataLoader(Noisy(99), **ORDERS[what](0)).load_state_dict(state)
    with pytest.raises(StateError, match=r"the state is of a loader with .*, this one has .*: build the loader"):
        DataLoader(Noisy(99), **ORDERS[what](1)).load_state_dict(state)


def test_a_state_without_a_seed_does_not_take_the_loaders_away():
    state = build("random", 10, 2, seed=None).state_dict()
    loader = build("random", 10, 2, seed=5)
    loader.load_state_dict(state)
    assert loader.seed == 5
    assert read(loader) == read(build("random", 10, 2, seed=5))


def test_the_seed_of_a_state_is_taken_before_the_loaders():
    loader = build("random", 10, 2, seed=5)
    loader.load_state_dict(build("random", 10, 2, seed=7).state_dict())
    assert loader.seed == 7


def test_a_sampler_may_have_any_name():
    sampler = type("S" * 150, (Own,), {})
    loader = DataLoader(Noisy(9), 2, sampler=sampler(9), seed=7)
    whole, iterator = read(DataLoader(Noisy(9), 2, sampler=sampler(9), seed=7)), iter(loader)
    next(iterator)
    resumed = DataLoader(Noisy(9), 2, sampler=sampler(9))
    resumed.load_state_dict(through_json(loader))
    assert read(resumed) == whole[1:]


def test_a_state_of_another_length_is_refused():
    with pytest.raises(
        DatasetChanged, match="the state is of an epoch of 10 samples, this loader's has 11: resume with"
    ):
        build("random", 11, 2).load_state_dict(build("random", 10, 2).state_dict())
