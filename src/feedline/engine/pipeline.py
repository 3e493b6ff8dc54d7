"""The pipeline: plans go in at one end, batches come out at the other, each once and in order.

Guarantee: the window decides what may be under way and what leaves; the executor makes; this file only carries between
them. An error takes its batch's place in the order, and the next call goes on with the next batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from feedline.engine.task import Outcome, Task

if TYPE_CHECKING:
    from collections.abc import Iterator

    from feedline.engine.executor import Executor
    from feedline.engine.window import Window
    from feedline.order.plan import BatchPlan

__all__ = ["Pipeline"]


class Pipeline:
    """One epoch's batches.

    Args:
        plans: the batches to be made, in order.
        executor: makes them.
        window: how many may be under way, and in which order they leave.
    """

    def __init__(self, plans: Iterator[BatchPlan], executor: Executor, window: Window[Outcome]) -> None:
        self._plans: Iterator[BatchPlan] | None = plans
        self._executor = executor
        self._window = window

    def take(self) -> Outcome | None:
        """What came of the next task: a batch, or an error. None when the epoch is at its end."""
        window = self._window
        while not window.ready:
            self._fill()
            if window.is_empty:
                return None
            outcome = self._executor.collect()
            window.complete(outcome.task.plan.step, outcome)
        outcome = window.release()
        if outcome.error is None and outcome.batch is None:
            # The stream had ended; what was planned beyond its end comes back empty as well.
            self._plans = None
            return self.take()
        return outcome

    def _fill(self) -> None:
        while self._plans is not None and self._window.free:
            plan = next(self._plans, None)
            if plan is None:
                self._plans = None
                return
            self._window.admit(plan.step)
            self._executor.submit(Task(plan))

    def close(self) -> None:
        """Take in no more plans and stop the executor. May be called again."""
        self._plans = None
        self._executor.close()
