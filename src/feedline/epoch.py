"""One epoch of a loader, under way: where its plans come from, and how far it was delivered.

Guarantee: a loader makes an `Epoch` at the first ``next()``; nothing is read, drawn or started before (contract 8).
Its cursor moves with each delivery, never with what was planned or made ahead (contract 3). After Ctrl-C the next call
goes on with nothing lost or repeated.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from feedline.engine.making import is_empty
from feedline.engine.pipeline import Pipeline
from feedline.engine.policy import ErrorPolicy, FailureBudget
from feedline.engine.task import Role, StreamStart
from feedline.engine.window import Window
from feedline.errors import DatasetChanged
from feedline.insight.digest import Digest, mark
from feedline.order.cursor import Tally
from feedline.order.drawn import DrawnPlans
from feedline.order.plan import EpochPlan, Unplanned, passing_over
from feedline.protocols import length_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from feedline.engine.executor import Executor
    from feedline.engine.task import Outcome, Recipe
    from feedline.insight.stats import Counters
    from feedline.order.batched import BatchOrder
    from feedline.order.cursor import Cursor
    from feedline.order.plan import BatchPlan, Geometry
    from feedline.order.sequence import Order
    from feedline.workers import Workers

__all__ = ["Epoch", "Surroundings"]


_Delivered = tuple[int, Any, tuple[int, ...]]  # up to where, the sampler's state there, what is still to come before


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the epochs of a loader share.

    Attributes:
        workers: make the batches.
        geometry: how an epoch is cut and dealt.
        sampler: a user's sampler, or batch sampler, used where the recipe does not know the order; None for a stream.
        batches: whether that sampler yields whole batches.
        sequence: what an epoch is cut from: its order, or a longer one that its cursor stands in.
        deliver: what is done to each batch before it is handed out, or None.
        counters: what is delivered is counted there.
        digest: the marks of what is handed over are added up there.
    """

    workers: Workers
    geometry: Geometry
    sampler: Any
    batches: bool
    sequence: Callable[[Order | BatchOrder, Cursor], Order | BatchOrder]
    deliver: Callable[[Any], Any] | None
    counters: Counters
    digest: Digest = field(default_factory=Digest)


