"""The elastic law: whatever worlds, batch sizes and workers an epoch passes through, its samples are the plan's.

An epoch is gone through in stages. Each has a world, a batch size, an end and a number of workers of its own, goes on
from the state (through JSON) of the one before, and is broken off after some rounds, but for the last. A round is a
step on every rank. What each rank gets is compared, batch by batch, with the documented division of the epoch's one
sequence, written here anew; then the union of what all ranks got with the whole sequence.

``FEEDLINE_ELASTIC_CASES`` is how many random cases there are; ``make chaos`` sets it higher.
"""

import json
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feedline import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Shard,
    StratifiedBatchSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)
from feedline.order.cursor import Cursor
from feedline.order.plan import EpochPlan, Geometry

CASES = int(os.environ.get("FEEDLINE_ELASTIC_CASES", "2000"))
BY_LOADERS = CASES // 3  # they cost three times as much
BY_PLANS = CASES - BY_LOADERS
SEED = 7


# ------------------------------------------------------------------------------------------- ways of choosing samples


class Own:
    """A user's sampler, without state."""

    def __init__(self, length):
        self.length = length

    def __iter__(self):
        return iter([(7 * place + 3) % self.length for place in range(self.length)])


class Sized(Own):
    """Its length is known."""

    def __len__(self):
        return self.length


class Stateful(Own):
    """It saves its place, and begins anew once it has come to its end."""

    place = 0

    def __iter__(self):
        items = list(super().__iter__())
        while self.place < len(items):
            self.place += 1
            yield items[self.place - 1]
        self.place = 0

    def state_dict(self):
        return {"place": self.place}

    def load_state_dict(self, state):
        self.place = state["place"]


class Pairs(Own):
    """A user's batch sampler."""

    def __iter__(self):
        indices = list(super().__iter__())
        return iter([indices[at : at + 1 + at % 3] for at in range(0, self.length, 2)])


class Stream(IterableDataset):
    def __init__(self, length):
        self.length = length

    def __iter__(self):
        return iter(range(self.length))


@dataclass(frozen=True)
class Way:
    """A way of choosing samples.

    Attributes:
        make: what it is, for a dataset's length and a stage: arguments of a loader.
        least: the smallest batch size that it takes.
        has_batches: whether it decides itself what a batch is; the division is one of batches then.
        knows_head: whether what padding repeats is always the epoch's beginning. A sampler that is resumed by its own
            state knows of it what the world before had needed, and no more.
    """

    make: Callable
    least: int = 1
    has_batches: bool = False
    knows_head: bool = True


def batched(make):
    """The arguments that make a batch sampler of ours."""
    return lambda n, stage: {"batch_sampler": make(n, stage.size, stage.drop_last)}


def drawn(make):
    """The arguments that give a sampler."""
    return lambda n, stage: {"sampler": make(n), "batch_size": stage.size, "drop_last": stage.drop_last}


WAYS = {
    "sequential": Way(lambda n, stage: {"batch_size": stage.size, "drop_last": stage.drop_last}),
    "random": Way(lambda n, stage: {"shuffle": True, "batch_size": stage.size, "drop_last": stage.drop_last}),
    "replacement": Way(drawn(lambda n: RandomSampler(range(n), replacement=True))),
    "passes": Way(drawn(lambda n: RandomSampler(range(n), num_samples=2 * n + 3))),
    "subset": Way(drawn(lambda n: SubsetRandomSampler(range(0, n, 2)))),
    "weighted": Way(drawn(lambda n: WeightedRandomSampler(np.arange(n) % 5 + 1, 2 * n))),
    "distinct": Way(drawn(lambda n: WeightedRandomSampler(np.arange(n) % 5 + 1, n, replacement=False))),
    "balanced": Way(drawn(lambda n: WeightedRandomSampler.balanced(np.arange(n) % 5))),
    "list": Way(drawn(lambda n: [*range(n), 0, 0])),
    "batches": Way(batched(lambda n, size, drop: BatchSampler(RandomSampler(range(n)), size, drop))),
    "stratified": Way(
        batched(lambda n, size, drop: StratifiedBatchSampler(np.arange(n) % 2, size, group_size=2, drop_last=drop)),
        least=2,
    ),
    "own": Way(drawn(Own)),
    "sized": Way(drawn(Sized)),
    "stateful": Way(drawn(Stateful), knows_head=False),
    "pairs": Way(lambda n, stage: {"batch_sampler": Pairs(n)}, has_batches=True),
    "stream": Way(
        lambda n, stage: {"dataset": Stream(n), "batch_size": stage.size, "drop_last": stage.drop_last},
    ),
}
PLANNED = [kind for kind in WAYS if kind not in {"own", "sized", "stateful", "pairs", "stream"}]
HUGE = {
    "sequential": SequentialSampler(range((1 << 62) + 1)),
    "random": RandomSampler(range((1 << 30) + 1)),
    "replacement": RandomSampler(range(10**9), replacement=True),
    "passes": RandomSampler(range(100_000), num_samples=10**12),
}


