"""A crew: threads that make batches out of one queue of jobs.

Guarantee: whatever a job's code does, return, raise or hang past the deadline, its client hears of it. A thread that
hangs in the user's code cannot be killed: it is given up, a fresh one takes its place, and what it brings later is
dropped. Threads are daemons that wait without polling. A crew knows nobody but the clients of its jobs.
"""

from __future__ import annotations

import os
import sys
import threading
import traceback
import weakref
from queue import SimpleQueue
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from feedline.engine.keys import GivenUp
from feedline.engine.making import MapMaker, add_note, located, no_exception
from feedline.engine.task import Outcome
from feedline.engine.worker import WorkerInfo, entered
from feedline.errors import WorkerError
from feedline.frameworks import is_array
from feedline.tree import kind_of, values_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from feedline.engine.arena import Arena
    from feedline.engine.task import Batch, Maker, Task
    from feedline.engine.threads.splitting import SplitBatch

__all__ = ["Client", "Crew", "Job", "Rules", "Worker"]


class Client(Protocol):
    """Whose jobs a crew does: the executor of an epoch. Called from any thread."""

    def wants(self, job: Job) -> bool:
        """Whether a job's task has no outcome yet."""

    def maker(self, worker: Worker) -> tuple[Maker, WorkerInfo]:
        """A thread's own maker, and what the user's code is told of the thread."""

    def deliver(self, job: Job, outcome: Outcome, took_s: float) -> None:
        """Take an outcome, unless the job's task has one; its thread worked on it for so long, on a part of it."""

    def fail(self, job: Job, worker: Worker) -> None:
        """Hear that a thread hangs in a job; let go of the thread."""

    def close(self) -> None:
        """Want nothing any more."""


class Rules(NamedTuple):
    """What all threads of a pool work by."""

    arena: Arena
    timeout_s: float
    init: Callable[[int], object] | None


class Job(NamedTuple):
    """A task, or a part of one, for one thread; ``number`` is the client's, for the task."""

    client: Client
    number: int
    task: Task
    split: SplitBatch | None = None
    part: int = 0


class Crew:
    """Some threads over one queue of jobs.

    It does not know its pool, so that threads do not keep a pool alive that nobody uses.

    Args:
        numbers: of its workers.
        rules: what they work by.
    """

    def __init__(self, numbers: range, rules: Rules) -> None:
        self.numbers = numbers
        self.rules = rules
        self.pid = os.getpid()
        self.stopped = False
        self.jobs: SimpleQueue[Job | None] = SimpleQueue()
        self.clients: weakref.WeakSet[Client] = weakref.WeakSet()
        self.lock = threading.Lock()  # over who works at what since when
        self._workers: dict[int, Worker] = {}

    @property
    def is_here(self) -> bool:
        """Whether the threads are of this process, and not of the one that it was forked from."""
        return self.pid == os.getpid()

    @property
    def is_over(self) -> bool:
        """Whether all threads have ended that were told to."""
        return self.stopped and not any(worker.is_alive() for worker in list(self._workers.values()))

    def start(self) -> None:
        """Start the threads that are missing: all of them at first, later those given up.

        Raises:
            WorkerError: the system refuses, or the process was forked.
        """
        if not self.is_here:
            raise WorkerError(
                "the threads of this iterator stayed behind when the process was forked; begin a new iteration here"
            )
        if len(self._workers) == len(self.numbers):
            return
        with self.lock:
            for number in self.numbers:
                if number in self._workers:
                    continue
                worker = Worker(self, number)
                try:
                    worker.start()
                except RuntimeError as error:
                    raise WorkerError(
                        f"the thread of worker {number} could not be started: {error}; lower num_workers"
                    ) from error
                self._workers[number] = worker

    def give_up_hung(self) -> float:
        """Give up the threads that are past their deadline; the seconds until one can be so next, at least 0.

        Ctrl-C in here may lead to a second outcome of a task, which the window refuses, but never to none.
        """
        timeout_s, now = self.rules.timeout_s, monotonic()
        first = now + timeout_s
        with self.lock:
            for worker in list(self._workers.values()):
                job, deadline = worker.job, worker.begun + timeout_s
                if job is not None and deadline > now:
                    first = min(first, deadline)
                elif job is not None:
                    job.client.fail(job, worker)
                    if job.split is not None:
                        job.split.broken = True
                    worker.given_up = True
                    del self._workers[worker.number]
        self.start()
        return max(first - monotonic(), 0)

    def stop(self) -> None:
        """Close the clients, and let each thread end after its present sample."""
        self.stopped = True
        for client in list(self.clients):
            client.close()
        if self.is_here:
            self.jobs.put(None)

    def join(self, deadline: float) -> None:
        """Wait for the threads' end, up to a time of the monotonic clock."""
        for worker in list(self._workers.values()) if self.is_here else ():
            if worker is not threading.current_thread():  # the user's code may close the loader
                worker.join(max(deadline - monotonic(), 0))


