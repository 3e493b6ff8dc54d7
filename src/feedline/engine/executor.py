"""Who makes the batches: the seam for executors, and the one that works in the calling thread.

Guarantee: every submitted task comes back from `collect` with an outcome, in any order; a task whose making was
interrupted (Ctrl-C) is still there and is made at the next `collect`.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from feedline.engine.task import Maker, Outcome, Task

__all__ = ["Executor", "SerialExecutor"]


class Executor(Protocol):
    """Makes batches out of tasks."""

    def submit(self, task: Task) -> None:
        """Take a task; returns at once."""

    def collect(self) -> Outcome:
        """Wait for an outcome of any task that was submitted and not collected yet."""

    def close(self) -> None:
        """Stop, and give up tasks that were not collected. May be called again."""


class SerialExecutor:
    """Makes each batch in the calling thread, when it is collected."""

    def __init__(self, maker: Maker) -> None:
        self._maker: Maker | None = maker
        self._tasks: deque[Task] = deque()

    def submit(self, task: Task) -> None:
        """Remember the task."""
        self._tasks.append(task)

    def collect(self) -> Outcome:
        """Make the oldest task's batch."""
        assert self._maker is not None
        outcome = self._maker.make(self._tasks[0])
        if self._tasks:  # the user's code may have closed the loader
            self._tasks.popleft()
        return outcome

    def close(self) -> None:
        """Forget the tasks, and the maker with what it holds open."""
        self._tasks.clear()
        self._maker = None
