"""The pipeline: plans go in at one end, batches come out at the other, each once and in order.

Guarantee: the window decides what may be under way and what leaves; the executor makes; this file only carries between
them. An error takes its batch's place in the order, and the next call goes on with the next batch. After Ctrl-C,
wherever it came, the next call goes on with nothing lost or repeated: what is on its way from one to the next is kept
until it has arrived.
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
        ahead: whether batches are made before they are asked for.

    Attributes:
        is_planned: whether all batches are under way, delivered or waiting: no worker gets anything more of this epoch.
    """

    def __init__(
        self, plans: Iterator[BatchPlan], executor: Executor, window: Window[Outcome], *, ahead: bool = False
    ) -> None:
        self._plans: Iterator[BatchPlan] | None = plans
        self._planned: BatchPlan | None = None  # and not submitted
        self._collected: Outcome | None = None  # and not known to the window
        self.executor = executor
        self._window = window
        self._ahead = ahead
        self.is_planned = False
        self._taken: Outcome | None = None  # released and not handed over
        self._stalled: Exception | None = None

    def take(self) -> Outcome | None:
        """What came of the next task: a batch, or an error. None when the epoch is at its end.

        Raises:
            Exception: what the plans' source raised, a user's sampler, once all that was planned before is delivered.
        """
        if self._taken is None:
            self._taken = self._next()
        if self._ahead and self._taken is not None and self._window.has_room:
            self.fill()  # the workers shall have something to do while this batch is used
        outcome, self._taken = self._taken, None
        return outcome

    def _next(self) -> Outcome | None:
        window = self._window
        while True:
            while (outcome := window.release()) is None:
                if window.has_room or self._planned is not None:  # one was admitted, and Ctrl-C came
                    self.fill()
                    if window.is_empty:
                        stalled, self._stalled = self._stalled, None
                        if stalled is not None:
                            raise stalled
                        return None
                self._hear()
            if outcome.error is not None or outcome.batch is not None:
                return outcome
            # The stream had ended; what was planned beyond its end comes back empty as well.
            self._plans, self.is_planned = None, self._planned is None

    def _hear(self) -> None:
        """Wait for an outcome, and take all that have come."""
        window, executor = self._window, self.executor
        while True:
            outcome = self._collected
            if outcome is None:
                outcome = self._collected = executor.collect()
            window.complete(outcome.task.plan.step, outcome, 0 if outcome.batch is None else outcome.batch.nbytes)
            self._collected = None
            if not executor.has_outcome:
                return

    def fill(self, most: int | None = None) -> int:
        """Have batches made, as many as the window allows, at most ``most``; how many."""
        window, begun = self._window, 0
        while begun != most:
            plan = self._planned
            if plan is None:
                if self._plans is None or self._stalled is not None or not window.may_admit:
                    break
                try:
                    plan = self._planned = self._plans.__next__()  # not next(), after which Ctrl-C may come
                except StopIteration:
                    self._plans, self.is_planned = None, True
                    break
                except Exception as error:  # noqa: BLE001 -- of a user's sampler; raised at its turn
                    self._stalled = error
                    break
                window.admit(plan.step)
            elif plan.step not in window:  # Ctrl-C came before it was admitted
                window.admit(plan.step)
            self.executor.submit(Task(plan))
            self._planned = None
            if self._plans is None:
                self.is_planned = True
            begun += 1
        return begun

    def close(self) -> None:
        """Take in no more plans and stop the executor. May be called again."""
        self._plans = self._planned = self._collected = self._taken = None
        self.is_planned = True
        self._window.forget()  # batches that nobody will take
        self.executor.close()
