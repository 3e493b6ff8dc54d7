"""Who makes the batches: the seam for executors, and the one that works in the calling thread.

Guarantee: every submitted task comes back from `collect` with an outcome, in any order; a task whose making was
interrupted (Ctrl-C) is still there and is made at the next `collect`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from feedline.engine.task import Maker, Outcome, Role, Task

__all__ = ["Backend", "Executor", "Pool", "PooledExecutor", "SerialExecutor"]


class Executor(Protocol):
    """Makes batches out of tasks."""

    @property
    def has_outcome(self) -> bool:
        """Whether `collect` would return at once, as far as is known without asking anybody."""

    def submit(self, task: Task) -> None:
        """Take a task; returns at once. Ctrl-C may come in between: it is then submitted again."""

    def collect(self) -> Outcome:
        """Wait for an outcome of any task that was submitted and not collected yet."""

    def close(self) -> None:
        """Stop, and give up tasks that were not collected. May be called again."""


class Backend(Protocol):
    """Where batches are made: in the calling thread, by threads, by processes. It lives from epoch to epoch.

    Attributes:
        num_workers: how many batches it can make at a time; 0: the calling thread makes them when they are collected.
    """

    num_workers: int

    def open(self, role: Role) -> Executor:
        """An executor for one epoch. Several may be open at once, and share the workers."""

    def close(self) -> None:
        """Stop all workers. May be called again."""


class PooledExecutor(Executor, Protocol):
    """An executor of a pool, which others may be waited for together with."""

    def poll(self) -> Outcome | None:
        """The outcome of a task that was not collected yet, if there is one; never waits."""


class Pool(Backend, Protocol):
    """Workers that several executors share: what a stream, whose stages are executors, needs.

    Attributes:
        shares_memory: whether the workers are threads of this process, and not processes that items are sent to.
    """

    shares_memory: bool

    def open(self, role: Role, *, pinned: int | None = None, like: PooledExecutor | None = None) -> PooledExecutor:
        """An executor for one epoch.

        Args:
            role: what its tasks are.
            pinned: the number of the worker that does all its tasks, one after the other in the order of submission,
                and has one maker for them as long as it lives; their outcomes arrive in that order. None: any worker.
            like: one of this pool that was opened just now with the same recipe, which is not looked at again then.
        """

    def wait(self, executors: Sequence[PooledExecutor]) -> None:
        """Wait until one of these executors has an outcome; at once where one has. Ctrl-C loses none."""


class SerialExecutor:
    """Makes each batch in the calling thread, when it is collected."""

    def __init__(self, maker: Maker) -> None:
        self._maker: Maker | None = maker
        self._tasks: dict[int, Task] = {}  # by step: one that is submitted again after Ctrl-C is there once

    @property
    def has_outcome(self) -> bool:
        """Never: nothing is made before it is collected."""
        return False

    def submit(self, task: Task) -> None:
        """Remember the task."""
        self._tasks[task.plan.step] = task

    def collect(self) -> Outcome:
        """Make the oldest task's batch."""
        assert self._maker is not None
        step = next(iter(self._tasks))
        outcome = self._maker.make(self._tasks[step])
        if step in self._tasks:  # the user's code may have closed the loader
            del self._tasks[step]  # no call, after which Ctrl-C could come before the outcome is returned
        return outcome

    def close(self) -> None:
        """Forget the tasks, and the maker with what it holds open."""
        self._tasks.clear()
        self._maker = None
