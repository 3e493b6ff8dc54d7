"""What to say when a worker is dead, hung, or killed by what it was given.

Guarantee: a message names the worker, how it ended, what was in flight, and the likely cause with its remedy.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from feedline.errors import CannotShip, WorkerError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from feedline.engine.task import Task

__all__ = [
    "Death",
    "exhausted",
    "fork_lock",
    "killer_batch",
    "killer_sample",
    "never_ready",
    "out_of_memory_kills",
    "without_means",
]


@dataclass(frozen=True, slots=True)
class Death:
    """The end of a worker.

    Attributes:
        number, pid: which.
        code: its exit code; negative: the signal that killed it.
        late_s: the deadline that it missed, where that is why it was killed; else 0.
        peak_rss_kib: the most memory it had said it had; 0: it never said.
        memory_kills: how many processes the kernel had killed in this control group for want of memory since the pool
            began.
        stack: what it wrote down of its stack.
        tasks: what it was given and had not reported, the one that it was at first.
        was_ready: whether it had ever unpacked what it was sent.
        earlier: how a worker ended before, where this one may have waited for a lock which that one held.
    """

    number: int
    pid: int
    code: int | None
    late_s: float
    peak_rss_kib: int
    memory_kills: int
    stack: str
    tasks: tuple[Task, ...]
    was_ready: bool = True
    earlier: str = ""

    @property
    def brief(self) -> str:
        """Who, and how."""
        return f"worker {self.number} (process {self.pid}) {self._how()}"

    def __str__(self) -> str:
        parts = [self.brief]
        if self.tasks:
            flight = ", ".join(f"step {task.plan.step}" for task in self.tasks)
            plan = self.tasks[0].plan
            parts.append(f"it was at epoch {plan.epoch}, step {plan.step}{_listed(plan.indices)}; in flight: {flight}")
        if self.peak_rss_kib:
            parts.append(f"it had used up to {self.peak_rss_kib / 1024:,.0f} MiB of memory")
        if self.earlier:
            parts.append(f"before it, {self.earlier}: if that one held a lock of the dataset's, others wait in vain")
        text = "; ".join(parts)
        return f"{text}\n{self.stack}" if self.stack else text

    def _how(self) -> str:
        if self.late_s:
            what = "" if self.was_ready else " of starting up (unpacking the dataset, worker_init_fn)"
            return f"timed out after {self.late_s:g} seconds{what}, and was killed"
        if self.code is None:
            return "exited unexpectedly, with a status that nobody can know: this program ignores SIGCHLD"
        if self.code >= 0:
            return f"exited unexpectedly, with status {self.code}"
        try:
            name = signal.Signals(-self.code).name
        except ValueError:
            name = f"signal {-self.code}"
        how = f"was killed by {name}"
        if self.memory_kills:
            return f"{how}: the kernel ran out of memory and killed {self.memory_kills} processes in this group"
        if self.code == -getattr(signal, "SIGKILL", 9):
            return f"{how}, as the kernel does when memory runs out"
        return how


def _listed(indices: Sequence[Any] | NDArray[Any]) -> str:
    shown = [repr(_plain(index)) for index in indices[:5]]
    return f" (indices {', '.join(shown)}{', ...' if len(indices) > 5 else ''})" if shown else ""


def _plain(index: Any) -> Any:
    """An index with Python's numbers for NumPy's, whose repr names their type."""
    if type(index) in (tuple, list):
        return type(index)(map(_plain, index))
    return index.item() if isinstance(index, np.generic) else index


def exhausted(death: Death, max_restarts: int) -> WorkerError:
    """The error of a pool that has replaced as many workers as it may."""
    return WorkerError(
        f"DataLoader worker (pid(s) {death.pid}) exited unexpectedly: {death}. {max_restarts} workers were replaced "
        f"already (max_restarts={max_restarts}); use fewer workers, smaller batches, or raise max_restarts"
    )


def never_ready(death: Death, count: int) -> WorkerError:
    """The error of a pool none of whose workers gets ready in time."""
    return WorkerError(
        f"DataLoader worker (pid(s) {death.pid}) timed out: {count} workers in turn hung while they were made ready; "
        f"look at worker_init_fn and at what unpickling the dataset does, or raise timeout; the last one: {death}"
    )


def without_means(error: OSError | MemoryError) -> WorkerError:
    """The error of a pool that has no process, pipe, memory or descriptor to go on with."""
    failure = WorkerError(f"a worker process could not be started, told or heard: {error!r}")
    failure.__cause__ = error
    return failure


def killer_sample(task: Task, position: int, death: Death) -> str:
    """What there is to say of a sample that ends whichever worker reads it."""
    index = _plain(task.plan.indices[position - task.plan.position])
    return (
        f"sample index {index!r} (epoch {task.plan.epoch}, step {task.plan.step}) ends every worker that reads it; "
        f"read alone: {death}"
    )


def killer_batch(task: Task, death: Death) -> WorkerError:
    """The error of a batch that ends whichever worker makes it, though no sample of it does so alone."""
    named = f"the batch of epoch {task.plan.epoch}, step {task.plan.step} ended {task.attempt} workers"
    count = len(task.plan.indices)
    if not count:
        return WorkerError(f"{named}: look at what the stream reads there; the last one: {death}")
    return WorkerError(
        f"{named}, but none of its samples does so alone: look at collate_fn and batch_transform, and at the memory "
        f"and the time that its {count} samples need together; the last one: {death}"
    )


def fork_lock(path: str, method: str) -> CannotShip:
    """The error of a lock that only forked processes can have."""
    reason = "it was made in a fork context"
    remedy = f"make it by multiprocessing.get_context({method!r}), or give multiprocessing_context='fork'"
    message = f"{path} cannot be sent to a worker process started by {method!r}: {reason}; {remedy}"
    return CannotShip(message, path, reason, remedy)


def out_of_memory_kills() -> int:
    """How many processes of this control group the kernel has killed for want of memory."""
    try:
        for line in Path("/sys/fs/cgroup/memory.events").read_text(encoding="ascii").splitlines():
            name, _, count = line.partition(" ")
            if name == "oom_kill":
                return int(count)
    except (OSError, ValueError):
        pass
    return 0
