"""The workers of a pool as a body: started, waited for, buried, ended.

Guarantee: `Crew.wait` says which workers have something to say and which are dead, by their pipes and sentinels alone;
`Crew.end` returns within a second and leaves no process and no descriptor.
"""

from __future__ import annotations

import selectors
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from feedline.engine.processes.deaths import Death, out_of_memory_kills
from feedline.engine.processes.member import Member
from feedline.engine.processes.messages import Order

if TYPE_CHECKING:
    from collections.abc import Iterator

    from feedline.engine.processes.becoming import Surroundings
    from feedline.engine.processes.slots import Quota
    from feedline.engine.processes.starting import Starter

__all__ = ["Crew"]

_READ = selectors.EVENT_READ
_GRACE_S = 0.5  # how long a worker that is told to stop may go on with the sample it is at


class Crew:
    """The workers by number, and others that were started for a special task.

    Args:
        num_workers: how many workers there are.
        quota: how many slots may be in use.
    """

    def __init__(self, num_workers: int, quota: Quota) -> None:
        self.members: dict[int, Member] = {}
        self.extras: list[Member] = []
        self._num_workers = num_workers
        self._quota = quota
        self._selector = selectors.DefaultSelector()
        self._memory_kills = out_of_memory_kills()

    def __iter__(self) -> Iterator[Member]:
        yield from list(self.members.values())
        yield from list(self.extras)

    def __contains__(self, member: Member) -> bool:
        return self.members.get(member.number) is member or member in self.extras

    def start(self, starter: Starter, number: int, surroundings: Surroundings, *, extra: bool = False) -> Member:
        """Start a worker.

        Raises:
            OSError: there is no process, pipe or descriptor for it.
        """
        member = Member(starter, number, self._num_workers, surroundings, self._quota)
        try:
            self._selector.register(member.channel, _READ, member)
            self._selector.register(member.process.sentinel, _READ, member)
        except BaseException:
            with suppress(KeyError, ValueError):
                self._selector.unregister(member.channel)
            member.kill()
            member.bury()
            raise
        if extra:
            self.extras.append(member)
        else:
            self.members[number] = member
        return member

    def wait(self, timeout_s: float | None) -> tuple[list[Member], list[Member]]:
        """Wait until a worker says something or is dead; those that speak, and those that are dead."""
        speaking, dead = [], []
        try:
            heard = self._selector.select(timeout_s)
        except (OSError, ValueError):
            if self._selector.get_map() is not None:
                raise
            heard = []  # ended meanwhile, by a signal handler
        for key, _ in heard:
            if key.fileobj is key.data.channel:
                speaking.append(key.data)
            else:
                dead.append(key.data)
        return speaking, dead

    def flush(self) -> None:
        """Send what did not go at once, and be woken when more of it can go."""
        for member in (*self.members.values(), *self.extras):
            if not member.channel.unsent and member.wanted == _READ:
                continue
            wanted = _READ if member.flush() else _READ | selectors.EVENT_WRITE
            if member.wanted != wanted and not member.is_mute:
                member.wanted = wanted
                self._selector.modify(member.channel, wanted, member)

    def mute(self, member: Member) -> None:
        """Listen no more to a pipe that has ended; its process's sentinel is still to come."""
        if not member.is_mute:
            member.is_mute = True
            self._selector.unregister(member.channel)

    def bury(self, member: Member, late_s: float = 0.0) -> Death:
        """Take leave of a worker that is dead, or dying."""
        self.mute(member)
        self._selector.unregister(member.process.sentinel)
        if self.members.get(member.number) is member:
            del self.members[member.number]
        else:
            self.extras.remove(member)
        code = member.wait()
        kills = out_of_memory_kills() - self._memory_kills
        death = Death(
            member.number, member.pid, code, late_s, member.peak_rss_kib, kills, member.stack(),
            tuple(member.tasks.values()), member.is_ready,
        )  # fmt: skip
        member.bury()
        return death

    def end(self) -> None:
        """Stop all of them: at once those that have nothing to do, after a moment the others."""
        for member in self:
            member.say(Order.STOP)
        try:
            self._wait_for_all(time.monotonic() + _GRACE_S)
        except KeyboardInterrupt:
            if threading.main_thread().is_alive():
                raise
            # the interpreter is at its exit: nobody is left to be interrupted
        finally:  # also after an interrupt
            for member in self:
                member.kill()
            for member in self:
                self.bury(member)
            self._selector.close()

    def _wait_for_all(self, deadline: float) -> None:
        while any(self) and (left := deadline - time.monotonic()) > 0:
            speaking, dead = self.wait(left)
            for member in speaking:
                member.drain()
                if member.channel.ended:
                    self.mute(member)
            for member in dead:
                self.bury(member)
            self.flush()