# --------------------------------------------------------------------------------------------- an epoch, stage by stage


@dataclass(frozen=True)
class Stage:
    """A run of a job: its geometry, its workers, and after how many rounds it is broken off; None: at the end."""

    world: int
    size: int
    end: str = "exact"
    drop_last: bool = False
    workers: str | None = None
    rounds: int | None = None

    def shard(self, rank):
        return Shard(rank, self.world, self.end)

    @property
    def span(self):
        return self.world * self.size


def division(at, length, stage):
    """The positions that each rank gets, round by round, of those from ``at`` on: the rule that the docs state."""
    rounds = []
    while length - at >= stage.span:
        rounds.append([range(at + rank * stage.size, at + (rank + 1) * stage.size) for rank in range(stage.world)])
        at += stage.span
    tail = range(at, length)
    if tail and not stage.drop_last:
        least, more = divmod(len(tail), stage.world)
        shares = {
            "exact": [least + (rank < more) for rank in range(stage.world)],
            "pad": [least + (more > 0)] * stage.world,
            "drop": [least] * stage.world,
        }[stage.end]
        starts = np.cumsum([at, *shares]).tolist()
        if any(shares):
            rounds.append([range(start, start + share) for start, share in zip(starts, shares, strict=False)])
    return rounds


class LoaderRank:
    """A rank that has a loader; every other one has workers, where the stage has: the state is the same."""

    def __init__(self, way, length, stage, rank, epoch):
        how = {"dataset": range(length), **way.make(length, stage)}
        if stage.workers is not None and rank % 2 == 0:
            how |= {"num_workers": 2, "backend": stage.workers}
        self.way = way
        self.loader = DataLoader(seed=SEED, shard=stage.shard(rank), **how)
        self.loader.set_epoch(epoch)
        self.iterator = iter(self.loader)

    def resume(self, state):
        self.loader.load_state_dict(state)

    def state(self):
        return self.loader.state_dict()

    def take(self):
        """The next batch, as a list; None at the end."""
        batch = next(self.iterator, None)
        if batch is None:
            return None
        return [tuple(batch.tolist())] if self.way.has_batches else batch.tolist()

    def close(self):
        self.loader.close()


