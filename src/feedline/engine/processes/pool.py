"""The pool: worker processes under one roof, led from inside ``next()``.

Guarantee (contracts 4 and 6): every task that was submitted comes back once, with a batch or an error, whatever happens
to the workers: one that dies, or hangs past its deadline, is replaced, and its tasks are done again; a batch over which
workers keep dying is looked into sample by sample, and the culprit is named. No thread, no signal handler, no lock
shared by processes. Several threads may use it, one at a time. After `ProcessPool.close` nothing is left.
"""

from __future__ import annotations

import os
import weakref
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from feedline.batching.registry import registrations
from feedline.engine.processes.cargo import Kit
from feedline.engine.processes.culprits import explained
from feedline.engine.processes.leading import Lead
from feedline.engine.processes.messages import Order
from feedline.engine.processes.session import Session
from feedline.engine.processes.slots import Quota
from feedline.engine.processes.starting import Starter
from feedline.engine.processes.turns import Turns
from feedline.engine.processes.watching import Watch
from feedline.engine.task import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from feedline.engine.processes.crew import Crew
    from feedline.engine.processes.member import Member
    from feedline.engine.task import Recipe, Role, Task

__all__ = ["ProcessPool"]

_ASKED = 4  # workers that are asked one by one whether they have something, before all are waited for
_SPARE_SLOTS = 8  # batches that a loop may hold before they are copied, beyond those on their way


