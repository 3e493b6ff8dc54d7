"""Laws of the plan: cuts, shards, ends and origins; the dealer follows the same rule as the plan."""

from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedline.order.plan import BatchPlan, Cut, Dealer, EpochPlan, Geometry, Passing, Unplanned
from feedline.order.sequence import ListedOrder, SequentialOrder
from feedline.order.shard import Shard

ENDS = st.sampled_from(["pad", "drop", "exact"])
LENGTHS, WORLDS, SIZES = st.integers(0, 60), st.integers(1, 7), st.integers(1, 9)


def plans(length, size, world, end, *, drop_last=False, origin=0):
    return [
        EpochPlan(0, SequentialOrder(length), Geometry(size, drop_last, Shard(rank, world, end)), origin)
        for rank in range(world)
    ]


def delivered(ranks):
    return sorted(index for plan in ranks for batch in plan for index in batch.indices.tolist())


@given(LENGTHS, SIZES)
def test_batches_of_one_rank_are_consecutive_cuts(length, size):
    (plan,) = plans(length, size, 1, "pad")
    batches = [batch.indices.tolist() for batch in plan]
    assert [index for batch in batches for index in batch] == list(range(length))
    assert all(len(batch) == size for batch in batches[:-1])
    assert len(plan) == len(batches) == -(-length // size)


@given(LENGTHS, SIZES, WORLDS, st.integers(0, 60))
def test_exact_ends_deliver_every_sample_once(length, size, world, origin):
    origin = min(origin, length)
    assert delivered(plans(length, size, world, "exact", origin=origin)) == list(range(origin, length))


@given(LENGTHS, SIZES, WORLDS)
def test_padded_ends_deliver_every_sample_and_repeat_fewer_than_world(length, size, world):
    ranks = plans(length, size, world, "pad")
    got = delivered(ranks)
    assert set(got) == set(range(length))
    assert len(got) - length <= world - 1
    assert len({len(plan) for plan in ranks}) == 1
    for batches in zip(*ranks, strict=True):
        assert len({len(batch.indices) for batch in batches}) == 1


@given(LENGTHS, SIZES, WORLDS)
def test_dropped_ends_repeat_nothing_and_lose_fewer_than_world(length, size, world):
    ranks = plans(length, size, world, "drop")
    got = delivered(ranks)
    assert len(set(got)) == len(got) > length - world
    assert len({len(plan) for plan in ranks}) == 1


@given(LENGTHS, SIZES, WORLDS, ENDS)
def test_drop_last_leaves_only_full_batches(length, size, world, end):
    for plan in plans(length, size, world, end, drop_last=True):
        assert len(plan) == length // (size * world)
        assert all(len(batch.indices) == size for batch in plan)


@given(LENGTHS, SIZES, WORLDS, ENDS, st.booleans(), st.integers(0, 30))
def test_the_dealer_deals_what_the_plan_plans(length, size, world, end, drop_last, step):
    for rank, plan in enumerate(plans(length, size, world, end, drop_last=drop_last)):
        geometry = Geometry(size, drop_last, Shard(rank, world, end))
        start = min(step * geometry.span, length)
        if start % geometry.span:
            continue
        dealer = Dealer(
            iter(range(start, length)), geometry, step=start // geometry.span, head=list(range(start))[: world - 1]
        )
        planned = [batch.indices.tolist() for batch in plan.batches(start // geometry.span)]
        assert [items for items, _ in dealer] == planned


def test_a_dealer_keeps_what_it_took_when_its_iterator_raises():
    class Stumbles:
        def __init__(self):
            self.count = 0
            self.stumbled = False

        def __iter__(self):
            return self

        def __next__(self):
            if self.count == 2 and not self.stumbled:
                self.stumbled = True
                raise KeyError("once")
            if self.count == 5:
                raise StopIteration
            self.count += 1
            return self.count - 1

    dealer = Dealer(Stumbles(), Geometry(3))
    with pytest.raises(KeyError):
        next(dealer)
    assert [items for items, _ in dealer] == [[0, 1, 2], [3, 4]]


@pytest.mark.parametrize("end", ["pad", "drop", "exact"])
def test_a_dealer_that_is_asked_beyond_its_end_knows_the_length_still(end):
    """Workers have more planned than the loop has taken: the state then has the length already."""
    dealer = Dealer(iter(range(7)), Geometry(3, shard=Shard(0, 2, end)))
    assert sum(len(items) for items, _ in dealer) in (3, 4)
    assert dealer.length == 7
    assert list(dealer) == []
    assert dealer.length == 7


def test_a_plan_is_indexed_like_a_sequence():
    plan = EpochPlan(2, SequentialOrder(5), Geometry(2))
    assert plan[-1] == plan[2] == BatchPlan(2, 2, np.array([4]), 4, 5)
    assert plan[0] != plan[1]
    assert plan[0] != "a plan"
    assert [batch.indices.tolist() for batch in plan[1:]] == [[2, 3], [4]]
    assert len({plan[0], plan[0], plan[1]}) == 2
    with pytest.raises(IndexError, match="step 3 is out of range: epoch 2 has 3 steps"):
        plan[3]
    with pytest.raises(IndexError, match="step -4 is out of range"):
        plan[-4]


def test_planned_indices_are_read_only_and_leave_the_order_alone():
    values = np.arange(4)
    plan = EpochPlan(0, ListedOrder(values), Geometry(2))
    with pytest.raises(ValueError, match="read-only"):
        plan[0].indices[0] = 7


@pytest.mark.parametrize("length", [8, 9])
def test_indices_are_read_only_however_the_plan_is_read(length):
    plan = EpochPlan(0, SequentialOrder(length), Geometry(2, shard=Shard(1, 2)))
    read = [*plan, *plan.batches(1), *plan[:], plan.get(0), plan[-1]]
    assert not any(batch.indices.flags.writeable for batch in read)


def test_an_endless_plan_has_no_length():
    class Endless:
        length = None

        def take(self, start, stop):
            return np.arange(start, stop)

    plan = EpochPlan(0, Endless(), Geometry(2))
    assert plan[10**12].indices.tolist() == [2 * 10**12, 2 * 10**12 + 1]
    with pytest.raises(TypeError, match="endless sampler has no len"):
        len(plan)


def test_a_world_larger_than_the_epoch_wraps_more_than_once():
    ranks = plans(2, 1, 7, "pad")
    assert [plan[0].indices.tolist() for plan in ranks] == [[0], [1], [0], [1], [0], [1], [0]]


def test_positions_and_until_tell_where_a_batch_stands():
    plan = EpochPlan(0, SequentialOrder(11), Geometry(2, shard=Shard(1, 3)), origin=0)
    assert [(batch.position, batch.until) for batch in plan] == [(2, 6), (8, 11)]
    assert Geometry(2, shard=Shard(1, 3)).full_cut(1, 0) == Cut(8, 10, 12)


@pytest.mark.parametrize("world", [1, 2, 1000])
def test_a_rank_looks_up_no_more_indices_than_are_its_own(world):
    """Else each rank would pay for the whole world: contract 1 promises O(1) seeking, not O(world)."""

    class Counting:
        length = 40_000
        taken = 0

        def take(self, start, stop):
            self.taken += stop - start
            return np.arange(start, stop)

    order = Counting()
    plan = EpochPlan(0, order, Geometry(4, shard=Shard(0, world)))
    own = [index for batch in plan for index in batch.indices.tolist()]
    assert order.taken == len(own) == 40_000 // world


@given(st.integers(0, 60), st.integers(1, 5), st.integers(1, 3), st.sets(st.integers(0, 20)), st.integers(0, 5))
def test_batches_pass_over_steps_that_were_delivered(length, size, world, done, step):
    plan = EpochPlan(0, SequentialOrder(length), Geometry(size, shard=Shard(0, world)))
    expected = [batch for batch in plan[:] if batch.step >= step and batch.step not in done]
    assert list(plan.batches(step, done)) == expected
    assert list(Passing(plan.batches(step), done)) == expected
    assert [batch.step for batch in islice(Passing(Unplanned(0, step), done), 30)] == [
        number for number in range(60) if number >= step and number not in done
    ][:30]
