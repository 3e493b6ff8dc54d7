"""Laws of drawn plans: a user's sampler is consumed in order, once, and replayed exactly."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedline.errors import StateError
from feedline.order.cursor import Cursor
from feedline.order.drawn import DrawnPlans
from feedline.order.plan import EpochPlan, Geometry
from feedline.order.sequence import SequentialOrder
from feedline.order.shard import Shard

ENDS = st.sampled_from(["pad", "drop", "exact"])


def cursor(geometry, position=0, origin=0, sampler_state=None):
    return Cursor(1, 3, position, origin, geometry.batch_size, geometry.shard.world_size, None, "own", sampler_state)


def names(length):
    return [f"sample {number}" for number in range(length)]


@given(st.integers(0, 40), st.integers(1, 5), st.integers(1, 4), ENDS, st.booleans(), st.integers(0, 12))
def test_what_is_drawn_is_what_a_known_order_plans(length, size, world, end, drop_last, done):
    for rank in range(world):
        geometry = Geometry(size, drop_last, Shard(rank, world, end))
        known = list(EpochPlan(3, SequentialOrder(length), geometry))
        step = min(done, len(known))
        position = known[step - 1].until if step else 0
        if step and position % geometry.span:
            continue
        drawn = list(DrawnPlans(names(length), geometry, cursor(geometry, position)))
        assert [(plan.step, plan.position, plan.until) for plan in drawn] == [
            (plan.step, plan.position, plan.until) for plan in known[step:]
        ]
        assert [plan.indices for plan in drawn] == [
            [names(length)[index] for index in plan.indices] for plan in known[step:]
        ]


def test_at_most_a_step_is_drawn_ahead():
    drawn = []

    def sampler():
        for number in range(100):
            drawn.append(number)
            yield number

    plans = DrawnPlans(sampler(), Geometry(3), cursor(Geometry(3)))
    assert drawn == []
    next(plans)
    assert drawn == [0, 1, 2]


class Stateful:
    def __init__(self, length):
        self.length = length
        self.place = 0

    def __iter__(self):
        while self.place < self.length:
            self.place += 1
            yield self.place - 1
        self.place = 0

    def state_dict(self):
        return {"place": self.place}

    def load_state_dict(self, state):
        self.place = state["place"]


def test_a_state_is_taken_with_each_batch_drawn_and_handed_out_with_its_delivery():
    geometry = Geometry(2)
    plans = DrawnPlans(Stateful(7), geometry, cursor(geometry))
    first, second = next(plans), next(plans)
    assert plans.state_before(first.step + 1) == {"sampler": {"place": 2}, "head": []}
    assert plans.state_before(second.step + 1) == {"sampler": {"place": 4}, "head": []}
    assert plans.state_before(second.step) is None, "what lies behind is forgotten"
    rest = DrawnPlans(Stateful(7), geometry, cursor(geometry, 4, sampler_state={"sampler": {"place": 4}, "head": []}))
    assert [(plan.step, plan.indices) for plan in rest] == [(2, [4, 5]), (3, [6])]


def test_a_state_that_the_sampler_goes_on_changing_is_kept_as_it_was():
    class Live(Stateful):
        def __init__(self, length):
            super().__init__(length)
            self.state = {"place": 0}

        def state_dict(self):
            self.state["place"] = self.place
            return self.state

    plans = DrawnPlans(Live(8), Geometry(2), cursor(Geometry(2)))
    steps = [next(plans).step for _ in range(3)]
    assert [plans.state_before(step + 1)["sampler"]["place"] for step in steps] == [2, 4, 6]


def test_a_state_that_is_loaded_is_not_changed_by_the_sampler():
    class Keeps(Stateful):
        """Goes on in the very object that it was given."""

        def load_state_dict(self, state):
            self.state = state

        def __iter__(self):
            while self.state["place"] < self.length:
                self.state["place"] += 1
                yield self.state["place"] - 1

    state = {"sampler": {"place": 4}, "head": []}
    for _ in range(2):
        plans = DrawnPlans(Keeps(7), Geometry(2), cursor(Geometry(2), 4, sampler_state=state))
        assert [plan.indices for plan in plans] == [[4, 5], [6]]
    assert state == {"sampler": {"place": 4}, "head": []}


@pytest.mark.parametrize(("end", "head"), [("pad", [0, 1]), ("drop", []), ("exact", [])])
def test_the_epochs_first_items_are_saved_only_where_padding_may_repeat_them(end, head):
    geometry = Geometry(2, shard=Shard(0, 3, end))
    plans = DrawnPlans(Stateful(20), geometry, cursor(geometry))
    assert plans.state_before(next(plans).step + 1) == {"sampler": {"place": 6}, "head": head}


def test_a_state_needs_a_sampler_that_takes_it():
    with pytest.raises(StateError, match=r"state\['sampler_state'\] is given, but list has no load_state_dict"):
        DrawnPlans([1], Geometry(1), cursor(Geometry(1), 1, sampler_state={"sampler": {"place": 1}, "head": []}))


@pytest.mark.parametrize("state", [{"place": 1}, 3, {"sampler": None, "head": 3}])
def test_a_damaged_state_of_a_sampler_is_named(state):
    with pytest.raises(StateError, match=r"state\['sampler_state'\] must hold 'sampler' and 'head', got"):
        DrawnPlans(Stateful(3), Geometry(1), cursor(Geometry(1), 1, sampler_state=state))


@pytest.mark.parametrize("world", [1, 3])
def test_a_sampler_that_became_shorter_is_an_error(world):
    geometry = Geometry(1, shard=Shard(0, world))
    with pytest.raises(StateError, match=r"9 items of the sampler were delivered, but list yielded only 4"):
        list(DrawnPlans([1] * 4, geometry, cursor(geometry, 9)))


BATCHES = [[0, 1], (2,), np.array([3, 4, 5]), [6], range(7, 9)]


@pytest.mark.parametrize("end", ["pad", "drop", "exact"])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_whole_batches_are_dealt_and_their_samples_keep_their_keys(world, end):
    """A sample's position names it in the epoch: the same in any world, after any resume; another for each sample."""
    alone = {
        tuple(plan.indices): plan.position
        for plan in DrawnPlans(BATCHES, Geometry(1), cursor(Geometry(1)), batches=True)
    }
    spans = sorted((position, position + len(indices)) for indices, position in alone.items())
    assert all(stop <= start for (_, stop), (start, _) in pairwise(spans))
    for rank in range(world):
        geometry = Geometry(1, shard=Shard(rank, world, end))
        plans = list(DrawnPlans(BATCHES, geometry, cursor(geometry), batches=True))
        first_round = plans[: len(BATCHES) // world]
        assert [plan.position for plan in first_round] == [alone[tuple(plan.indices)] for plan in first_round]
        for done in range(len(first_round)):
            rest = list(DrawnPlans(BATCHES, geometry, cursor(geometry, done * world), batches=True))
            assert [(plan.step, list(plan.indices), plan.position) for plan in rest] == [
                (plan.step, list(plan.indices), plan.position) for plan in plans[done:]
            ]


def test_a_batch_sampler_that_yields_no_lists_is_named():
    plans = DrawnPlans([0, 1], Geometry(1), cursor(Geometry(1)), batches=True)
    with pytest.raises(TypeError, match="batch_sampler must yield lists"):
        next(plans)
