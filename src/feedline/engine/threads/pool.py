"""Batches made by threads of this process.

Guarantee: every submitted task comes back from `collect`; what threads made stays until it is collected, also when
Ctrl-C interrupts the waiting. Executors share the threads and know nothing of each other. The threads end with their
pool. A process forked meanwhile has none of them, and starts its own.
"""

from __future__ import annotations

import threading
import weakref
from collections import deque
from contextlib import suppress
from itertools import count
from queue import Empty, SimpleQueue
from time import monotonic
from typing import TYPE_CHECKING, Any, cast

from feedline.checks import integer
from feedline.engine.making import MapMaker
from feedline.engine.streams.making import stream_maker
from feedline.engine.task import Outcome
from feedline.engine.threads.crew import Crew, Job, Rules
from feedline.engine.threads.splitting import SplitBatch, is_splittable, parts_of
from feedline.engine.worker import WorkerInfo
from feedline.errors import WorkerError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from feedline.engine.arena import Arena
    from feedline.engine.executor import PooledExecutor
    from feedline.engine.task import Maker, Role, Task
    from feedline.engine.threads.crew import Worker

__all__ = ["ThreadExecutor", "ThreadPool"]

_WORTH_SPLITTING_S = 0.004  # a part costs some 0.02 ms of bookkeeping: nothing to a batch that takes as long
_FAREWELL_S = 0.5  # how long closing waits, in all, for samples under way: with all else it is to take a second at most


class ThreadPool:
    """Threads that make batches, from epoch to epoch; the first task starts them.

    Args:
        num_workers: how many threads; what is pinned, as the reader of a stream is, has a further one of its own.
        arena: the memory that batches are made in.
        timeout_s: seconds that a batch may take from when a thread begins it; 0: any time.
        worker_init_fn: called in each thread with its number, before its first task.

    Raises:
        ValueError: ``num_workers`` is no positive integer.
    """

    shares_memory = True

    def __init__(
        self,
        num_workers: int,
        *,
        arena: Arena,
        timeout_s: float = 0,
        worker_init_fn: Callable[[int], object] | None = None,
    ) -> None:
        self.num_workers = integer("num_workers", num_workers, least=1)
        self._rules = Rules(arena, timeout_s, worker_init_fn)
        self._crews: list[Crew] = []
        self._shared: Crew | None = None
        weakref.finalize(self, _stop, self._crews)  # also at the interpreter's exit

    def open(self, role: Role, *, pinned: int | None = None, like: PooledExecutor | None = None) -> ThreadExecutor:  # noqa: ARG002 -- all share the dataset
        """An executor for one epoch. Several may be open at once, and share the threads.

        What is pinned to a worker has a thread of its own: it waits for no other epoch's tasks, and what a stream holds
        open stays in the thread that opened it. A stream that is read and finished in one stage is always pinned.
        """
        self._crews[:] = [crew for crew in self._crews if not crew.is_over]
        if pinned is None and role.stream is not None and role.stream.stage != "finish":
            pinned = 0
        if pinned is not None:
            number = pinned % self.num_workers
            return ThreadExecutor(self, self._hired(range(number, number + 1)), role, is_alone=True)
        if self._shared is None or self._shared.stopped or not self._shared.is_here:
            self._shared = self._hired(range(self.num_workers))
        return ThreadExecutor(self, self._shared, role)

    def wait(self, executors: Sequence[PooledExecutor]) -> None:
        """Wait until one of these executors, of this pool, has an outcome; at once where one has. Ctrl-C loses none."""
        _await_any(cast("Sequence[ThreadExecutor]", executors))

    def _hired(self, numbers: range) -> Crew:
        crew = Crew(numbers, self._rules)
        self._crews.append(crew)
        return crew

    def close(self) -> None:
        """Close all executors and end all threads, within a second even if one hangs. May be called again."""
        _stop(self._crews)


def _stop(crews: list[Crew]) -> None:
    """End the threads of all crews, and wait a while for them. No lock: a finalizer may run anywhere."""
    for crew in crews:
        crew.stop()
    deadline = monotonic() + _FAREWELL_S
    for crew in crews:
        crew.join(deadline)
    crews.clear()  # what hangs is not waited for again


