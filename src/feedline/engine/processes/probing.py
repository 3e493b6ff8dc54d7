"""A batch that kills its workers, looked into sample by sample in a process that may die.

Guarantee: each sample is read once, alone; the first that ends its process is the culprit. If there is none the whole
batch is made once more. The other workers go on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from feedline.order.plan import BatchPlan

if TYPE_CHECKING:
    from feedline.engine.processes.deaths import Death
    from feedline.engine.processes.session import Session
    from feedline.engine.task import Task

__all__ = ["Probe"]


class Probe:
    """The samples of a batch, one after the other.

    Args:
        session: whose batch it is.
        task: the batch.
        death: how the last worker ended that made it.
    """

    def __init__(self, session: Session, task: Task, death: Death) -> None:
        self.session = session
        self.task = task
        self.death = death
        self._place = -1

    @property
    def is_at_whole(self) -> bool:
        """Whether no sample is under suspicion alone: the batch is."""
        return self._place == len(self.task.plan.indices)

    @property
    def position(self) -> int:
        """The global position of the sample under suspicion."""
        return self.task.plan.position + self._place

    def next(self) -> Task | None:
        """The task of reading the next sample alone, or at last of making the batch; None after that."""
        plan = self.task.plan
        self._place += 1
        if self._place >= len(plan.indices):
            return self.task if self.is_at_whole else None
        indices = plan.indices[self._place : self._place + 1]
        items = self.task.items
        if items is not None:  # of a stream, one for each index
            items = items[self._place : self._place + 1]
        return self.task._replace(
            plan=BatchPlan(plan.epoch, plan.step, indices, self.position, plan.until), items=items
        )
