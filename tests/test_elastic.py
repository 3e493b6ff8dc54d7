"""The elastic law, for every way of choosing samples: whatever worlds, batch sizes and workers an epoch passes through.

What the law is says `elastic_law`; the ways are listed in `elastic_ways`. ``FEEDLINE_ELASTIC_CASES`` is how many random
cases there are; ``make chaos`` sets it higher.
"""

import json
import os
from dataclasses import replace

import pytest
from elastic_law import SEED, Epoch, LoaderRank, PlanRank, Stage, check_elastic, check_endless, division
from elastic_ways import (
    ENDLESS,
    PLANNED,
    WAYS,
    by_loaders,
    by_plans,
    by_stage,
    endless,
    one_batch_size,
    samples,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from feedline import RandomSampler, SequentialSampler

pytestmark = pytest.mark.filterwarnings("ignore:num_workers=")  # more than there are CPUs, where there are few

CASES = int(os.environ.get("FEEDLINE_ELASTIC_CASES", "2000"))
BY_LOADERS, ENDLESSLY, FAR = CASES * 3 // 10, CASES * 3 // 20, CASES // 20
BY_PLANS = CASES - BY_LOADERS - ENDLESSLY - FAR  # they cost least

HUGE = {
    "sequential": SequentialSampler(range((1 << 62) + 1)),
    "random": RandomSampler(range((1 << 30) + 1)),
    "replacement": RandomSampler(range(10**9), replacement=True),
    "passes": RandomSampler(range(100_000), num_samples=10**12),
}
ENDS = st.sampled_from(["exact", "pad", "drop"])


@st.composite
def stages(draw, least=1, workers=(None,), most=5):
    """Stages of an epoch; the last goes on to its end. An end is mostly kept, as one program has it."""
    end, drop_last = draw(ENDS), draw(st.integers(0, 5)) == 0
    number = draw(st.integers(1, most))
    return [
        Stage(
            world=draw(st.integers(1, 8)),
            size=draw(st.integers(least, least + 7)),
            end=end,
            drop_last=drop_last,
            workers=draw(st.sampled_from(workers)),
            rounds=None if last == 0 else draw(st.integers(0, 4)),
        )
        for last in reversed(range(number))
    ]


@st.composite
def cases(draw, kinds, longest, workers=(None,), most=5):
    kind = draw(st.sampled_from(kinds))
    length = draw(st.integers(2, longest))
    return kind, length, draw(st.integers(0, 3)), one_batch_size(kind, draw(stages(WAYS[kind].least, workers, most)))


@given(cases(PLANNED, longest=200))
@settings(max_examples=BY_PLANS)
def test_plans_and_cursors_alone_obey_the_elastic_law(case):
    kind, length, number, plan = case
    check_elastic(by_plans(kind, length, number), plan)


@given(cases(list(WAYS), longest=60, workers=[None] * 4 + ["thread"]))
@settings(max_examples=BY_LOADERS)
def test_loaders_obey_the_elastic_law(case):
    kind, length, number, plan = case
    check_elastic(by_loaders(kind, length, number), plan)


@given(
    cases(ENDLESS, longest=40, workers=[None] * 6 + ["thread"], most=4),
    st.one_of(st.none(), st.integers(1, 9)),
)
@settings(max_examples=ENDLESSLY)
def test_loaders_without_an_end_deliver_one_sequence_whatever_happens(case, steps):
    kind, length, _, plan = case
    plan = [replace(stage, drop_last=False, rounds=stage.rounds or 1) for stage in plan]
    check_endless(WAYS[kind], length, endless(kind, length), steps, plan)


@given(st.sampled_from(list(HUGE)), st.integers(0, 300), stages(most=4))
@settings(max_examples=FAR)
def test_the_law_holds_at_the_end_of_the_longest_epochs(kind, rest, plan):
    sampler = HUGE[kind]
    order = sampler.order(SEED, 3)
    start = order.length - rest
    whole = tuple(order.take(start, order.length).tolist())
    epoch = Epoch(
        ranks=lambda stage: [PlanRank(order, sampler.name, stage, rank, 3, True) for rank in range(stage.world)],
        whole=lambda stage: whole,
        number=3,
        start=start,
        wraps=tuple(order.take(0, 8).tolist()),
    )
    check_elastic(epoch, plan)


@pytest.mark.parametrize("kind", WAYS)
@pytest.mark.parametrize(("world", "size"), [(4, 64), (3, 50), (1, 7)])
@pytest.mark.parametrize("end", ["exact", "pad"])
def test_what_eight_ranks_of_32_began_other_worlds_end(kind, world, size, end):
    plan = [Stage(8, 32, end, rounds=2), Stage(world, size, end)]
    check_elastic(by_loaders(kind, 2000, 1), one_batch_size(kind, plan))


@pytest.mark.parametrize("kind", WAYS)
def test_worlds_that_change_back_and_forth_lose_nothing(kind):
    shapes = [(8, 32), (4, 64), (8, 32), (3, 50), (1, 7), (8, 32)]
    plan = [Stage(world, size, "exact", rounds=2) for world, size in shapes] + [Stage(3, 50)]
    check_elastic(by_loaders(kind, 2500, 0), one_batch_size(kind, plan))


@pytest.mark.parametrize("kind", WAYS)
@pytest.mark.parametrize("end", ["exact", "pad", "drop"])
def test_after_the_last_batch_nothing_is_left_and_after_the_end_the_next_epoch_begins(kind, end):
    (stage,) = one_batch_size(kind, [Stage(3, 4, end)])
    rounds = division(0, len(by_stage(samples, kind, 41, 0)(stage)), stage)
    following = batches(kind, stage, 3, epoch=1)
    after = []
    for number in range(3):
        rank = LoaderRank(WAYS[kind], 41, stage, number, 0)
        assert all(rank.take() for parts in rounds if parts[number])
        assert rank.state()["epoch"] == 0
        after.append(rank.state())
        assert rank.take() is None
        assert batches(kind, stage, 3, rank.state()) == following
    after_last = after[0]  # other ranks may have no part in the last round
    assert batches(kind, stage, 4, after_last) == [None, *following]
    if end != "drop" and kind != "stratified":  # what is dropped in one world, or not filled up, is not in another
        for other in one_batch_size(kind, [Stage(1, 1), Stage(3, 2), Stage(2, 7, "pad"), Stage(1, 5, "drop")]):
            assert batches(kind, other, 1, after_last) == [None]


def batches(kind, stage, count, state=None, epoch=0):
    """What the first rank of a new job gets, from epoch to epoch; None is the end of one."""
    rank = LoaderRank(WAYS[kind], 41, stage, 0, epoch)
    if state is not None:
        rank.resume(json.loads(json.dumps(state)))
    taken = []
    for _ in range(count):
        taken.append(rank.take())
        if taken[-1] is None:
            rank.iterator = iter(rank.loader)
    return taken


@pytest.mark.parametrize("kind", WAYS)
@pytest.mark.parametrize("length", [23, 24])
def test_what_workers_have_ahead_is_not_in_the_state(kind, length):
    """Not even that the end of a user's sampler came in sight. Rank 0 has workers, rank 1 has none."""
    (stage,) = one_batch_size(kind, [Stage(2, 3, "pad", workers="thread")])
    ranks = [LoaderRank(WAYS[kind], length, stage, rank, 0) for rank in range(2)]
    for _ in division(0, len(by_stage(samples, kind, length, 0)(stage)), stage):
        assert all(rank.take() for rank in ranks)
        assert ranks[0].state() == ranks[1].state()
    assert [rank.take() for rank in ranks] == [None, None]
    assert ranks[0].state() == ranks[1].state()
    ranks[0].close()