class Worker(threading.Thread):
    """A thread of a crew."""

    def __init__(self, crew: Crew, number: int) -> None:
        super().__init__(name=f"feedline worker {number}", daemon=True)
        self._crew = crew
        self.number = number
        self.where = f"worker {number}"
        self.job: Job | None = None
        self.begun = 0.0
        self.given_up = False
        self._init = crew.rules.init
        self._init_error: Exception | None = None

    def run(self) -> None:
        """Do jobs until the crew stops, or this thread is given up."""
        jobs = self._crew.jobs
        while not self.given_up:
            job = jobs.get()
            if job is None:
                jobs.put(None)  # for the next thread
                return
            self._do(job)
            del job  # or the wait for the next one would keep this one's memory

    def _do(self, job: Job) -> None:
        client = job.client
        if not client.wants(job):
            return
        with self._crew.lock:
            self.job, self.begun = job, monotonic()
        began = self.begun
        outcome = self._outcome(job)
        with self._crew.lock:
            self.job = None
            if self.given_up:
                return
        if outcome is not None:
            client.deliver(job, outcome, monotonic() - began)

    def _outcome(self, job: Job) -> Outcome | None:
        """What comes of a job; None where it is not for this thread to say."""
        task = job.task
        try:
            maker, info = job.client.maker(self)
            with entered(info):
                self._initialise()
                made = self._made(job, maker) if self._init_error is None else Outcome(task, error=self._init_error)
        except GivenUp:
            return None
        except Exception as error:  # noqa: BLE001 -- a dataset may raise whatever it is asked
            return Outcome(task, error=located(error, task.plan, self.where))
        except BaseException as error:  # noqa: BLE001 -- SystemExit and its like: others wait for this thread
            return Outcome(task, error=no_exception(error, task.plan, self.where))
        return made if made is None or made.batch is None else _measured(made, made.batch)

    def _made(self, job: Job, maker: Maker) -> Outcome | None:
        if job.split is None:
            return maker.make(job.task)
        assert isinstance(maker, MapMaker)
        if not job.split.make(job.part, maker):
            return None
        self.begun = monotonic()  # it may be made again, whole
        return job.split.finish(maker)

    def _initialise(self) -> None:
        init, self._init = self._init, None
        if init is None:
            return
        try:
            init(self.number)
        except BaseException as error:  # noqa: BLE001 -- the user's; raised where its batch is collected
            if isinstance(error, Exception) and not isinstance(error, StopIteration):
                add_note(error, f"in worker_init_fn of {self.where}")
                self._init_error = error
            else:  # it would end the epoch, or the program
                self._init_error = WorkerError(
                    f"worker_init_fn raised {type(error).__name__} in {self.where}; raise an error of your own"
                )
                self._init_error.__cause__ = error

    def hung_error(self, task: Task) -> WorkerError:
        """What is said of this thread when it is past its deadline, with its present stack."""
        assert self.ident is not None
        frame = sys._current_frames().get(self.ident)  # noqa: SLF001 -- documented; how to see another thread's stack
        stack = "".join(traceback.format_stack(frame)) if frame is not None else ""
        return WorkerError(
            f"epoch {task.plan.epoch}, step {task.plan.step} timed out after {self._crew.rules.timeout_s:g} seconds in "
            f"{self.where}, which is given up; if it is only slow, give a larger timeout. It was at (most recent call "
            f"last):\n{stack}"
        )


def _measured(outcome: Outcome, batch: Batch) -> Outcome:
    """The outcome with its batch's ``nbytes``."""
    return outcome._replace(batch=batch._replace(nbytes=_nbytes(batch.value)))


def _nbytes(value: Any) -> int:
    """The memory of the arrays and tensors in a batch; what is unknown counts as nothing."""
    if isinstance(value, np.ndarray):
        return value.nbytes
    try:
        if is_array(value):
            return int(value.nbytes)
        if type(value) is list and value and isinstance(value[0], str | bytes):  # text, which may be long
            return 0
        return sum(map(_nbytes, values_of(value))) if kind_of(value) is not None else 0
    except Exception:  # noqa: BLE001 -- a sparse tensor, a user's container: the number is for a budget only
        return 0