class ProcessPool(Lead):
    """Worker processes that make batches. They start with the first task.

    Args:
        num_workers: how many.
        context: the user's multiprocessing context; None: the one that is best here.
        init: the user's ``worker_init_fn``, or None.
        timeout_s: how long a worker may take over a batch; 0: for ever.
        max_restarts: how many workers may be replaced.
        ahead: how many batches there may be under way for each worker.
        restarted: called for each worker that was replaced.
    """

    shares_memory = False

    def __init__(  # noqa: PLR0913 -- what a loader says of its workers
        self,
        num_workers: int,
        context: Any = None,
        *,
        init: Callable[[int], None] | None = None,
        timeout_s: float = 0,
        max_restarts: int = 8,
        ahead: int = 2,
        restarted: Callable[[], None] = lambda: None,
    ) -> None:
        quota = Quota(limit=num_workers * ahead + _SPARE_SLOTS, share=ahead + 3)
        super().__init__(num_workers, Starter(context), quota, Watch(timeout_s), max_restarts=max_restarts)
        self._init = init
        self._restarted = restarted
        self._opened = 0
        self._turns = Turns()
        self._left: deque[Session] = deque()  # closed where no message may be sent: amid another, or by the collector
        self._torn = False  # messages are being sent, or an interrupt or a fork came amid them: one may be lost
        self._pid = os.getpid()
        _pools.add(self)

    # ---------------------------------------------------------------------------------------------------- sessions

    def open(self, role: Role, *, pinned: int | None = None, like: Any = None) -> Session:
        """An executor for one epoch, of the dataset as it is now, or of that of another executor.

        Raises:
            CannotShip: a part of it cannot be sent to a worker process.
            WorkerError: there is no shared memory for it.
        """
        with self._turns:
            self._mend()
            known = None if like is None else (like.shipment, False, self._starter)
            shipment, is_new, self._starter = known or self._cargo.of(self._kit(role.recipe), self._starter)
            if is_new:
                with suppress(OSError):  # starting a worker will say so
                    self._starter.prepare(self._cargo[shipment].skeleton)
            if is_new and self._starter.method == "fork":
                self._torn = True  # other workers are needed: a lock is where it was when the worker was forked
            self._opened += 1
            session = self._sessions[self._opened] = Session(self, self._opened, role, shipment=shipment, pinned=pinned)
            self._drop_cargo()
        return session

    def is_current(self, session: Session, recipe: Recipe) -> bool:
        """Whether what the session was opened with is what ``recipe`` holds now; not if it has failed since."""
        return not session.has_failed and self._cargo.is_current(session.shipment, self._kit(recipe))

    def refresh(self) -> None:
        """Send the dataset again for the next session, whether or not it is seen to have changed."""
        self._cargo.forget()

    def leave(self, session: Session) -> None:
        """A session is over; the workers are told now, or when they are told the next thing."""
        self._left.append(session)
        self._settle()

    def _settle(self) -> None:
        """Take leave of sessions that are over, unless another call is under way that will."""
        while self._left and not self._torn and self._turns.acquire(blocking=False):
            try:
                while self._left:
                    self._dismiss(self._left.popleft())
            finally:
                self._turns.release()

    def _dismiss(self, session: Session) -> None:
        if self._sessions.pop(session.number, None) is None or os.getpid() != self._pid:
            return
        for member in self._crew or ():
            member.leave(session.number)
        for member, probe in self._probes.items():
            if probe.session is session:
                member.kill()
        self._drop_cargo()

    def _kit(self, recipe: Recipe) -> Kit:
        return Kit.of(recipe, self._init, registrations())

    def _drop_cargo(self) -> None:
        for number in self._cargo.keep({session.shipment for session in self._sessions.values()}):
            for member in self._crew or ():
                if number in member.shipments:
                    member.shipments.discard(number)
                    member.say(Order.FORGET, number)

    # ------------------------------------------------------------------------------------------------------- tasks

    def submit(self, session: Session, task: Task) -> None:
        """Give a task to the worker that has the least to do; to none if the session was closed by another thread."""
        turns = self._turns
        if not turns.acquire(blocking=False):
            turns.wait()
        try:
            if self._torn:
                self._mend()
            if session.number in self._sessions:
                self._torn = True
                session.pending[task.plan.step] = task
                try:
                    crew = self._crew
                    if crew is None or len(crew.members) < self.num_workers:
                        crew = self._started(session)
                    self._give(session, task, crew)
                except (OSError, MemoryError) as error:
                    self._fail(error)
                except Exception as error:  # noqa: BLE001 -- a user's sampler gives what cannot be pickled
                    session.put(Outcome(task, error=explained(task.plan.indices, "indices", error)))
                self._torn = False
        finally:
            turns.release()
        if self._left:
            self._settle()

    def wait(self, executors: Sequence[Any]) -> None:
        """Wait until one of these executors has an outcome, or none of them has anything under way."""
        while _await_any(executors):
            self.turn(executors)

    def turn(self, waiting: Sequence[Session] = ()) -> None:
        """Hear the workers, once; if sessions are ``waiting``, first wait a while until one speaks, or ought to."""
        turns = self._turns
        if not turns.acquire(blocking=False):
            turns.wait()
        try:
            if self._torn:
                self._mend()
            waits = _await_any(waiting)
            if waits and self._crew is not None and self.num_workers <= _ASKED:
                self._attend(self._crew, [each for each in self._crew.members.values() if each.tasks], ())
            if self._crew is not None and (not waits or _await_any(waiting)):
                self._listen(self._crew, waits=waits)
        finally:
            turns.release()
        if self._left:
            self._settle()
        if waits and _await_any(waiting):
            turns.give_way()

    def _listen(self, crew: Crew, *, waits: bool) -> None:
        patience_s = 0.0 if not waits else self._turns.at_most_s(self._watch.patience_s(crew), self._sessions.values())
        self._attend(crew, *crew.wait(patience_s))
        self._watch.warn()

    def _attend(self, crew: Crew, speaking: Iterable[Member], dead: Sequence[Member]) -> None:
        self._torn = self._crew is crew  # not if a signal handler has closed the loader
        try:
            super()._attend(crew, speaking, dead)
        except (OSError, MemoryError) as error:
            self._fail(error)
        self._torn = False

    # ---------------------------------------------------------------------------------------------------- ending

    def close(self) -> None:
        """Stop all workers. May be called again; a further task starts them anew."""
        if os.getpid() != self._pid:  # a forked copy: they are not its children
            return
        with self._turns:
            self._end_crew()
            self._torn = False
            for session in list(self._sessions.values()):
                session.close()
            self._cargo.close()
            self._starter.close()

    def forked(self) -> None:
        """This is a copy in a forked process: the workers are its parent's."""
        self._torn = True

    def _mend(self) -> None:
        """After an interrupt in the middle of things, or a fork: begin anew with other workers, and do all again."""
        if not self._torn:
            return
        if os.getpid() != self._pid:
            self._pid, self._crew = os.getpid(), None
        self._end_crew()
        while self._left:
            self._dismiss(self._left.popleft())
        try:
            for session in list(self._sessions.values()):
                for task in list(session.pending.values()):
                    self._give(session, task, self._started(session))
        except (OSError, MemoryError) as error:
            self._fail(error)
        self._torn = False


def _await_any(sessions: Sequence[Session]) -> bool:
    """Whether something is under way in these sessions, and nothing has come of any of them."""
    pending = False
    for session in sessions:
        if session.outcomes:
            return False
        pending = pending or bool(session.pending)
    return pending


_pools: weakref.WeakSet[ProcessPool] = weakref.WeakSet()


def _tell_copies() -> None:
    for pool in list(_pools):
        pool.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_tell_copies)
