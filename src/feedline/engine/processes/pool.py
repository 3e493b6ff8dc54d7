"""The pool: worker processes under one roof, led from inside ``next()``.

Guarantee (contracts 4 and 6): every task that was submitted comes back once, with a batch or an error, whatever happens
to the workers: one that dies, or hangs past its deadline, is replaced, and its tasks are done again; a batch over which
workers keep dying is looked into sample by sample, and the culprit is named. No thread, no signal handler, no lock
shared by processes. Several threads may use it, one at a time. After `ProcessPool.close` nothing is left.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from feedline.batching.registry import registrations
from feedline.engine.processes import deaths, messages
from feedline.engine.processes.cargo import Cargo, Kit
from feedline.engine.processes.crew import Crew
from feedline.engine.processes.culprits import explained
from feedline.engine.processes.messages import Order
from feedline.engine.processes.probing import Probe
from feedline.engine.processes.session import Session
from feedline.engine.processes.slots import Quota
from feedline.engine.processes.starting import Starter, capture
from feedline.engine.processes.watching import Watch
from feedline.engine.task import Outcome
from feedline.errors import WorkerError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from feedline.engine.processes.deaths import Death
    from feedline.engine.processes.member import Member
    from feedline.engine.processes.starting import Surroundings
    from feedline.engine.task import Recipe, Role, Task

__all__ = ["ProcessPool"]

_DEATHS = 3  # workers that may die over a batch before it is looked into
_SPARE_SLOTS = 8  # batches that a loop may hold before they are copied, beyond those on their way


class ProcessPool:
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
        self.num_workers = num_workers
        self._starter = Starter(context)
        self._init = init
        self._max_restarts = max_restarts
        self._restarted = restarted
        self._quota = Quota(limit=num_workers * ahead + _SPARE_SLOTS, share=ahead + 3)
        self._cargo = Cargo()
        self._crew: Crew | None = None
        self._surroundings: Surroundings | None = None
        self._sessions: dict[int, Session] = {}
        self._probes: dict[Member, Probe] = {}
        self._opened = self._restarts = 0
        self._watch = Watch(timeout_s)
        self._lock = threading.RLock()
        self._left: deque[Session] = deque()  # closed where no message may be sent: amid another, or by the collector
        self._torn = False  # messages are being sent, or an interrupt came amid them: one may be lost
        self._pid = os.getpid()

    # ---------------------------------------------------------------------------------------------------- sessions

    def open(self, role: Role, *, pinned: int | None = None) -> Session:
        """An executor for one epoch, of the dataset as it is now.

        Raises:
            CannotShip: a part of it cannot be sent to a worker process.
            WorkerError: there is no shared memory for it.
        """
        with self._lock:
            self._mend()
            shipment, is_new, self._starter = self._cargo.of(self._kit(role.recipe), self._starter)
            if is_new:
                with suppress(OSError):  # starting a worker will say so
                    self._starter.prepare(self._cargo[shipment].skeleton)
            if is_new and self._starter.method == "fork":
                self._torn = True  # other workers are needed: a lock is where it was when the worker was forked
            self._opened += 1
            session = Session(self, self._opened, role, shipment=shipment, pinned=pinned)
            self._sessions[session.number] = session
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
        while self._left and not self._torn and self._lock.acquire(blocking=False):
            try:
                while self._left:
                    self._dismiss(self._left.popleft())
            finally:
                self._lock.release()

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
        """Give a task to the worker that has the least to do."""
        with self._lock:
            self._mend()
            self._torn = True
            session.pending[task.plan.step] = task
            try:
                self._give(session, task, self._started())
            except (OSError, MemoryError) as error:
                self._fail(error)
            except Exception as error:  # noqa: BLE001 -- a user's sampler gives what cannot be pickled
                session.put(Outcome(task, error=explained(task.plan.indices, "indices", error)))
            self._torn = False
        self._settle()

    def wait(self, executors: Sequence[Any]) -> None:
        """Wait until one of these executors has an outcome, or none of them has anything under way."""
        while not any(session.outcomes for session in executors) and any(session.pending for session in executors):
            self.turn(executors)

    def turn(self, waiting: Sequence[Session] = ()) -> None:
        """Hear the workers, once; if sessions are ``waiting``, wait until one of them speaks, is dead, or is late."""
        with self._lock:
            self._mend()
            crew = self._crew
            if crew is not None:
                waits = any(each.pending for each in waiting) and not any(each.outcomes for each in waiting)
                speaking, dead = crew.wait(self._watch.patience_s(crew) if waits else 0)
                self._torn = self._crew is crew  # not if a signal handler has closed the loader
                try:
                    self._attend(crew, speaking, dead)
                except (OSError, MemoryError) as error:
                    self._fail(error)
                self._torn = False
        self._settle()

    def _attend(self, crew: Crew, speaking: list[Member], dead: list[Member]) -> None:
        """Do what is to be done for those that speak, are dead, are late, or have nothing to do."""
        for member in (*speaking, *dead):
            self._hear(member)
        for member in dead:
            self._lose(member)
        for member in self._watch.late(crew):
            if member in crew and self._crew is crew:
                member.dump()
                self._hear(member)
                self._lose(member, late_s=self._watch.timeout_s)
        if not speaking and not dead:
            self._watch.warn()
        self._share_out()
        if self._crew is crew:
            crew.flush()

    def _started(self) -> Crew:
        """The workers, all of them, started if they are not."""
        if self._crew is None:
            self._crew = Crew(self.num_workers, self._quota)
            self._surroundings = capture()
        for number in range(self.num_workers):
            if number not in self._crew.members:
                self._start(self._crew, number)
        return self._crew

    def _start(self, crew: Crew, number: int, *, extra: bool = False) -> Member:
        assert self._surroundings is not None
        return crew.start(self._starter, number, self._surroundings, extra=extra)

    def _give(self, session: Session, task: Task, crew: Crew) -> None:
        if session.pinned is not None:
            member = crew.members[session.pinned % self.num_workers]
        else:
            member = min(crew.members.values(), key=_load)
        self._introduce(session, member)
        member.give(session.number, task)

    def _introduce(self, session: Session, member: Member) -> None:
        """See to it that a worker has what it was sent for the session, and knows the session."""
        if session.number in member.sessions:
            return
        if session.shipment not in member.shipments:
            member.load(session.shipment, *self._cargo.message(session.shipment))
        member.sessions.add(session.number)
        role = session.role
        order = role.recipe.order if role.recipe.policy.action == "replace" else None
        content = session.number, session.shipment, role.epoch, role.stream, order
        member.tell(messages.order(Order.OPEN, *content))

    def _hear(self, member: Member) -> None:
        for done, value, error in member.reports():
            self._watch.heard()
            if member in self._probes:
                tried = self._probes[member].task
                self._probe_on(member, done.outcome(tried, value) if error is None else Outcome(tried, error=error))
                return
            task = member.tasks.pop((done.session, done.step), None)
            session = self._sessions.get(done.session)
            if session is not None and (task := task or session.pending.get(done.step)) is not None:
                # a task that was taken away may be done all the same
                session.put(done.outcome(task, value) if error is None else Outcome(task, error=error))
        if member.channel.ended and self._crew is not None:
            self._crew.mute(member)

    def _share_out(self) -> None:
        """Give what waits behind a slow batch to workers that have nothing to do."""
        if self._crew is None:
            return
        members = list(self._crew.members.values())
        for idle in members:
            if idle.tasks:
                continue
            busiest = max(members, key=_load)
            movable = [key for key in list(busiest.tasks)[1:] if self._sessions[key[0]].pinned is None]
            if not movable:
                return
            session, step = movable[0]
            task = busiest.take_back(session, step)
            self._introduce(self._sessions[session], idle)
            idle.give(session, task)

    # ------------------------------------------------------------------------------------------------------ deaths

    def _lose(self, member: Member, late_s: float = 0.0) -> None:
        """A worker is dead: replace it, and have its tasks done again."""
        crew = self._crew
        if crew is None or member not in crew:
            return
        tasks = list(member.tasks.items())
        death = self._watch.told(crew.bury(member, late_s))
        probe = self._probes.pop(member, None)
        if probe is not None and member.is_ready:
            self._probe_found(probe, death)
            return
        if self._restarts >= self._max_restarts:
            self._give_up(deaths.exhausted(death, self._max_restarts))
            return
        self._restarts += 1
        self._restarted()
        if probe is not None:  # it never came to read its sample
            self._look_into(probe.session, probe.task, probe.death)
            return
        self._start(crew, member.number)
        for place, ((number, _), task) in enumerate(tasks):
            session = self._sessions.get(number)
            if session is None or task.plan.step not in session.pending:
                continue  # nobody wants it, or another worker has done it
            if place == 0 and member.is_ready:
                task = task._replace(attempt=task.attempt + 1)  # noqa: PLW2901 -- the same task, once more
                session.pending[task.plan.step] = task
                if task.attempt >= _DEATHS:
                    self._look_into(session, task, death)
                    continue
            self._give(session, task, crew)

    def _look_into(self, session: Session, task: Task, death: Death) -> None:
        """Find the sample that kills its worker."""
        if session.pinned is not None:  # what it reads follows what it has read before: it cannot be done elsewhere
            session.put(Outcome(task, error=deaths.killer_batch(task, death)))
            return
        assert self._crew is not None
        member = self._start(self._crew, death.number, extra=True)
        self._probes[member] = Probe(session, task, death)
        self._probe_on(member)

    def _probe_on(self, member: Member, made: Outcome | None = None) -> None:
        """The next sample, after one that was ``made`` and did no harm."""
        probe = self._probes[member]
        member.tasks.clear()
        task = probe.next()
        if task is not None:
            self._introduce(probe.session, member)
            member.give(probe.session.number, task)
            return
        del self._probes[member]
        assert made is not None
        assert self._crew is not None
        probe.session.put(made)
        member.kill()
        self._crew.bury(member)

    def _probe_found(self, probe: Probe, death: Death) -> None:
        task, session = probe.task, probe.session
        if probe.is_at_whole:
            session.put(Outcome(task, error=deaths.killer_batch(task, death)))
            return
        text = deaths.killer_sample(task, probe.position, death)
        if session.role.recipe.policy.action == "raise":
            session.put(Outcome(task, error=WorkerError(text)))
        elif task.plan.step in session.pending and self._crew is not None:
            task = task._replace(attempt=0, fatal=(*task.fatal, (probe.position, text)))
            session.pending[task.plan.step] = task
            self._give(session, task, self._crew)

    # ---------------------------------------------------------------------------------------------------- ending

    def close(self) -> None:
        """Stop all workers. May be called again; a further task starts them anew."""
        if os.getpid() != self._pid:  # a forked copy: they are not its children
            return
        with self._lock:
            self._end_crew()
            self._torn = False
            for session in list(self._sessions.values()):
                session.close()
            self._cargo.close()
            self._starter.close()

    def _end_crew(self) -> None:
        crew, self._crew = self._crew, None
        self._probes.clear()
        if crew is not None:
            crew.end()

    def _mend(self) -> None:
        """After an interrupt in the middle of things: begin anew with other workers, and do all again."""
        if os.getpid() != self._pid:  # a forked copy: the workers are its parent's
            self._pid, self._crew, self._torn = os.getpid(), None, True
        if not self._torn:
            return
        self._end_crew()
        while self._left:
            self._dismiss(self._left.popleft())
        try:
            for session in list(self._sessions.values()):
                for task in list(session.pending.values()):
                    self._give(session, task, self._started())
        except (OSError, MemoryError) as error:
            self._fail(error)
        self._torn = False

    def _fail(self, error: OSError | MemoryError) -> None:
        """There is no process, pipe, memory or descriptor to go on with."""
        self._give_up(deaths.without_means(error))

    def _give_up(self, error: WorkerError) -> None:
        """Answer all tasks with an error; a later one begins anew."""
        self._restarts = 0
        for session in list(self._sessions.values()):
            session.fail(error)
        self._end_crew()


def _load(member: Member) -> int:
    return len(member.tasks)