class Epoch:
    """The batches of one epoch from a cursor on.

    Args:
        recipe: how batches are made.
        cursor: where to begin.
        around: what this epoch shares with the others.
        like: another one, of the same dataset and functions as far as is known: processes are not sent them again.
    """

    def __init__(self, recipe: Recipe, cursor: Cursor, around: Surroundings, like: Epoch | None = None) -> None:
        self.recipe = recipe
        self._around = around
        self._deliver = around.deliver
        self._counters = around.counters
        self._dataset = recipe.dataset
        self._cursor = cursor
        self._delivered = cursor.position, cursor.sampler_state, cursor.undelivered  # one object: for other threads
        self._before = self._delivered  # and before the last one
        self._outcome: Outcome | None = None  # taken from the pipeline, and not made a value
        self._accounted: Outcome | None = None  # whose failures are counted
        self._held: tuple[Any, _Delivered, int] | None = None  # not handed over: a value, where we stand then, its mark
        self._mark = 0  # of the last one
        self._digest = around.digest
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
            sequence = around.sequence(recipe.order, cursor)
            whole = EpochPlan(cursor.epoch, sequence, geometry, cursor.origin)
            plans = whole.batches(len(whole) if start == sequence.length else step, cursor.delivered_beyond)
        elif around.sampler is not None:
            plans = self._drawn = DrawnPlans(around.sampler, geometry, cursor, batches=around.batches)
            plans = passing_over(plans, cursor.delivered_beyond)
        else:
            plans = passing_over(Unplanned(cursor.epoch, step), cursor.delivered_beyond)
            stream = StreamStart(geometry, origin=cursor.origin, position=start)
        if stream is None:
            self._length = length_of(self._dataset)
        workers = around.workers
        executor = workers.open(Role(recipe, cursor.epoch, stream), None if like is None else like.executor)
        try:
            in_order = workers.options.in_order or stream is not None  # a stream that is resumed is read in order
            window: Window[Outcome] = Window(workers.credits, in_order=in_order, max_nbytes=workers.max_nbytes)
            self._pipeline: Pipeline = Pipeline(plans, executor, window, ahead=workers.prefetches)
        except BaseException:
            executor.close()
            workers.end_epoch()
            raise

    @property
    def number(self) -> int:
        """Which epoch it is."""
        return self._cursor.epoch

    @property
    def executor(self) -> Executor:
        """What makes its batches."""
        return self._pipeline.executor

    @property
    def is_planned(self) -> bool:
        """Whether its workers get nothing more of it: all batches are made, or being made."""
        return self._pipeline.is_planned

    def is_current(self, recipe: Recipe) -> bool:
        """Whether dataset and functions, those of ``recipe``, are what they were when this epoch was opened."""
        return self._around.workers.is_current(self.executor, recipe)

    def prefetch(self, most: int) -> None:
        """Have at most so many batches more made before they are asked for."""
        self._pipeline.fill(most)

    def __next__(self) -> Any:
        """The next batch, handed over.

        Raises:
            StopIteration: the epoch is at its end.
            DatasetChanged: the dataset's length is not what it was when the epoch began.
        """
        self.make_ready()
        return self.hand_over()

    def make_ready(self) -> None:
        """Have the next batch here; raises as ``next()``."""
        if self._held is not None:
            return
        if self.ended:
            raise StopIteration
        try:
            self._take()
        except StopIteration as error:  # leaving next() it would end the epoch as if all had been delivered
            raise RuntimeError(
                f"the dataset, its sampler or its length raised StopIteration in epoch {self._cursor.epoch}; "
                f"raise an error of your own"
            ) from error
        if self.ended:
            raise StopIteration

    def hand_over(self) -> Any:
        """The batch that is here, which counts as delivered now; nothing is called, and Ctrl-C does not come."""
        assert self._held is not None
        value, delivered, self._mark = self._held
        self._before, self._delivered, self._held = self._delivered, delivered, None
        self._digest.total += self._mark
        return value

    def take_back(self, value: Any) -> None:
        """Ctrl-C came before a batch that was handed over reached the user: the next one is that."""
        if not self._closed and self._held is None:
            self._held, self._delivered = (value, self._delivered, self._mark), self._before
            self._digest.total -= self._mark

    def _take(self) -> None:
        if self._length is not None and len(self._dataset) != self._length:
            raise DatasetChanged(
                f"the dataset had {self._length} samples when epoch {self._cursor.epoch} began and has "
                f"{len(self._dataset)} now; change it between epochs, or begin a new iteration after changing it"
            )
        while self._held is None:
            outcome = self._outcome
            if outcome is None:
                outcome = self._outcome = self._pipeline.take()
            if outcome is None:
                self.ended = True
                self._counters.epoch_ended()
                self.close()
                return
            try:
                self._account(outcome)
                held = self._valued(outcome)
            except Exception:
                self._outcome = None
                raise
            self._held, self._outcome = held, None

    def _account(self, outcome: Outcome) -> None:
        """Count an outcome, once."""
        batch, plan = outcome.batch, outcome.task.plan
        self._tally.count(plan.step, plan.until if batch is None else batch.until)
        if (self._budget is None and not outcome.failures) or outcome is self._accounted:
            return
        self._accounted = outcome
        self._counters.failed(len(outcome.failures))
        if self._budget is not None:
            read = max(len(plan.indices), len(outcome.failures)) if batch is None else batch.samples
            self._budget.spend(outcome.failures, read)

    def _valued(self, outcome: Outcome) -> tuple[Any, _Delivered, int] | None:
        """What is to be handed over, where we stand then, and its mark; None where nothing is left of the batch."""
        if outcome.error is not None:
            raise outcome.error
        batch = outcome.batch
        assert batch is not None
        if not self._keeps_empty and is_empty(batch.value):
            self._before = self._delivered = self._standing()
            self._counters.passed_over()  # the user's collate dropped all samples: there is nothing to deliver
            return None
        value, samples = batch.value, batch.samples
        if self._deliver is not None:
            value = self._deliver(value)
        if outcome.failures and self.recipe.policy.action == "skip":
            samples -= len(outcome.failures)
        failed = [each.index for each in outcome.failures] if outcome.failures else ()
        held = value, self._standing(), mark(outcome.task.plan, batch.until, samples, failed)
        self._counters.delivered(samples)
        return held

    def cursor(self) -> Cursor:
        """How far the epoch was delivered."""
        position, state, undelivered = self._delivered
        length = self._cursor.length
        if length is None and self._drawn is not None and (position - self._cursor.origin) % self._cursor.span:
            length = position  # a short step is the last; an end that was seen by drawing ahead does not count
        return replace(self._cursor, position=position, length=length, sampler_state=state, undelivered=undelivered)

    def _standing(self) -> _Delivered:
        tally = self._tally
        state = None if self._drawn is None else self._drawn.state_before(tally.first_missing)
        return tally.until, state, tuple(sorted(tally.missing)) if tally.missing else ()

    def close(self) -> None:
        """Stop what the epoch started, and let go of it: an open stream, a user's sampler. May be called again."""
        self._cursor = self.cursor()
        self._drawn = self._held = self._outcome = self._accounted = None
        self._pipeline.close()
        if not self._closed:
            self._closed = True
            self._around.workers.end_epoch()