class PlanRank:
    """A rank that has a plan and a cursor, and nothing else."""

    def __init__(self, order, name, stage, rank, epoch, fixed):
        self.order = order
        self.geometry = Geometry(stage.size, stage.drop_last, stage.shard(rank))
        length = order.length if fixed else None
        self.cursor = self.start = Cursor(SEED, epoch, 0, 0, stage.size, stage.world, length, name)
        self.batches = None

    def resume(self, state):
        self.cursor = Cursor.from_state(state).resumed_by(self.start)

    def state(self):
        return self.cursor.to_state()

    def take(self):
        if self.batches is None:
            cursor = self.cursor
            plan = EpochPlan(cursor.epoch, self.order, self.geometry, cursor.origin)
            is_over = cursor.position == self.order.length
            self.batches = plan.batches(len(plan) if is_over else (cursor.position - cursor.origin) // cursor.span)
        batch = next(self.batches, None)
        if batch is None:
            self.cursor = replace(self.start, epoch=self.start.epoch + 1)
            return None
        self.cursor = replace(self.cursor, position=batch.until)
        return batch.indices.tolist()

    def close(self):
        pass


@dataclass(frozen=True)
class Epoch:
    """What is to be gone through.

    Attributes:
        ranks: makes the ranks of a stage.
        whole: the epoch's sequence as it is at a stage: under `StratifiedBatchSampler` it ends where the batch does.
        number: the number of the epoch.
        knows_head: as in `Way`.
        start: the position of ``whole``'s first item, for an epoch that is too long to be gone through.
        wraps: what comes after its end, where padding repeats it.
    """

    ranks: Callable
    whole: Callable
    number: int
    knows_head: bool = True
    start: int = 0
    wraps: tuple = ()


def check_elastic(epoch, stages):
    """Go through an epoch in these stages, and hold what comes out to the law."""
    at = origin = epoch.start
    before, state, got, padding = None, None, [], []
    for stage in stages:
        whole = epoch.whole(stage)
        length = epoch.start + len(whole)
        ranks = epoch.ranks(stage)
        try:
            if state is None and epoch.start:
                state = {**ranks[0].state(), "position": at, "origin": at}
            for rank in ranks if state is not None else ():
                rank.resume(state)
            origin = origin if before in (None, (stage.world, stage.size)) else at
            before = stage.world, stage.size
            rounds = division(at, length, stage)
            at, taken = _play(epoch, stage, ranks, rounds, whole, at)
            for position, item in taken:
                (got if position < length else padding).append((position, item))
            states = [json.loads(json.dumps(rank.state())) for rank in ranks]
            if stage.rounds is None:
                break
            done = rounds[: stage.rounds]
            parts = done[-1] if done else [True] * stage.world
            state, *others = [one for one, part in zip(states, parts, strict=True) if part]
            assert all(other == state for other in others), "the state is the same on every rank"
            expected = (epoch.number, at, origin, stage.size, stage.world)
            assert expected == tuple(state[key] for key in ("epoch", "position", "origin", "batch_size", "world_size"))
        finally:
            for rank in ranks:
                rank.close()
    for one in states:
        assert (one["epoch"], one["position"], one["origin"]) == (epoch.number + 1, 0, 0), "the end was seen"
    _check_union(epoch, stages, got, padding)


def _play(epoch, stage, ranks, rounds, whole, at):
    """Let a stage's ranks take their rounds; where that led to, and the items taken, each with its position."""
    taken = []
    length = epoch.start + len(whole)
    for parts in rounds[: stage.rounds]:
        for rank, part in zip(ranks, parts, strict=True):
            if not part:  # this rank is at its end, and is not asked
                continue
            batch = rank.take()
            assert batch is not None
            assert len(batch) == len(part)
            for position, item in zip(part, batch, strict=True):
                if position < length:
                    assert item == whole[position - epoch.start]
                elif epoch.wraps:
                    assert item == epoch.wraps[position - length]
                elif epoch.knows_head:
                    assert item == whole[position % length]
                taken.append((position, item))
        at = min(at + stage.span, length)
    if stage.rounds is None:
        assert [rank.take() for rank in ranks] == [None] * stage.world
    return at, taken


def _check_union(epoch, stages, got, padding):
    """The laws of contract 3, of what all ranks delivered together."""
    last, end = stages[-1], stages[-1].end
    lengths = {len(epoch.whole(stage)) for stage in stages}
    most = (max if len(lengths) == 1 else sum)(stage.world - 1 for stage in stages)  # at each end that the epoch had
    positions = [position for position, _ in got]
    whole = max((epoch.whole(stage) for stage in stages), key=len)[: positions[-1] + 1 - epoch.start if got else 0]
    whole = max(whole, epoch.whole(last), key=len)
    assert positions == sorted(set(positions)), "over ranks and stages the batches are cuts of one sequence, in order"
    lost = len(whole) - len(got)
    if end != "drop" and not last.drop_last:
        assert Counter(item for _, item in got) == Counter(whole), "every sample, as often as the sequence has it"
    assert lost <= (last.span - 1 if last.drop_last else most if end == "drop" else 0)
    assert len(padding) <= (most if end == "pad" else 0)
    assert {item for _, item in padding} <= set(whole) | set(epoch.wraps)


# ----------------------------------------------------------------------------------------------------------- the laws


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
def cases(draw, kinds, longest, workers=(None,)):
    kind = draw(st.sampled_from(kinds))
    length = draw(st.integers(2, longest))
    return kind, length, draw(st.integers(0, 3)), draw(stages(WAYS[kind].least, workers))


def made(kind, length, stage, number):
    """The sampler and the order of an epoch, where it is known beforehand."""
    way = WAYS[kind]
    loader = DataLoader(**{"dataset": range(length), "seed": SEED, **way.make(length, stage)})
    return loader._source, loader._source.order(SEED, number)


@cache
def sequence(kind, length, size, drop_last, number):
    """The epoch's one sequence. A batch size plays a part under `StratifiedBatchSampler` alone, which fills it up."""
    stage = Stage(1, size, drop_last=drop_last)
    _, order = made(kind, length, stage, number)
    if order is not None:
        return tuple(order.take(0, order.length).tolist())
    how = WAYS[kind].make(length, stage)
    items = how.get("batch_sampler", how.get("sampler", how.get("dataset")))
    return tuple(tuple(item) if WAYS[kind].has_batches else item for item in items)


def sequence_of(kind, length, number):
    fixed = kind != "stratified"
    return lambda stage: sequence(kind, length, 1 if fixed else stage.size, stage.drop_last and not fixed, number)


def by_loaders(kind, length, number):
    way = WAYS[kind]
    return Epoch(
        ranks=lambda stage: [LoaderRank(way, length, stage, rank, number) for rank in range(stage.world)],
        whole=sequence_of(kind, length, number),
        number=number,
        knows_head=way.knows_head,
    )


def by_plans(kind, length, number):
    def ranks(stage):
        source, order = made(kind, length, stage, number)
        fixed = source.length is not None
        return [PlanRank(order, source.name, stage, rank, number, fixed) for rank in range(stage.world)]

    return Epoch(ranks, sequence_of(kind, length, number), number)


def one_batch_size(kind, plan):
    """Whole batches are dealt one by one."""
    return [replace(stage, size=1, drop_last=False) for stage in plan] if WAYS[kind].has_batches else plan


@given(cases(PLANNED, longest=200))
@settings(max_examples=BY_PLANS)
def test_plans_and_cursors_alone_obey_the_elastic_law(case):
    kind, length, number, plan = case
    check_elastic(by_plans(kind, length, number), plan)


@given(cases(list(WAYS), longest=60, workers=[None] * 4 + ["thread"]))
@settings(max_examples=BY_LOADERS)
def test_loaders_obey_the_elastic_law(case):
    kind, length, number, plan = case
    check_elastic(by_loaders(kind, length, number), one_batch_size(kind, plan))


@given(st.sampled_from(list(HUGE)), st.integers(0, 300), stages(most=4))
@settings(max_examples=BY_PLANS // 20)
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
    rounds = division(0, len(sequence_of(kind, 41, 0)(stage)), stage)
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
    for _ in division(0, len(sequence_of(kind, length, 0)(stage)), stage):
        assert all(rank.take() for rank in ranks)
        assert ranks[0].state() == ranks[1].state()
    assert [rank.take() for rank in ranks] == [None, None]
    assert ranks[0].state() == ranks[1].state()
    ranks[0].close()


@pytest.mark.parametrize("kind", ["random", "distinct", "stratified", "stateful", "pairs", "stream"])
def test_process_workers_change_nothing(kind):
    """Stages without workers and with some, of both kinds, in one epoch: the state knows nothing of workers."""
    plan = [Stage(2, 4, "exact", False, workers, 2) for workers in ("thread", "process", None)]
    plan.append(Stage(1, 7, "exact", False, "process"))
    check_elastic(by_loaders(kind, 80, 1), one_batch_size(kind, plan))
