"""One epoch of a loader, under way: where its plans come from, and how far it was delivered.

Guarantee: a loader makes an `Epoch` at the first ``next()``; nothing is read, drawn or started before (contract 8).
Its cursor moves with each delivery, never with what was planned or made ahead (contract 3).
"""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING, Any

from feedline.engine.executor import SerialExecutor
from feedline.engine.making import MapMaker
from feedline.engine.pipeline import Pipeline
from feedline.engine.policy import ErrorPolicy, FailureBudget
from feedline.engine.stream import StreamMaker
from feedline.engine.window import Window
from feedline.errors import DatasetChanged
from feedline.order.drawn import DrawnPlans
from feedline.order.plan import BatchPlan, EpochPlan
from feedline.protocols import length_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from feedline.engine.arena import Arena
    from feedline.engine.task import Maker, Outcome, Recipe
    from feedline.order.cursor import Cursor
    from feedline.order.plan import Geometry

__all__ = ["Epoch"]


class Epoch:
    """The batches of one epoch from a cursor on.

    Args:
        recipe: how batches are made.
        arena: the memory they are made in.
        geometry: how the epoch is cut and dealt.
        cursor: where to begin.
        sampler: a user's sampler, or batch sampler, used where the recipe does not know the order; None for a stream.
        batches: whether that sampler yields whole batches.
        deliver: what is done to each batch before it is handed out, or None.
    """

    def __init__(  # noqa: PLR0913 -- what a loader wires together
        self,
        recipe: Recipe,
        arena: Arena,
        geometry: Geometry,
        cursor: Cursor,
        *,
        sampler: Any = None,
        batches: bool = False,
        deliver: Callable[[Any], Any] | None = None,
    ) -> None:
        self._deliver = deliver
        self._dataset = recipe.dataset
        self._cursor = cursor
        self._delivered = (cursor.position, cursor.sampler_state)  # one object: other threads may read it
        self._drawn: DrawnPlans | None = None
        self.ended = False
        self._budget = None if recipe.policy == ErrorPolicy() else FailureBudget(recipe.policy)
        self._length: int | None = None
        step = (cursor.position - cursor.origin) // geometry.span
        plans: Iterator[BatchPlan]
        maker: Maker
        if recipe.order is not None:
            whole = EpochPlan(cursor.epoch, recipe.order, geometry, cursor.origin)
            plans = whole.batches(len(whole) if cursor.position == recipe.order.length else step)
            maker = MapMaker(recipe, arena)
        elif sampler is not None:
            plans = self._drawn = DrawnPlans(sampler, geometry, cursor, batches=batches)
            maker = MapMaker(recipe, arena)
        else:
            plans = (BatchPlan(cursor.epoch, number, (), 0, 0) for number in count(step))
            maker = StreamMaker(recipe, arena, geometry, origin=cursor.origin, position=cursor.position)
        if isinstance(maker, MapMaker):
            self._length = length_of(self._dataset)
        window: Window[Outcome] = Window(credits=1)
        self._pipeline = Pipeline(plans, SerialExecutor(maker), window)

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
        outcome = self._pipeline.take()
        if outcome is None:
            self.ended = True
            self.close()
            return None
        batch, plan = outcome.batch, outcome.task.plan
        state = None if self._drawn is None else self._drawn.delivered(plan.step)
        if self._budget is not None:
            read = max(len(plan.indices), len(outcome.failures)) if batch is None else batch.samples
            self._budget.spend(outcome.failures, read)
        if outcome.error is not None:
            raise outcome.error
        assert batch is not None
        value = batch.value if self._deliver is None else self._deliver(batch.value)
        self._delivered = (batch.until, state)
        return value

    def cursor(self) -> Cursor:
        """How far the epoch was delivered."""
        length = self._cursor.length
        if length is None and self._drawn is not None:
            length = self._drawn.length
        position, sampler_state = self._delivered
        return replace(self._cursor, position=position, length=length, sampler_state=sampler_state)

    def close(self) -> None:
        """Stop what the epoch started, and let go of it: an open stream, a user's sampler. May be called again."""
        self._cursor = self.cursor()
        self._drawn = None
        self._pipeline.close()
