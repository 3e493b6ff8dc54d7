"""A stream made by the workers of a pool: read in one place, or shard by shard in several, finished everywhere.

Guarantee: a stream is never duplicated, and the batches are those that one worker would make, to the last bit. Every
submitted task comes back once. Items pass through this process as they came, bytes between processes: nothing is
unpickled here. What is read ahead is bounded by the tasks submitted and, of shards that follow, by a number of items.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from feedline.datasets.mapped import taken_apart
from feedline.datasets.shuffled import beneath, shuffle_of
from feedline.engine.making import located
from feedline.engine.streams.making import Promise, finishing, with_failures
from feedline.engine.streams.merging import Items, Line, NotYetError, Source
from feedline.engine.streams.shuffling import ShuffledItems, reach
from feedline.engine.task import Outcome, Task
from feedline.order.plan import BatchPlan, Dealer
from feedline.protocols import is_sharded

if TYPE_CHECKING:
    from feedline.engine.executor import Pool, PooledExecutor
    from feedline.engine.policy import FailedSample
    from feedline.engine.task import Role
    from feedline.order.plan import Cut

__all__ = ["StreamExecutor"]

_BLOCK = 256  # items of a stretch at most: bookkeeping of 0.1 ms spread over as many is nothing
_UNDER_WAY = 1024  # items asked for and not yet read, at most, or two stretches: enough to keep a reader busy
_BLOCK_S, _UNDER_WAY_S = 0.05, 0.25  # and of slow shards in a time: the reader's other tasks wait behind them
_AHEAD = 1024  # items that each reader of shards holds ready: of JPEG files some 100 MB
_AHEAD_NBYTES = 64 << 20  # and at most so many bytes, or a stretch, where items are bytes


class StreamExecutor:
    """Makes the batches of one epoch of a stream.

    With one worker, or if there is nothing but reading and collating to do, one worker does it all, and its batches
    come straight from there. Otherwise one worker reads, or each reads the shards whose number modulo their number is
    its own; items pass through this process, which cuts them into batches, and are finished by any worker.

    Args:
        pool: whose workers make them.
        role: whose ``stream`` is not None, and of stage "whole".
    """

    def __init__(self, pool: Pool, role: Role) -> None:
        _, maps = taken_apart(role.recipe.dataset)
        split = pool.num_workers > 1 and (bool(maps) or is_sharded(beneath(role.recipe.dataset)))
        self._pool = pool
        self._stages: _Stages = _Apart(pool, role) if split else _Together(pool, role)
        self._closed = self._torn = False

    @property
    def executors(self) -> tuple[PooledExecutor, ...]:
        """Those of the pool that it is composed of; not those of readers that were given up."""
        return self._stages.executors

    def submit(self, task: Task) -> None:
        """Take a task, and have its samples read."""
        waiting = self._stages.waiting
        if not any(each.plan.step == task.plan.step for each in waiting):  # Ctrl-C may have come after it was taken
            waiting.append(task)
        self._advance()

    @property
    def has_outcome(self) -> bool:
        """Whether a batch is here, of those that were heard of."""
        return bool(self._stages.done)

    def collect(self) -> Outcome:
        """Wait for an outcome of any task that was submitted and not collected yet."""
        stages = self._stages
        while True:
            if self._closed:
                raise RuntimeError("the loader was closed: iterate over it again for a new epoch")
            self._advance()
            if stages.done:
                outcome = stages.done[0]
                del stages.done[0]  # no call, after which Ctrl-C could come before the outcome is returned
                return outcome
            if stages.is_idle:
                raise RuntimeError("nothing is under way: collect() waits for a task that was submitted")
            self._pool.wait(self.executors)

    def _advance(self) -> None:
        if self._torn:
            raise RuntimeError(
                "the stream was interrupted while its batches were handed on, and does not know which: begin a new "
                "iteration, or resume from state_dict()"
            )
        self._torn = True  # Ctrl-C in there could lose a batch; in `wait`, where all the time goes, it does not
        self._stages.advance()
        self._torn = False

    def close(self) -> None:
        """Stop reading, and give up tasks that were not collected. May be called again."""
        self._closed = True
        self._stages.done.clear()
        for executor in self.executors:
            executor.close()


class _Stages(ABC):
    """How the tasks of an epoch get done.

    Attributes:
        waiting: tasks whose samples are not read yet, in order.
        done: what came of tasks and was not collected yet.
        executors: what is waited for.
    """

    executors: tuple[PooledExecutor, ...]

    def __init__(self) -> None:
        self.waiting: deque[Task] = deque()
        self.done: deque[Outcome] = deque()

    @property
    def is_idle(self) -> bool:
        """Whether no task is under way."""
        return not self.waiting

    @abstractmethod
    def advance(self) -> None:
        """Do all that can be done without waiting."""

    def _end(self, failures: tuple[FailedSample, ...] = ()) -> None:
        """The stream is over: nothing comes of the tasks that wait."""
        while self.waiting:
            self.done.append(Outcome(self.waiting[0], failures=failures))
            self.waiting.popleft()
            failures = ()


class _Together(_Stages):
    """One worker reads and finishes."""

    def __init__(self, pool: Pool, role: Role) -> None:
        super().__init__()
        assert role.stream is not None
        executor = pool.open(replace(role, stream=replace(role.stream, pickled=not pool.shares_memory)), pinned=0)
        self.executors = (executor,)
        self._line = Line(executor, role.stream.position, gives_up=True)
        self._span = role.stream.geometry.span
        self._promise = Promise(role)
        self._delivers = role.stream.position > 0
        self._ended = False

    def advance(self) -> None:
        """Take what was made, and ask for as many batches as are waited for."""
        waiting, line = self.waiting, self._line
        for outcome in line.answers():
            if self._ended:
                continue
            if outcome.batch is None and outcome.error is None:
                self._ended = True
                if not self._delivers:
                    self._promise.ended_at(0)
                continue
            batch = outcome.batch if outcome.error is None else None
            self.done.append(outcome._replace(task=waiting[0], batch=batch))
            waiting.popleft()
            if batch is not None:
                self._delivers = True
                self._promise.read_up_to(batch.until)
        self._ended = self._ended or line.is_lost
        if self._ended:
            self._end()
        while line.may_ask and line.length < len(waiting):
            line.ask(waiting[line.length].plan, self._span)


class _Apart(_Stages):
    """Readers, and any worker to finish."""

    def __init__(self, pool: Pool, role: Role) -> None:
        super().__init__()
        assert role.stream is not None
        self._start = start = replace(role.stream, pickled=not pool.shares_memory)
        self._epoch = role.epoch
        self._sharded = is_sharded(beneath(role.recipe.dataset))
        readers = pool.num_workers if self._sharded else 1
        self._finishing = first = pool.open(replace(role, stream=replace(start, stage="finish")))
        executors = [
            pool.open(
                replace(role, stream=replace(start, stage="read", reader=number, readers=readers)),
                pinned=number,
                like=first,
            )
            for number in range(readers)
        ]
        begin = 0 if self._sharded else start.position
        self._sources = [Source(executor, begin, number) for number, executor in enumerate(executors)]
        self.executors = (*executors, first)
        geometry = start.geometry
        step = (start.position - start.origin) // geometry.span
        items: Items | ShuffledItems
        if self._sharded and shuffle_of(role.recipe.dataset) is not None:
            self._items = Items(self._sources, 0, 0, told=reach(role, start.position))
            items = ShuffledItems(role, self._items)
        else:
            items = self._items = Items(self._sources, begin, start.position)
        self._dealer: Dealer[Any] = Dealer(items, geometry, origin=start.origin, step=step)
        items.keep(self._dealer.head, geometry.shard.world_size - 1)
        self._dealt: tuple[list[Any], Cut] | None = None  # kept until it is handed on: Ctrl-C may come in between
        self._base = start.position  # where the next step begins
        self._made: dict[int, tuple[Task, tuple[FailedSample, ...]]] = {}  # by step: tasks that are being finished
        self._promise = Promise(role)
        self._asked = 0

    @property
    def is_idle(self) -> bool:
        return not self.waiting and not self._made

    def advance(self) -> None:
        """Hand on what was read and what was finished, and have more read."""
        for source in self._sources:
            if source.hear():
                self.executors = tuple(each for each in self.executors if each is not source.executor)
        while (made := self._finishing.poll()) is not None:
            task, failures = self._made.pop(made.task.plan.step)
            self.done.append(with_failures(made._replace(task=task), failures))
        while self.waiting and self._deal(self.waiting[0]):
            pass
        self._ask()

    def _deal(self, task: Task) -> bool:
        """Have a task finished if its items are there; False where they are not, or the stream is over."""
        try:
            if self._dealt is None:
                self._dealt = next(self._dealer, None)
            if self._dealt is None:
                assert self._dealer.length is not None
                self._promise.ended_at(self._dealer.length)
                self._end(self._items.take_failures(task))
                return False
            items, cut = self._dealt
            self._promise.read_up_to(cut.until)
        except NotYetError:
            return False
        except Exception as error:  # noqa: BLE001 -- what the stream raised; raised again at its turn
            where = f"worker {self._items.reader}"
            failed = self._items.take_failures(task)
            self.done.append(Outcome(task, error=located(error, task.plan, where), failures=failed))
        else:
            self._made[task.plan.step] = task, self._items.take_failures(task)
            self._finishing.submit(finishing(task, items, cut))
            self._base, self._dealt = cut.until, None
        self.waiting.popleft()
        return True

    def _ask(self) -> None:
        """Have as much read as the tasks that wait need, and of shards that follow some more."""
        geometry, world = self._start.geometry, self._start.geometry.shard.world_size
        wanted = self._base + len(self.waiting) * geometry.span - self._items.position
        unit = _BLOCK
        if self._sharded:
            wanted = max(wanted, _AHEAD)
        else:  # whole steps, so that the reader knows which items are of other ranks
            unit = geometry.span if world > 1 else min(geometry.span, _BLOCK)
        for source in self._sources:
            line = source.line
            under_way = max(_UNDER_WAY, 2 * unit)
            if self._sharded:
                under_way = max(source.within(_UNDER_WAY_S, _UNDER_WAY), geometry.span)
            while (
                line.may_ask
                and not source.has_ended
                and source.length + line.items < wanted
                and line.items < under_way
                and source.may_hold(_AHEAD_NBYTES)
            ):
                plan = BatchPlan(self._epoch, self._asked, (), 0, 0)
                if self._sharded:  # short ones first: of a slow stream the first batch shall not wait for long ones
                    longest = source.within(_BLOCK_S, unit)
                    count = source.unit = min(longest, 2 * source.unit or geometry.span)
                else:
                    count = unit - (line.next - self._start.origin) % unit
                line.ask(plan, count)
                self._asked += 1