class ThreadExecutor:
    """One epoch's tasks, made by a crew.

    ``_open`` holds the tasks that have no outcome yet: taking one out decides, in one step, whose outcome counts.
    Outcomes wait in ``_arrived``; ``_signal`` only wakes who waits for them: nothing is lost with a token.

    Args:
        pool: whose executor it is.
        crew: whose threads make the batches.
        role: what they do.
        is_alone: whether the crew is there for this executor alone, and ends with it.
    """

    def __init__(self, pool: ThreadPool, crew: Crew, role: Role, *, is_alone: bool = False) -> None:
        self._pool: ThreadPool | None = pool  # which lives as long as an epoch of it does
        self._num_workers = pool.num_workers
        self._crew = crew
        self._role = role
        self._numbers = count()
        self._open: dict[int, Task] = {}
        self._arrived: deque[Outcome] = deque()
        self._signal: SimpleQueue[None] | None = None
        self._makers: dict[Worker, tuple[Maker, WorkerInfo]] = {}
        self._closed = False
        self._is_alone = is_alone
        self._splits = role.stream is None and is_splittable(role.recipe)
        self._first = pool.num_workers  # so many batches are split to begin with, one for each thread
        self._took_s = 0.0  # over the last batch
        crew.clients.add(self)

    def submit(self, task: Task) -> None:
        """Queue a task for the threads; start them if they are not there."""
        self._check_open()
        try:
            self._crew.start()
        except WorkerError as error:
            self._arrived.append(Outcome(task, error=error))
            return
        number = next(self._numbers)
        queueing = map(self._crew.jobs.put, self._jobs(number, task))
        self._open[number] = task
        list(queueing)  # one call of C, which Ctrl-C does not interrupt: all parts are queued, or none

    def _jobs(self, number: int, task: Task) -> list[Job]:
        """The first tasks are split, that a batch is there soon, and all that take long, that no thread idles last."""
        if self._splits and (self._first or self._took_s > _WORTH_SPLITTING_S):
            self._first = max(0, self._first - 1)
            parts = parts_of(len(task.plan.indices), self._num_workers)
            if parts > 1:
                split = SplitBatch(task, parts, self._crew.rules.arena)
                return [Job(self, number, task, split, part) for part in range(parts)]
        return [Job(self, number, task)]

    def collect(self) -> Outcome:
        """Wait for an outcome."""
        while True:
            outcome = self.poll()
            if outcome is not None:
                return outcome
            _await_any((self,))

    @property
    def has_outcome(self) -> bool:
        """Whether an outcome is there."""
        return bool(self._arrived)

    def poll(self) -> Outcome | None:
        """An outcome that is there, or None."""
        if not self._arrived:
            return None
        outcome = self._arrived[0]
        del self._arrived[0]  # no call, after which Ctrl-C could come before the outcome is returned
        return outcome

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("the loader was closed: iterate over it again for a new epoch")

    def close(self) -> None:
        """Give up all tasks: those not begun are passed over, those under way end after the present sample."""
        self._closed = True
        self._pool = None
        self._open.clear()
        self._arrived.clear()
        for maker, _ in list(self._makers.values()):
            _give_up(maker)
        self._makers.clear()
        if self._crew.is_here:
            self._wake()
            if self._is_alone and not self._crew.stopped:
                self._crew.stop()

    def _wake(self) -> None:
        signal = self._signal
        if signal is not None:
            signal.put(None)

    def wants(self, job: Job) -> bool:
        """Whether a job's task has no outcome yet."""
        return job.number in self._open

    def deliver(self, job: Job, outcome: Outcome, took_s: float) -> None:
        """Take an outcome from a thread; drop it if the task has one, or was given up."""
        self._took_s = took_s if job.split is None else took_s * job.split.parts
        if job.split is not None and job.split.broken:
            self._splits = False  # its parts did not fit together; those of the next would not either
        if self._open.pop(job.number, None) is not None:
            self._arrived.append(outcome)
            self._wake()

    def fail(self, job: Job, worker: Worker) -> None:
        """A thread hangs in a job: say so, and let go of the thread. Should it come back, it ends soon."""
        if self.wants(job):
            self._arrived.append(Outcome(job.task, error=worker.hung_error(job.task)))  # before Ctrl-C may come
            self._open.pop(job.number, None)
            self._wake()
        made = self._makers.pop(worker, None)
        if made is not None:
            _give_up(made[0])

    def maker(self, worker: Worker) -> tuple[Maker, WorkerInfo]:
        """A thread's own maker, and what the user's code is told of the thread."""
        made = self._makers.get(worker)
        if made is None:
            recipe = self._role.recipe
            info = WorkerInfo(worker.number, self._num_workers, recipe.seed, recipe.dataset)
            made = self._makers[worker] = _maker(self._role, self._crew.rules.arena, worker.where), info
            if self._closed:
                _give_up(made[0])
        return made

    def patience_s(self) -> float | None:
        """How long to wait for a signal at most before asking again; None: as long as it takes.

        Raises:
            RuntimeError: the executor is closed.
            WorkerError: the process was forked from that of the threads.
        """
        self._check_open()
        crew = self._crew
        if not crew.is_here:
            crew.start()  # which says so
        return min(crew.give_up_hung(), threading.TIMEOUT_MAX) if crew.rules.timeout_s else None

    def listen(self, signal: SimpleQueue[None] | None) -> bool:
        """Have what arrives from now on announced there; whether something has arrived before."""
        self._signal = signal
        return bool(self._arrived)


def _await_any(executors: Sequence[ThreadExecutor]) -> None:
    """Wait until an outcome of one of the executors has arrived."""
    signal: SimpleQueue[None] = SimpleQueue()
    try:
        while not any(executor.listen(signal) for executor in executors):
            patiences = [executor.patience_s() for executor in executors]
            with suppress(Empty):
                signal.get(timeout=min((each for each in patiences if each is not None), default=None))
    finally:
        for executor in executors:
            executor.listen(None)


def _maker(role: Role, arena: Arena, where: str) -> Maker:
    """What makes an epoch's batches in one thread."""
    if role.stream is not None:
        return stream_maker(role, arena, where=where, seeds_globals=False)
    return MapMaker(role.recipe, arena, where=where, seeds_globals=False)


def _give_up(maker: Any) -> None:
    """End a maker's batch under way."""
    maker.give_up()
