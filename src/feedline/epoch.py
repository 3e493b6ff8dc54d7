"""One epoch of a loader, under way: where its plans come from, and how far it was delivered.

Guarantee: a loader makes an `Epoch` at the first ``next()``; nothing is read, drawn or started before (contract 8).
Its cursor moves with each delivery, never with what was planned or made ahead (contract 3).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import count
from typing import TYPE_CHECKING, Any

from feedline.engine.making import is_empty
from feedline.engine.pipeline import Pipeline
from feedline.engine.policy import ErrorPolicy, FailureBudget
from feedline.engine.task import Role, StreamStart
from feedline.engine.window import Window
from feedline.errors import DatasetChanged
from feedline.order.cursor import Tally
from feedline.order.drawn import DrawnPlans
from feedline.order.plan import BatchPlan, EpochPlan
from feedline.protocols import length_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from feedline.engine.task import Outcome, Recipe
    from feedline.insight.stats import Counters
    from feedline.order.cursor import Cursor
    from feedline.order.plan import Geometry
    from feedline.workers import Workers

__all__ = ["Epoch", "Surroundings"]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the epochs of a loader share.

    Attributes:
        workers: make the batches.
        geometry: how an epoch is cut and dealt.
        sampler: a user's sampler, or batch sampler, used where the recipe does not know the order; None for a stream.
        batches: whether that sampler yields whole batches.
        deliver: what is done to each batch before it is handed out, or None.
        counters: what is delivered is counted there.
    """

    workers: Workers
    geometry: Geometry
    sampler: Any
    batches: bool
    deliver: Callable[[Any], Any] | None
    counters: Counters


class Epoch:
    """The batches of one epoch from a cursor on.

    Args:
        recipe: how batches are made.
        cursor: where to begin.
        around: what this epoch shares with the others.
    """

    def __init__(self, recipe: Recipe, cursor: Cursor, around: Surroundings) -> None:
        self.recipe = recipe
        self._around = around
        self._deliver = around.deliver
        self._dataset = recipe.dataset
        self._cursor = cursor
        self._delivered = cursor.position, cursor.sampler_state, cursor.undelivered  # one object: for other threads
        self._tally = Tally(cursor)
        self._drawn: DrawnPlans | None = None
        self.ended = False
        self._closed = False
        self._budget = None if recipe.policy == ErrorPolicy() else FailureBudget(recipe.policy)
        self._length: int | None = None
        self._keeps_empty = not recipe.batched or recipe.writes
        geometry = around.geometry
        start = cursor.resumes_at
        step = (start - cursor.origin) // geometry.span
        plans: Iterator[BatchPlan]
        stream = None
        if recipe.order is not None:
            whole = EpochPlan(cursor.epoch, recipe.order, geometry, cursor.origin)
            plans = whole.batches(len(whole) if start == recipe.order.length else step)
        elif around.sampler is not None:
            plans = self._drawn = DrawnPlans(around.sampler, geometry, cursor, batches=around.batches)
        else:
            plans = (BatchPlan(cursor.epoch, number, (), 0, 0) for number in count(step))
            stream = StreamStart(geometry, origin=cursor.origin, position=start)
        if done := cursor.delivered_beyond:
            plans = filter(lambda plan: plan.step not in done, plans)
        if stream is None:
            self._length = length_of(self._dataset)
        workers = around.workers
        executor = workers.open(Role(recipe, cursor.epoch, stream))
        in_order = workers.options.in_order or stream is not None  # a stream that is resumed is read in order
        window: Window[Outcome] = Window(workers.credits, in_order=in_order, max_nbytes=workers.max_nbytes)
        self._pipeline = Pipeline(plans, executor, window, ahead=workers.prefetches)

    @property
    def is_planned(self) -> bool:
        """Whether its workers get nothing more of it: all batches are made, or being made."""
        return self._pipeline.is_planned

    def is_current(self, recipe: Recipe) -> bool:
        """Whether dataset and functions, those of ``recipe``, are what they were when this epoch was opened."""
        return self._around.workers.is_current(self._pipeline.executor, recipe)

    def prefetch(self, most: int) -> None:
        """Have at most so many batches more made before they are asked for."""
        self._pipeline.fill(most)

    def __next__(self) -> Any:
        """The next batch.

        Raises:
            StopIteration: the epoch is at its end.
            DatasetChanged: the dataset's length is not what it was when the epoch began.
        """
        if self.ended:
            raise StopIteration
        try:
            value = self._take()
        except StopIteration as error:  # leaving next() it would end the epoch as if all had been delivered
            raise RuntimeError(
                f"the dataset, its sampler or its length raised StopIteration in epoch {self._cursor.epoch}; "
                f"raise an error of your own"
            ) from error
        if self.ended:
            raise StopIteration
        return value

    def _take(self) -> Any:
        if self._length is not None and len(self._dataset) != self._length:
            raise DatasetChanged(
                f"the dataset had {self._length} samples when epoch {self._cursor.epoch} began and has "
                f"{len(self._dataset)} now; change it between epochs, or begin a new iteration after changing it"
            )
        counters = self._around.counters
        while True:
            outcome = self._pipeline.take()
            if outcome is None:
                self.ended = True
                counters.epoch_ended()
                self.close()
                return None
            batch, plan = outcome.batch, outcome.task.plan
            self._tally.count(plan.step, plan.until if batch is None else batch.until)
            if outcome.failures:
                counters.failed(len(outcome.failures))
            if self._budget is not None:
                read = max(len(plan.indices), len(outcome.failures)) if batch is None else batch.samples
                self._budget.spend(outcome.failures, read)
            if outcome.error is not None:
                raise outcome.error
            assert batch is not None
            if self._keeps_empty or not is_empty(batch.value):
                break
            counters.passed_over()  # the user's collate dropped all samples: there is nothing to deliver
            self._note_delivery()
        value = batch.value if self._deliver is None else self._deliver(batch.value)
        self._note_delivery()
        skipped = len(outcome.failures) if self.recipe.policy.action == "skip" else 0
        counters.delivered(batch.samples - skipped)
        return value

    def cursor(self) -> Cursor:
        """How far the epoch was delivered."""
        length = self._cursor.length
        if length is None and self._drawn is not None:
            length = self._drawn.length
        position, state, undelivered = self._delivered
        return replace(self._cursor, position=position, length=length, sampler_state=state, undelivered=undelivered)

    def _note_delivery(self) -> None:
        tally = self._tally
        state = None if self._drawn is None else self._drawn.state_before(tally.first_missing)
        self._delivered = tally.until, state, tuple(sorted(tally.missing))

    def close(self) -> None:
        """Stop what the epoch started, and let go of it: an open stream, a user's sampler. May be called again."""
        self._cursor = self.cursor()
        self._drawn = None
        self._pipeline.close()
        if not self._closed:
            self._closed = True
            self._around.workers.end_epoch()
