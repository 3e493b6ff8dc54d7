"""The elastic law, and the ranks of a job that are held to it.

An epoch is gone through in stages. Each has a world, a batch size, an end and workers of its own, goes on from the
state (through JSON) of the one before, and is broken off after some rounds, but for the last. A round is a step on
every rank. What each rank gets is compared, batch by batch, with the documented division of the epoch's one sequence,
written here anew; then the union of what all ranks got with the whole sequence. What `feedline.rng` draws for a sample
is compared with what it draws in one process that nothing interrupts.
"""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np

from feedline import DataLoader, InfiniteDataLoader, Shard
from feedline.order.batched import BatchOrder
from feedline.order.cursor import Cursor
from feedline.order.plan import EpochPlan, Geometry

SEED = 7


@dataclass(frozen=True)
class Stage:
    """A run of a job: its geometry, its workers, and after how many rounds it is broken off; None: at the end.

    Workers, where there are some, are those of every other rank, one more on each than on the one before: the state
    knows nothing of them.
    """

    world: int
    size: int
    end: str = "exact"
    drop_last: bool = False
    workers: str | None = None
    rounds: int | None = None

    def how(self, rank):
        """The arguments of a loader that a rank has."""
        how = {"seed": SEED, "shard": Shard(rank, self.world, self.end)}
        workers = self.workers if rank % 2 == 0 else None
        return how if workers is None else how | {"num_workers": 2 - rank // 2 % 2, "backend": workers}

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
    """A rank that has a loader, whose samples are pairs: a value, and what was drawn for it."""

    def __init__(self, way, length, stage, rank, epoch):
        self.way = way
        self.loader = DataLoader(**way.arguments(length, stage), **stage.how(rank))
        self.loader.set_epoch(epoch)
        self.iterator = iter(self.loader)

    def resume(self, state):
        self.loader.load_state_dict(state)

    def state(self):
        return self.loader.state_dict()

    def take(self):
        """The next batch, as a list of values, and in `drawn` what was drawn for each; None at the end."""
        batch = next(self.iterator, None)
        if batch is None:
            return None
        values, self.drawn = ([tuple(part.tolist())] if self.way.has_batches else part.tolist() for part in batch)
        return values

    def close(self):
        self.loader.close()


class PlanRank:
    """A rank that has a plan and a cursor, and nothing else."""

    def __init__(self, order, name, stage, rank, epoch, fixed):
        self.order = order
        self.has_batches = isinstance(order, BatchOrder)
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
        self.drawn = None
        if batch is None:
            self.cursor = replace(self.start, epoch=self.start.epoch + 1)
            return None
        self.cursor = replace(self.cursor, position=batch.until)
        return [tuple(batch.indices.tolist())] if self.has_batches else batch.indices.tolist()

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
        draws: what is drawn for each item of ``whole``, where something is.
    """

    ranks: Callable
    whole: Callable
    number: int
    knows_head: bool = True
    start: int = 0
    wraps: tuple = ()
    draws: Callable | None = None


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
            if rank.drawn is not None:  # padding has positions of its own, and draws anew
                draws = epoch.draws(stage)[part.start : part.stop]
                assert rank.drawn[: len(draws)] == list(draws)
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


# ------------------------------------------------------------------------------------------------- a run without an end


def check_endless(way, length, sequence, steps, stages, reshuffle="pass"):
    """Go through a run of an `InfiniteDataLoader` in stages: its ranks get cuts of one sequence, whole ones.

    Args:
        way: how samples are chosen.
        length: of the dataset.
        sequence: gives the first so many items of the sequence; None: it is not compared.
        steps: how many batches a virtual epoch has; None: it does not end.
        stages: of ``rounds`` each.
        reshuffle: of the loader.

    Returns:
        The items, and what was drawn for each, in pairs.
    """
    found, state = [], None
    for stage in stages:
        dealt, states = [], []
        for rank in range(stage.world):
            how = way.arguments(length, stage) | stage.how(rank)
            with InfiniteDataLoader(**how, batches_per_epoch=steps, reshuffle=reshuffle) as loader:
                if state is not None:
                    loader.load_state_dict(state)
                dealt.append([[part.tolist() for part in batch] for batch in islice(_laps(loader), stage.rounds)])
                states.append(json.loads(json.dumps(loader.state_dict())))
        for batches in zip(*dealt, strict=True):
            for values, drawn in batches:
                assert way.has_batches or len(values) == stage.size
                found += [(tuple(values), tuple(drawn))] if way.has_batches else zip(values, drawn, strict=True)
        state = states[0]
        assert all(other == state for other in states), "the state is the same on every rank"
        if reshuffle == "pass":
            assert state["position"] == len(found)
    if sequence is not None:
        assert tuple(item for item, _ in found) == sequence(len(found))
    return found


def _laps(loader):
    """The batches of one loop after the other."""
    while True:
        yield from loader
