"""What the readers of a stream are asked for, and its items in order out of what they answer.

Guarantee: items come in the stream's order, each once, whoever read them and however far ahead; nothing here waits.

A reader is asked for stretches that say where they begin, several at a time. Where one of its answers is shorter than
was asked (an error), those that follow leave a gap: they come back empty, or, from a reader that took the place of a
lost one, with items that are too early; they are asked for again. So no death of a reader loses an item or repeats one.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from feedline.engine.streams.reading import IN_A_ROW, Read, is_stale
from feedline.engine.task import Stretch, Task
from feedline.errors import FeedlineError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from feedline.engine.executor import PooledExecutor
    from feedline.engine.policy import FailedSample
    from feedline.engine.task import Outcome
    from feedline.order.plan import BatchPlan

__all__ = ["Items", "Line", "NotYetError", "Source"]


MOST_LOST = 2  # errors in a row of a pool that lost its reader: a third reader would be lost at the same item


class Line:
    """What one reader was asked for and did not answer yet.

    Args:
        executor: by which it is asked.
        start: where the first stretch begins.
        gives_up: whether a stretch that the pool has no answer for, but an error, is passed over; else it is asked for
            again.

    Attributes:
        next: where the next stretch begins.
        items: how many items are under way.
    """

    def __init__(self, executor: PooledExecutor, start: int, *, gives_up: bool = False) -> None:
        self._executor = executor
        self._gives_up = gives_up
        self._counts: deque[int] = deque()
        self._stands = start  # up to where answers were taken
        self._failed: tuple[Any, ...] = ()  # the samples that failed since
        self._drains = False
        self._losses = 0  # errors of the pool's own since an answer
        self.next = start
        self.items = 0

    @property
    def length(self) -> int:
        """How many stretches are under way."""
        return len(self._counts)

    @property
    def is_lost(self) -> bool:
        """Whether readers keep dying, or hanging: the next one would too."""
        return self._losses >= MOST_LOST

    @property
    def may_ask(self) -> bool:
        """Whether what is asked now may follow what is under way: not while that is of no use."""
        return not self._drains

    def ask(self, plan: BatchPlan, count: int) -> None:
        """Have the next ``count`` items read."""
        failed = self._failed if self.next == self._stands else ()
        self._counts.append(count)
        self.items += count
        self._executor.submit(Task(plan, items=Stretch(self.next, count, failed)))
        self.next += count

    def answers(self) -> Iterator[Outcome]:
        """What has come and follows what came before; all else is asked for again."""
        known: Exception | None = None  # a pool that gives up answers all that is under way with one error: one loss
        while (outcome := self._executor.poll()) is not None:
            count = self._counts.popleft()
            self.items -= count
            batch, start = outcome.batch, outcome.task.items.start
            if batch is not None:
                self._losses = 0
            elif outcome.error is not None and outcome.error is not known:
                self._losses, known = self._losses + 1, outcome.error
            follows = start == self._stands
            if follows:  # an error without a position is the pool's
                self._stands = (start + count * self._gives_up) if batch is None else batch.until
                if self._stands != start:
                    self._failed = ()
                elif outcome.error is not None:
                    self._failed += tuple(failure.index for failure in outcome.failures)
            self._drains = bool(self._counts) and (self._drains or self._stands != start + count)
            if not self._counts:
                self.next = self._stands
            if follows and not is_stale(outcome):
                yield outcome


class _Entry(NamedTuple):
    """An item that was read, or what came in the place of one: samples that failed, an error."""

    shard: int
    item: Any = None
    failures: tuple[FailedSample, ...] = ()
    error: Exception | None = None
    is_lost: bool = False  # the error is the pool's, of a reader that was lost

    @property
    def nbytes(self) -> int:
        return len(self.item) if type(self.item) is bytes else 0


class Source:
    """What one reader has read and nobody has taken yet.

    Attributes:
        executor, line: by which it is asked.
        shard: the shard that its next item is of.
        shards: how many there are, once it is known.
        is_lost: whether readers keep dying or hanging: what is left of its shards is given up, and it is closed.
        head: the stream's first items, where it passed over them.
        nbytes: how many bytes are there.
        unit: of how many items the last stretch that was asked for is; 0 before the first.
        item_nbytes: how many an item of the last stretch had, on average; None before the first.
        item_s: how many seconds reading one of them took; 0 before the first.
    """

    def __init__(self, executor: PooledExecutor, start: int, shard: int) -> None:
        self.executor = executor
        self.line = Line(executor, start)
        self.shard = shard
        self.shards: int | None = None
        self.head: list[Any] = []
        self._entries: deque[_Entry] = deque()
        self.is_lost = False
        self.nbytes = 0
        self.unit = 0
        self.item_nbytes: int | None = None
        self.item_s = 0.0

    @property
    def length(self) -> int:
        """How many items are there, or what came in the place of one."""
        return len(self._entries)

    @property
    def has_ended(self) -> bool:
        """Whether the reader has no more items."""
        return self.is_lost or (self.shards is not None and self.shard >= self.shards)

    def may_hold(self, nbytes: int) -> bool:
        """Whether more may be asked for, to judge by the items that came; before the first, one stretch."""
        if self.item_nbytes is None:
            return not self.line.items
        return self.nbytes + self.line.items * self.item_nbytes < nbytes

    def hear(self) -> bool:
        """Take what has come from the reader; whether it was found to be lost now."""
        if self.is_lost:
            return False
        for outcome in self.line.answers():
            self._take(outcome)
        self.is_lost = self.line.is_lost
        if self.is_lost:  # what is under way would cost the pool more workers
            self.executor.close()
        return self.is_lost

    def _take(self, outcome: Outcome) -> None:
        if outcome.error is not None or outcome.batch is None:
            is_lost = outcome.batch is None
            self._put(_Entry(self.shard, failures=outcome.failures, error=outcome.error, is_lost=is_lost))
            return
        read: Read = outcome.batch.value
        before = self.nbytes
        failed = deque(zip(read.failed, outcome.failures, strict=True))
        for place, (shard, item) in enumerate(zip(read.owners, read.items, strict=True)):
            while failed and failed[0][0] == place:
                self._fail(failed.popleft()[1])
            self._put(_Entry(shard, item))
        for _, failure in failed:
            self._fail(failure)
        self.shard, self.shards = read.shard, read.shards
        self.head = self.head or read.head
        if read.items:
            self.item_nbytes = (self.nbytes - before) // len(read.items)
            self.item_s = read.took_s / len(read.items)

    def within(self, seconds: float, most: int) -> int:
        """How many items, at most and at least one, are read in a time, to judge by the last."""
        return most if self.item_s * most <= seconds else max(1, int(seconds / self.item_s))

    def _fail(self, failure: FailedSample) -> None:
        shard = failure.index[0] if isinstance(failure.index, tuple) else 0
        self._put(_Entry(shard, failures=(failure,)))

    def _put(self, entry: _Entry) -> None:
        self.nbytes += entry.nbytes
        self._entries.append(entry)

    def next(self, shard: int) -> _Entry | None:
        """The next of what was read of a shard; None where it is over.

        Raises:
            NotYetError: more of it is to be read first.
        """
        if self._entries and self._entries[0].shard == shard:
            entry = self._entries.popleft()
            self.nbytes -= entry.nbytes
            return entry
        if self.is_lost or (self.shards is not None and (self._entries or self.shard > shard)):
            return None
        raise NotYetError


class NotYetError(Exception):
    """The next item is not read yet; a `Dealer` that meets it keeps what it took."""


class Items:
    """All items in the stream's order, out of what the readers have read. Passes over those delivered before.

    Args:
        sources: the readers; shard i is read by number i modulo theirs.
        position: the position of the first item that they read.
        goal: the position up to which items are passed over.
        told: the position up to which errors are not raised, since they were before.

    Attributes:
        position: how many items of the stream were taken.
        lost_track: whether the stream ended with a reader lost of whose items nobody knows which were delivered before.
    """

    def __init__(self, sources: list[Source], position: int, goal: int, *, told: int = 0) -> None:
        self._sources = sources
        self._goal = goal
        self._until_told = max(goal, told)
        self._shard = 0
        self._head: list[Any] = []
        self._keep = 0
        self._failures: list[FailedSample] = []
        self._in_a_row = 0
        self._tells_head = 0 < goal == position
        self.position = position
        self.lost_track = False

    @property
    def reader(self) -> int:
        """The number of the reader that the next item comes from."""
        return self._shard % len(self._sources)

    def keep(self, head: list[Any], count: int) -> None:
        """Put the first ``count`` of the items passed over into a list."""
        self._head, self._keep = head, count

    def take_failures(self, task: Task) -> tuple[FailedSample, ...]:
        """The samples that failed since the last call, as those of a task."""
        failures = tuple(replace(failure, step=task.plan.step) for failure in self._failures)
        self._failures.clear()
        return failures

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        while True:
            entry = self._next()
            passing, told = self.position < self._goal, self.position < self._until_told
            if not told:
                self._failures += entry.failures
            if entry.error is not None:
                self._in_a_row += 1
                if not told or entry.is_lost or self._in_a_row > IN_A_ROW:
                    self._in_a_row = 0
                    raise entry.error
            elif not entry.failures:
                self._in_a_row = 0
                self.position += 1
                if not passing:
                    return entry.item
                if len(self._head) < self._keep:
                    self._head.append(entry.item)

    def _is_over(self) -> bool:
        """Whether all shards are done with, as far as a reader is left that can tell how many there are."""
        known = [source.shards for source in self._sources if source.shards is not None]
        if known:
            return self._shard >= known[0]
        return all(source.is_lost and not source.length for source in self._sources)

    def _next(self) -> _Entry:
        while True:
            source, passing = self._sources[self.reader], self.position < self._goal
            if self._is_over():
                if passing and not any(each.is_lost for each in self._sources):
                    raise FeedlineError(
                        f"the state says that {self._goal} samples were delivered, but the stream ended after "
                        f"{self.position}; resume with the dataset that the state was taken from"
                    )
                self.lost_track = self.position < self._until_told and any(each.is_lost for each in self._sources)
                raise StopIteration
            entry = source.next(self._shard)
            if self._tells_head and source.head:
                self._head += source.head
                self._tells_head = False
            if entry is not None:
                return entry
            told = self.position < self._until_told
            if told and source.is_lost and source.shard <= self._shard:
                self.lost_track = True  # how many of its items were delivered before, nobody knows
                raise StopIteration
            self._shard += 1
