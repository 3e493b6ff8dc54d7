"""How batches of an iterable-style dataset are made: in its own order, each sample once.

Guarantee: a stream is read in order by one reader, never duplicated. Resuming reads it again up to the position that
was delivered; another rank's samples are read and passed over. After an error of the stream, or Ctrl-C, the samples
already read are not lost: the next batch begins with them. Whoever makes a batch does so in the same two stages,
reading and finishing, with the same keys: what comes of it is the same in one place and in many.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from feedline.datasets.shuffled import beneath
from feedline.engine.making import located
from feedline.engine.streams.finishing import FinishMaker
from feedline.engine.streams.handing import ReadMaker
from feedline.engine.streams.reading import check_opens_anew, reading_keys
from feedline.engine.streams.shuffling import open_reader
from feedline.engine.task import Batch, Outcome, Stretch
from feedline.order.plan import BatchPlan, Dealer
from feedline.protocols import length_of

if TYPE_CHECKING:
    from feedline.engine.keys import Keys
    from feedline.engine.policy import FailedSample
    from feedline.engine.streams.reading import Reader
    from feedline.engine.streams.shuffling import ShuffledReader
    from feedline.engine.task import Allocator, Maker, Role, Task
    from feedline.order.plan import Cut

__all__ = ["Promise", "StreamMaker", "finishing", "stream_maker", "with_failures"]


def stream_maker(role: Role, arena: Allocator, *, where: str = "the main process", seeds_globals: bool = True) -> Maker:
    """What does a worker's part in making a stream's batches: the stage of its role.

    Args:
        role: what is done; its ``stream`` is not None.
        arena: where batches are made.
        where: what an error's note says of the place: ``"worker 1"``.
        seeds_globals: as for `Keys`.
    """
    assert role.stream is not None
    if role.stream.stage == "read":
        return ReadMaker(role, seeds_globals=seeds_globals)
    if role.stream.stage == "finish":
        pickled = role.stream.pickled
        return FinishMaker(role, arena, where=where, seeds_globals=seeds_globals, pickled=pickled)
    return StreamMaker(role, arena, where=where, seeds_globals=seeds_globals)


class StreamMaker:
    """Makes the batches of one epoch of an iterable-style dataset, in order, whatever step it is asked for.

    Where a task's ``items`` is a `Stretch`, its ``start`` is the position that the batch's step begins at: a new maker
    passes over what comes before; one that has not come as far comes back empty (`is_stale`), one that is beyond begins
    anew. An error then comes with an empty batch, whose ``until`` is where the next step begins.

    Args:
        role: how batches are made, and where the stream begins.
        arena: where they are made.
        where: what an error's note says of the place.
        seeds_globals: as for `Keys`.
    """

    def __init__(
        self, role: Role, arena: Allocator, *, where: str = "the main process", seeds_globals: bool = True
    ) -> None:
        assert role.stream is not None
        self._role = role
        self._start = role.stream
        self._where = where
        self._keys = reading_keys(role, seeds_globals=seeds_globals)
        self._finisher = FinishMaker(role, arena, where=where, seeds_globals=seeds_globals)
        self._promise = Promise(role)
        self._reader: Reader | ShuffledReader | None = None
        self._dealer: Dealer[Any] | None = None
        self._dealt: tuple[list[Any], Cut] | None = None  # kept until the batch is made: Ctrl-C may come in between
        self._until = 0  # where the next batch begins, once one was dealt

    def make(self, task: Task) -> Outcome:
        """The next batch, or what the user's code raised; neither when the stream has ended."""
        plan, error = task.plan, None
        with self._keys(plan.epoch) as keys:
            try:
                if not self._follows(task, keys):
                    return Outcome(task, Batch(None, 0, self._until))
                self._deal(task)
            except Exception as raised:  # noqa: BLE001 -- the user's code may raise anything; raised again at its turn
                error = located(raised, plan, self._where)
        if error is not None or self._dealt is None:
            failures = () if self._reader is None else self._reader.take_failures()
            return self._placed(Outcome(task, error=error, failures=failures))
        samples, cut = self._dealt
        made = self._finisher.make(finishing(task, samples, cut))
        self._dealt = None
        assert self._reader is not None
        return self._placed(with_failures(made._replace(task=task), self._reader.take_failures()))

    def _placed(self, outcome: Outcome) -> Outcome:
        """An error's outcome saying where the next batch begins, to who has asked for a stretch."""
        if outcome.error is None or outcome.task.items is None or self._reader is None:
            return outcome
        return outcome._replace(batch=Batch(None, 0, self._until))

    def give_up(self) -> None:
        """End the batch under way before its next sample. Any thread may say so."""
        self._keys.give_up()
        self._finisher.give_up()

    def _follows(self, task: Task, keys: Keys) -> bool:
        """Whether the task's step is the next one; makes it so where the stream can be opened (anew)."""
        stretch: Stretch = Stretch(self._start.position, 0) if task.items is None else task.items
        position = stretch.start
        if self._reader is not None:
            if task.items is None or position == self._until:
                return True
            if position > self._until:
                return False
        check_opens_anew(self._role, position, again=self._reader is not None)
        reader = open_reader(self._role, keys, position, stretch.failed)
        self._reader, self._dealer, self._dealt = reader, None, None
        self._until = position
        return True

    def _deal(self, task: Task) -> None:
        """Read the samples of the next batch, if they are not there."""
        reader, geometry = self._reader, self._start.geometry
        assert reader is not None
        with reader.reading(task.plan):
            if self._dealer is None:
                reader.open()
                origin = self._start.origin
                step = (self._until - origin) // geometry.span
                self._dealer = Dealer(reader, geometry, origin=origin, step=step, head=reader.head)
            if self._dealt is None:
                self._dealt = next(self._dealer, None)
        if self._dealt is not None:
            self._until = self._dealt[1].until
        if task.items is not None:  # who has asked for a stretch warns where the loop sees it
            return
        if self._dealt is not None:
            self._promise.read_up_to(self._until)
        elif self._dealer.length is not None:
            self._promise.ended_at(self._dealer.length)


