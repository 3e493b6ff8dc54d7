"""Laws of finding: it is the inverse of the plan, for every order, geometry and origin, and O(1) where it can be."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feedline import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    InfiniteDataLoader,
    LengthBucketBatchSampler,
    RandomSampler,
    SequentialSampler,
    Shard,
    StratifiedBatchSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)
from feedline.order.batched import BatchOrder
from feedline.order.batches import unwrapped
from feedline.order.cycled import CycledCuts, CycledOrder, Permutations
from feedline.order.finding import Place, find, first_position
from feedline.order.permutation import FeistelNetwork, PermutedOrder
from feedline.order.plan import EpochPlan, Geometry
from feedline.order.sequence import ListedOrder, MappedOrder, ReplacementOrder, SequentialOrder, StridedOrder

SMALL, LARGE = 300, 70_000  # a shuffle, a Feistel network
SEEDS = st.integers(0, 2**64 - 1)


def tokens(length, seed, number=1):
    """Batches of at most 60 tokens, end to end."""
    sampler, _, _ = unwrapped(LengthBucketBatchSampler(1 + np.arange(length) % 17, max_tokens=60))
    return sampler.order(seed, number)


def cycled_tokens(length, seed):
    """Two passes and a half of them."""
    passes = [tokens(length, seed, number) for number in range(3)]
    count = passes[0].batches
    return BatchOrder(CycledCuts(passes.__getitem__, length, count, 5 * count // 2))


def orders(length, seed):
    """Orders of each kind: of about ``length`` positions, and indices up to that."""
    permuted = PermutedOrder(length, seed, 1)
    listed = np.random.default_rng(seed).integers(-2, length + 2, length)
    weights = np.arange(length) % 3
    return {
        "sequential": SequentialOrder(length),
        "permuted": permuted,
        "listed": ListedOrder(listed),
        "mapped": MappedOrder(listed, permuted),
        "mapped to few": MappedOrder(listed % 3, permuted),
        "mapped twice": MappedOrder(listed % 3, MappedOrder(np.arange(length), permuted)),
        "passes": CycledOrder(Permutations(length, seed, 1), length, 5 * length // 2),
        "strided": StridedOrder(permuted, length + 5, 1, 3),
        "wrapped": StridedOrder(SequentialOrder(length), 3 * length, 2, 5),
        "strided listed": StridedOrder(ListedOrder(listed), length + 5, 1, 3),
        "with replacement": ReplacementOrder(length, length, seed, 1),
        "weighted": WeightedRandomSampler(weights, length).order(seed, 1),
        "weighted, distinct": WeightedRandomSampler(weights, length // 2, replacement=False).order(seed, 1),
        "cycled": CycledOrder(lambda number: PermutedOrder(length, seed, number), length, 5 * length // 2),
        "cycled listed": CycledOrder(lambda number: ListedOrder(listed + number), length, 5 * length // 2),
        "buckets": LengthBucketBatchSampler(1 + weights, batch_size=8).sampler.order(seed, 1),
        "tokens": BatchOrder(tokens(length, seed)),
        "cycled tokens": cycled_tokens(length, seed),
        "stratified": StratifiedBatchSampler(weights, 8).sampler.order(seed, 1),
    }


KINDS = tuple(orders(SMALL, 0))


def searched(order, geometry, origin):
    """The first place of each index, by going through the plans of all ranks, step by step."""
    shard, places = geometry.shard, {}
    ranks = [
        EpochPlan(
            1,
            order,
            Geometry(geometry.batch_size, geometry.drop_last, Shard(rank, shard.world_size, shard.end)),
            origin,
        )
        for rank in range(shard.world_size)
    ]
    for step in range(max(map(len, ranks))):
        for rank, plan in enumerate(ranks):
            if step < len(plan):
                for index in plan[step].indices.tolist():
                    places.setdefault(index, Place(step, rank))
    return places


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60)
@given(data=st.data())
def test_finding_agrees_with_a_search_through_the_plans_of_all_ranks(kind, data):
    order = orders(data.draw(st.integers(2, SMALL), "length"), data.draw(SEEDS, "seed"))[kind]
    world = data.draw(st.integers(1, 9), "world")
    shard = Shard(
        data.draw(st.integers(0, world - 1), "rank"), world, data.draw(st.sampled_from(["pad", "drop", "exact"]))
    )
    size = 1 if isinstance(order, BatchOrder) else data.draw(st.integers(1, 40), "batch_size")
    geometry = Geometry(size, data.draw(st.booleans(), "drop_last"), shard)
    origin = data.draw(st.integers(0, order.length), "origin")
    plan, places = EpochPlan(1, order, geometry, origin), searched(order, geometry, origin)
    assert {index: find(index, plan) for index in range(-3, SMALL + 4)} == {
        index: places.get(index) for index in range(-3, SMALL + 4)
    }


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("world", "end", "origin"), [(1, "pad", 0), (8, "exact", 4_321), (7, "drop", 1)])
def test_finding_agrees_with_the_search_where_permutations_are_networks(kind, world, end, origin):
    order = orders(LARGE, 5)[kind]
    geometry = Geometry(1 if isinstance(order, BatchOrder) else 500, shard=Shard(0, world, end))
    plan, places = EpochPlan(1, order, geometry, origin), searched(order, geometry, origin)
    for index in (*range(-1, 40), *range(40, LARGE, 3_001), LARGE - 1, LARGE):
        assert find(index, plan) == places.get(index)


@given(st.integers(2, 2**62), st.lists(SEEDS, min_size=1, max_size=9), st.data())
def test_a_network_is_inverted(length, keys, data):
    network = FeistelNetwork(length, tuple(keys))
    values = data.draw(st.lists(st.integers(0, length - 1), min_size=1, max_size=8))
    images = np.array(values, dtype=np.uint64)
    network.encipher(images)
    assert [network.decipher(image) for image in images.tolist()] == values


class Unread:
    """A dataset that must not be read."""

    def __init__(self, length):
        self.length = length

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        raise AssertionError(f"sample {index} was read")


@pytest.mark.parametrize("length", [10**9, 2**30 + 1])
def test_among_a_billion_samples_a_place_is_computed_and_nothing_is_loaded(length, monkeypatch):
    loader = DataLoader(Unread(length), 256, shuffle=True, seed=3, shard=(5, 64))
    monkeypatch.setattr(PermutedOrder, "take", None)  # no index is looked at
    places = {index: loader.where(index, 2) for index in (0, 1, 12_345, length - 1)}
    monkeypatch.undo()
    for index, (step, rank) in places.items():
        plan = DataLoader(Unread(length), 256, shuffle=True, seed=3, shard=(rank, 64)).plan(2)
        assert index in plan[step].indices
    assert loader.where(length, 2) is None


@pytest.mark.parametrize(
    "sampler",
    [
        SequentialSampler(range(50)),
        RandomSampler(range(50), num_samples=120),
        SubsetRandomSampler([5, 6, 7, 49]),
        DistributedSampler(range(50), 4, 1),
        [3, 1, 3, -2],
        RandomSampler(range(50)),
    ],
    ids=lambda sampler: type(sampler).__name__,
)
def test_a_loader_finds_what_its_plan_has(sampler):
    loader = DataLoader(range(50), 3, sampler=sampler, seed=1)
    for epoch in (0, 1):
        plan, found = loader.plan(epoch), {}
        for batch in plan:
            for index in batch.indices.tolist():
                found.setdefault(index, (batch.step, 0))
        assert {index: loader.where(index, epoch) for index in range(-2, 50)} == {
            index: found.get(index) for index in range(-2, 50)
        }


def test_batches_by_tokens_are_found_in_a_loader_with_an_end_and_in_one_without():
    lengths = 1 + np.arange(50) % 17
    sampler = LengthBucketBatchSampler(lengths, max_tokens=60)
    for epochs, loader in (
        (3, DataLoader(lengths, batch_sampler=sampler, seed=1)),
        (5, InfiniteDataLoader(lengths, batch_sampler=sampler, seed=1, batches_per_epoch=5)),
    ):
        for epoch in range(epochs):
            found = {}
            for batch in loader.plan(epoch):
                for index in batch.indices.tolist():
                    found.setdefault(index, (batch.step, 0))
            assert {index: loader.where(index, epoch) for index in range(-2, 52)} == {
                index: found.get(index) for index in range(-2, 52)
            }


def test_an_endless_loader_is_searched_as_far_as_it_goes():
    def loader(**arguments):
        return InfiniteDataLoader(range(70_000), 10, shuffle=True, seed=1, **arguments)

    cut, endless = loader(batches_per_epoch=6_000), loader()
    step, rank = endless.where(5, 0)
    assert rank == 0
    assert 5 in endless.plan(0)[step].indices
    assert cut.where(5, 0) == ((step, rank) if step < 6_000 else None)
    assert endless.where(70_000, 0) is None
    drawn = InfiniteDataLoader(range(9), sampler=RandomSampler(range(9), replacement=True), seed=1)
    with pytest.raises(TypeError, match="needs an epoch that ends, or an order that can be inverted"):
        drawn.where(3, 0)


def test_an_index_that_no_permutation_has_is_not_looked_for_in_all_of_them():
    made = []

    def passes(number):
        made.append(number)
        return PermutedOrder(10, seed=1, epoch=number)

    assert first_position(CycledOrder(passes, 10), 10, 7, 10**15) is None
    assert set(made) <= {0, 1}


def test_what_was_delivered_before_an_elastic_resume_has_no_place_any_more():
    first = DataLoader(range(100), 10, seed=1)
    next(iter(first))
    loader = DataLoader(range(100), 7, seed=1, shard=(0, 2))
    assert loader.where(3, 0) == (0, 0)
    loader.load_state_dict(first.state_dict())
    assert loader.where(3, 0) is None
    assert loader.where(10, 0) == (0, 0)
    assert loader.where(17, 0) == (0, 1)
    assert loader.where(3, 1) == (0, 0)


@pytest.mark.parametrize(
    ("loader", "kind"),
    [
        (DataLoader([1, 2], sampler=["0", "1"]), "list"),
        (DataLoader([1, 2], batch_sampler=BatchSampler(iter([0, 1]), 2, drop_last=False)), "list_iterator"),
        (DataLoader(iter([1, 2])), "list_iterator"),
    ],
)
def test_where_the_order_is_not_known_there_is_no_finding(loader, kind):
    with pytest.raises(TypeError, match=f"plan\\(\\) needs a sampler whose order is known beforehand; {kind} yields"):
        loader.where(0, 0)


@pytest.mark.parametrize("index", ["3", 3.0, None, True, [3]])
def test_an_index_is_an_integer(index):
    with pytest.raises(TypeError, match=r"index must be an integer, got .* \(\w+\)"):
        DataLoader(range(4)).where(index, 0)


def test_an_index_of_numpys_is_one():
    assert DataLoader(range(4), 2).where(np.int32(3), 0) == Place(step=1, rank=0)


def test_an_endless_order_is_inverted_or_refused():
    assert first_position(SequentialOrder(None), 7, 0, None) == 7
    assert find(7, EpochPlan(0, SequentialOrder(None), Geometry(2))) == (3, 0)
    endless = MappedOrder(np.zeros(1_000, dtype=np.int64), SequentialOrder(None))
    with pytest.raises(
        TypeError, match=r"where\(\) needs an epoch that ends, or an order that can be inverted, got Map"
    ):
        first_position(endless, 0, 0, None)
