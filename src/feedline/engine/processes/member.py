"""One worker as its parent sees it: process, pipe, slots, and the tasks it was given.

Guarantee: whatever a worker does (exits, is killed, hangs, sends half a frame), the calls here return; what it sent
whole is heard, and `Member.bury` leaves nothing of it: no process, no descriptor.
"""

from __future__ import annotations

import os
import selectors
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from feedline.engine.making import add_note
from feedline.engine.processes import messages
from feedline.engine.processes.channel import Channel
from feedline.engine.processes.messages import Order, Report
from feedline.engine.processes.slots import Quota, SlotReader
from feedline.engine.processes.worker import work
from feedline.sharing import Block

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from multiprocessing.process import BaseProcess

    from feedline.engine.processes.becoming import Surroundings
    from feedline.engine.processes.messages import Done
    from feedline.engine.processes.starting import Starter
    from feedline.engine.task import Task

__all__ = ["Member"]

_STARTS = 4  # attempts
_END_S = 0.05  # how long a process may take to end: until then it is thought to be alive
_DUMP_S = 0.3  # how long a worker that hangs has to write down its stack: one that is stopped never will


class Member:
    """A worker process that was started.

    Args:
        starter: starts it.
        number: its number, from 0.
        num_workers: how many there are.
        surroundings: what it takes over from this process.
        quota: how many slots may be in use.

    Attributes:
        tasks: what it was given and has not reported, in order, by session and step.
        shipments, sessions: the numbers of those that it has.
        since: when it began the first of its tasks, as far as is known.
        loading: how many shipments it was sent and has not unpacked yet.
        is_up: whether it runs, and has come to load what it was sent.
        is_ready: whether it has ever unpacked one, and may have begun a task.
        peak_rss_kib: the most memory it ever said it had.
        is_mute, wanted: what the crew listens for.
    """

    def __init__(
        self, starter: Starter, number: int, num_workers: int, surroundings: Surroundings, quota: Quota
    ) -> None:
        ours, theirs = starter.context.Pipe()
        try:
            self.channel = Channel(ours, waits=False)
            try:
                self.process = _started(starter, (theirs, number, num_workers, surroundings))
            except BaseException:
                self.channel.close()
                raise
        finally:
            ours.close()
            theirs.close()
        self.number = number
        assert self.process.pid is not None
        self.pid = self.process.pid
        self.slots = SlotReader(quota)
        self.tasks: dict[tuple[int, int], Task] = {}
        self.shipments: set[int] = set()
        self.sessions: set[int] = set()
        self.since = time.monotonic()
        self.loading = 0
        self.is_up = self.is_ready = False
        self.peak_rss_kib = 0
        self.is_mute = False  # whether its pipe is not listened to any more
        self.wanted = selectors.EVENT_READ
        self._log: int | None = None

    def tell(self, message: bytes, descriptors: Sequence[int] = ()) -> None:
        """Send a message; what does not go at once goes later. A worker that cannot be told is ended."""
        try:
            self.channel.send(message, descriptors)
        except OSError:
            self.kill()

    def say(self, kind: Order, *numbers: int) -> None:
        """Send a message without content but numbers, even where there is no memory: then its end says it all."""
        try:
            self.tell(messages.order(kind, *numbers))
        except MemoryError:
            self.kill()

    def load(self, number: int, message: bytes, descriptors: Sequence[int]) -> None:
        """Send it a shipment."""
        self.shipments.add(number)
        self.loading += 1
        self.tell(message, descriptors)

    def give(self, session: int, task: Task) -> None:
        """Give it a task."""
        message = messages.task(session, task, *self.slots.returned())
        if not self.tasks:
            self.since = time.monotonic()
        self.tasks[session, task.plan.step] = task
        self.tell(message)

    def take_back(self, session: int, step: int) -> Task:
        """Take a task away; it may have begun it all the same."""
        task = self.tasks.pop((session, step))
        self.say(Order.CANCEL, session, step)
        return task

    def leave(self, session: int) -> None:
        """A session is over."""
        for key in [key for key in self.tasks if key[0] == session]:
            del self.tasks[key]
        if session in self.sessions:
            self.sessions.discard(session)
            self.say(Order.CLOSE, session)

    def reports(self) -> Iterator[tuple[Done, Any, Exception | None]]:
        """What it has reported since the last call: each task's end, with the batch, or why it cannot be unpacked.

        Raises:
            OSError, MemoryError: there was no descriptor, or no memory, left for what it sent.
        """
        while (frame := self.channel.receive()) is not None:
            payload, descriptors = frame
            kind = payload[0]
            self.since = time.monotonic()
            if kind == messages.DONE:
                done = messages.done_of(payload)
                self.peak_rss_kib = done.peak_rss_kib
                value = failure = None
                try:
                    if done.has_batch:
                        value = self._batch(done, descriptors)
                except (OSError, MemoryError):
                    raise
                except Exception as error:  # noqa: BLE001 -- unpickling runs the user's code
                    add_note(error, "while a worker's batch was unpickled in the main process")
                    failure = error
                yield done, value, failure
            elif kind == Report.LOADED:
                self.is_ready = True
                self.loading -= 1
            else:
                self.is_up = True
                self._log = descriptors[0] if descriptors else None

    def _batch(self, done: Done, descriptors: Sequence[int]) -> Any:
        if done.block_nbytes and done.slot is not None:
            block = Block.attach(done.block_nbytes, descriptor=descriptors[0], private=False)
            self.slots.add(done.slot, block)
        return self.slots.take(done.slot, done.description, done.spans)

    def drain(self) -> None:
        """Take in what it says, and forget it."""
        with suppress(OSError, MemoryError):
            for _ in self.reports():
                pass

    def flush(self) -> bool:
        """Send what did not go at once; whether nothing is left."""
        try:
            return self.channel.flush()
        except OSError:
            self.kill()  # its sentinel will tell
            return True

    def dump(self) -> None:
        """End a worker that hangs, by a signal at which it writes down its stack."""
        with suppress(OSError, AttributeError):
            os.kill(self.pid, signal.SIGABRT)
            self.process.join(_DUMP_S)
        self.kill()

    def kill(self) -> None:
        """End it at once."""
        with suppress(OSError):
            if self.process.is_alive():
                self.process.kill()

    def stack(self) -> str:
        """What it wrote down of its stack when it crashed."""
        if self._log is None:
            return ""
        with suppress(OSError):
            text = os.pread(self._log, 1 << 16, 0).decode(errors="replace")
            return text.partition("\nExtension modules: ")[0].strip()
        return ""

    def wait(self) -> int | None:
        """Wait for the end of a process that is ending; its exit code, None if that was lost."""
        self.process.join()
        return self.process.exitcode

    def bury(self) -> None:
        """Close all that is left of a process that has ended."""
        try:
            if self.wait() is None:
                # the program ignores SIGCHLD, or waits for any child: the standard library holds it for alive for ever
                self.process._popen.returncode = 0  # type: ignore[attr-defined] # noqa: SLF001
            self.process.close()
        finally:
            self.channel.close()
            self.slots.close()
            if self._log is not None:
                os.close(self._log)
                self._log = None


def _started(starter: Starter, args: tuple[Any, ...]) -> BaseProcess:
    """A worker process, started; if the server of forked processes went away meanwhile, by the next one.

    (The standard library's server ends when a client is gone before it has sent its request.)
    """
    for attempt in range(1, _STARTS + 1):
        try:
            return starter.start(work, args, f"feedline-{args[1]}")
        except (EOFError, ConnectionError) as error:
            if attempt == _STARTS:
                raise OSError(f"the server of forked processes is not there: {error!r}") from error
            time.sleep(_END_S)
    raise AssertionError("unreachable")
