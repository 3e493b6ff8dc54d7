"""One epoch's tasks at the pool: an executor that shares the workers with those of other epochs.

Guarantee: each task that was submitted comes back once, whatever number of workers made it.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Protocol

from feedline.engine.task import Outcome

if TYPE_CHECKING:
    from collections.abc import Sequence

    from feedline.engine.task import Role, Task

__all__ = ["Session"]


_CLOSED = "the loader was closed: iterate over it again for a new epoch"


class _Pool(Protocol):
    def submit(self, session: Session, task: Task) -> None: ...
    def turn(self, waiting: Sequence[Session] = ()) -> None: ...
    def leave(self, session: Session) -> None: ...


class Session:
    """An executor of the process pool.

    Attributes:
        number: by which parent and workers name it.
        role: what its workers do.
        shipment: the number of what they were sent for it.
        pinned: the one worker that does all of it, in order; None: any.
        pending: the tasks that are under way, by step.
        outcomes: what came of tasks and was not collected yet.
        has_failed: whether tasks have ended with an error that concerns the workers as a body.
    """

    def __init__(self, pool: _Pool, number: int, role: Role, *, shipment: int, pinned: int | None) -> None:
        self.number = number
        self.role = role
        self.shipment = shipment
        self.pinned = pinned
        self.pending: dict[int, Task] = {}
        self.outcomes: deque[Outcome] = deque()
        self.has_failed = False
        self._closed = False
        self._pool = pool

    def submit(self, task: Task) -> None:
        """Take a task; returns at once.

        Raises:
            RuntimeError: the executor is closed.
        """
        if self._closed:
            raise RuntimeError(_CLOSED)
        self._pool.submit(self, task)

    @property
    def has_outcome(self) -> bool:
        """Whether an outcome is here, of those that were heard of."""
        return bool(self.outcomes)

    def poll(self) -> Outcome | None:
        """An outcome, if there is one."""
        if not self.outcomes:
            self._pool.turn()
        return self._next() if self.outcomes else None

    def collect(self) -> Outcome:
        """Wait for an outcome of any task that was submitted and not collected yet."""
        while not self.outcomes:
            if self._closed:
                raise RuntimeError(_CLOSED)
            if not self.pending:
                raise RuntimeError("nothing is under way: no task was submitted, or the loader was closed meanwhile")
            self._pool.turn((self,))
        return self._next()

    def _next(self) -> Outcome:
        outcome = self.outcomes[0]
        del self.outcomes[0]  # no call, after which Ctrl-C could come before the outcome is returned
        return outcome

    def put(self, outcome: Outcome) -> None:
        """Take an outcome, if it is the first one for its task."""
        step = outcome.task.plan.step
        if step in self.pending:
            del self.pending[step]  # nothing is called from here on, and Ctrl-C does not come
            self.outcomes += (outcome,)

    def fail(self, error: Exception) -> None:
        """End all that is under way with an error."""
        for task in list(self.pending.values()):
            self.has_failed = True
            self.put(Outcome(task, error=error))

    def close(self) -> None:
        """Give up what is under way. May be called again."""
        self._closed = True
        self.pending.clear()
        self.outcomes.clear()
        self._pool.leave(self)