def finishing(task: Task, items: list[Any], cut: Cut) -> Task:
    """The task of making a batch of items that were read."""
    plan = BatchPlan(task.plan.epoch, task.plan.step, range(cut.start, cut.start + len(items)), cut.start, cut.until)
    return task._replace(plan=plan, items=items)


def with_failures(outcome: Outcome, failures: tuple[FailedSample, ...]) -> Outcome:
    """A batch's outcome, with the samples that failed when its items were read."""
    if not failures:
        return outcome
    batch = outcome.batch
    if batch is not None:
        batch = batch._replace(samples=batch.samples + len(failures))
    return outcome._replace(batch=batch, failures=failures + outcome.failures)


class Promise:
    """What a stream says of itself, and the warning, once an epoch, that it does not hold.

    Args:
        role: whose stream.
    """

    def __init__(self, role: Role) -> None:
        assert role.stream is not None
        self._source = beneath(role.recipe.dataset)
        self._epoch = role.epoch
        self._promised = length_of(role.recipe.dataset)

    def read_up_to(self, position: int) -> None:
        """Warn if the stream is longer than its length says."""
        if self._promised is not None and position > self._promised:
            warnings.warn(
                f"the dataset's len() is {self._promised}, but it goes on beyond that; len(loader) is too small",
                stacklevel=2,
            )
            self._promised = None

    def ended_at(self, length: int) -> None:
        """Warn if an epoch after the first is empty because the dataset is an iterator and not an iterable."""
        self.read_up_to(length)
        if self._epoch and length == 0 and hasattr(self._source, "__next__"):
            warnings.warn(
                f"epoch {self._epoch} is empty: the dataset is an iterator, which an earlier epoch has used up; give "
                f"an iterable, whose __iter__ begins anew",
                stacklevel=2,
            )
            self._epoch = 0
