"""Leading a pool's workers: they are given tasks, heard, watched, replaced when they die, and their culprits found.

Guarantee (contracts 4 and 6): a task that is pending stays so until its outcome is put, and is with a worker that is
alive, or under suspicion and read sample by sample. A worker that never gets ready is not started for ever.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from feedline.engine.processes import deaths, messages
from feedline.engine.processes.becoming import capture
from feedline.engine.processes.cargo import Cargo
from feedline.engine.processes.crew import Crew
from feedline.engine.processes.messages import Order
from feedline.engine.processes.probing import Probe
from feedline.engine.task import Outcome
from feedline.errors import WorkerError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from feedline.engine.processes.becoming import Surroundings
    from feedline.engine.processes.deaths import Death
    from feedline.engine.processes.member import Member
    from feedline.engine.processes.session import Session
    from feedline.engine.processes.slots import Quota
    from feedline.engine.processes.starting import Starter
    from feedline.engine.processes.watching import Watch
    from feedline.engine.task import Task

__all__ = ["Lead"]

_DEATHS = 3  # workers that may die over a batch before it is looked into, or hang in turn before they are ready


class Lead:
    """The workers of a pool, and what they are at.

    Args:
        num_workers: how many.
        starter: starts them.
        quota: how many slots may be in use.
        watch: the clock.
        max_restarts: how many workers may be replaced.
    """

    _restarted: Callable[[], None]

    def __init__(self, num_workers: int, starter: Starter, quota: Quota, watch: Watch, *, max_restarts: int) -> None:
        self.num_workers = num_workers
        self._starter = starter
        self._quota = quota
        self._watch = watch
        self._max_restarts = max_restarts
        self._cargo = Cargo()
        self._crew: Crew | None = None
        self._surroundings: Surroundings | None = None
        self._sessions: dict[int, Session] = {}
        self._probes: dict[Member, Probe] = {}
        self._restarts = 0
        self._unready = 0  # workers in turn that hung before they were ready

    def _attend(self, crew: Crew, speaking: Iterable[Member], dead: Sequence[Member]) -> None:
        """Do what is to be done for those that speak, are dead, are late, or have nothing to do."""
        for member in speaking:
            self._hear(member)
        if dead:
            for member in dead:
                self._hear(member)
            self._lose(dead)
        late = self._watch.late(crew) if self._watch.timeout_s and self._crew is crew else ()
        for member in late:
            member.dump()
            self._hear(member)
        if late:
            self._lose(late, late=True)
        if self._crew is crew:
            self._share_out(crew)
            crew.flush()

    def _started(self, session: Session) -> Crew:
        """The workers, all of them, started if they are not; the first gets ready while the others are started."""
        crew = self._crew
        if crew is None:
            crew = self._crew = Crew(self.num_workers, self._quota)
            self._surroundings = capture()
        if len(crew.members) < self.num_workers:
            for number in range(self.num_workers):
                if number not in crew.members:
                    self._introduce(session, self._start(crew, number))
        return crew

    def _start(self, crew: Crew, number: int, *, extra: bool = False) -> Member:
        assert self._surroundings is not None
        return crew.start(self._starter, number, self._surroundings, extra=extra)

    def _give(self, session: Session, task: Task, crew: Crew) -> None:
        members, pinned = crew.members, session.pinned
        if pinned is not None:
            member = members[pinned % self.num_workers]
        else:
            least = None
            for each in members.values():
                if least is None or len(each.tasks) < least:
                    member, least = each, len(each.tasks)
        if session.number not in member.sessions:
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
        member.tell(messages.order(Order.OPEN, session.number, session.shipment, role.epoch, role.stream, order))

    def _hear(self, member: Member) -> None:
        for done, value, error in member.reports():
            self._unready = 0
            self._watch.heard(done)
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

    def _share_out(self, crew: Crew) -> None:
        """Give what waits behind a slow batch to workers that have nothing to do."""
        members = crew.members.values()
        loads = [len(member.tasks) for member in members]
        if min(loads, default=1) or max(loads) < 2:  # behind what is under way must wait another
            return
        for idle in [member for member in members if not member.tasks]:
            busiest = max(members, key=_load)
            movable = [key for key in list(busiest.tasks)[1:] if self._sessions[key[0]].pinned is None]
            if not movable:
                return
            session, step = movable[0]
            task = busiest.take_back(session, step)
            self._introduce(self._sessions[session], idle)
            idle.give(session, task)

    # ------------------------------------------------------------------------------------------------------ deaths

    def _lose(self, members: Iterable[Member], *, late: bool = False) -> None:
        """Workers are dead: replace them, and have their tasks done again."""
        crew, lost = self._crew, []
        for member in members:  # all of them first: no task is given to another that is dead
            if crew is not None and member in crew:
                late_s = self._watch.allowed_s(member) if late else 0.0
                lost.append((member, list(member.tasks.items()), self._watch.told(crew.bury(member, late_s))))
        lost.sort(key=lambda each: each[0] in self._probes)  # first those that tasks may be given to
        orphans: list[tuple[int, Task, Death | None]] = []
        for member, tasks, death in lost:
            if self._crew is crew is not None and self._replace(crew, member, death):
                blamed = [death if member.is_ready else None] + [None] * len(tasks)
                orphans += [(key[0], task, each) for (key, task), each in zip(tasks, blamed, strict=False)]
        for number, task, death_of in orphans:
            session = self._sessions.get(number)
            if self._crew is crew is not None and session is not None and task.plan.step in session.pending:
                self._again(session, task, death_of, crew)  # somebody wants it, and no other worker has done it

    def _replace(self, crew: Crew, member: Member, death: Death) -> bool:
        """Have another worker for one that is dead; whether its tasks are to be done again."""
        probe = self._probes.pop(member, None)
        if probe is not None and member.is_ready:
            self._probe_found(probe, death)
            return False
        if probe is not None and probe.session.number not in self._sessions:
            return False  # nobody wants to know any more
        self._unready = 0 if member.is_ready or not death.late_s else self._unready + 1
        if self._unready >= _DEATHS:
            self._give_up(deaths.never_ready(death, self._unready))
            return False
        if self._restarts >= self._max_restarts:
            self._give_up(deaths.exhausted(death, self._max_restarts))
            return False
        self._restarts += 1
        self._restarted()
        if probe is not None:  # it never came to read its sample
            self._look_into(probe.session, probe.task, probe.death)
            return False
        self._start(crew, member.number)
        return True

    def _again(self, session: Session, task: Task, death: Death | None, crew: Crew) -> None:
        """Have a task done again; ``death`` is the end of the worker that was at it."""
        if death is not None:
            task = task._replace(attempt=task.attempt + 1)
            session.pending[task.plan.step] = task
            if task.attempt >= _DEATHS:
                self._look_into(session, task, death)
                return
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

    def _end_crew(self) -> None:
        crew, self._crew = self._crew, None
        self._probes.clear()
        if crew is not None:
            crew.end()

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
