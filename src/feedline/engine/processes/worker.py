"""The worker process: takes tasks, makes batches into its slots, reports.

Guarantee: a task that the worker has begun is reported, or the worker is dead. It does what it is told in order, but
hears before each batch that a session is closed or a task was given to another. It reads nothing but its private pipe,
never imports the user's main module, and ends with its parent (contract 6).
"""

from __future__ import annotations

import os
from collections import deque
from contextlib import suppress
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from feedline.batching.registry import register_collate
from feedline.engine.keys import GivenUp
from feedline.engine.making import MapMaker, add_note, no_exception
from feedline.engine.processes import messages
from feedline.engine.processes.becoming import become_worker
from feedline.engine.processes.channel import Channel
from feedline.engine.processes.culprits import FROM_WORKER, explained
from feedline.engine.processes.messages import Order, Report
from feedline.engine.processes.remote import pack_error
from feedline.engine.processes.shipping import unpack
from feedline.engine.processes.slots import SlotWriter
from feedline.engine.streams.making import stream_maker
from feedline.engine.task import Outcome, Role
from feedline.engine.worker import WorkerInfo, become
from feedline.errors import WorkerError
from feedline.generators import own_globals, seed_globals, torch_generator
from feedline.seeding import worker_seed
from feedline.sharing import Block

try:
    from resource import RUSAGE_SELF, getrusage
except ImportError:  # Windows
    getrusage = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from collections.abc import Mapping
    from multiprocessing.connection import Connection

    from feedline.engine.processes.becoming import Surroundings
    from feedline.engine.processes.cargo import Kit
    from feedline.engine.task import Maker, Recipe, StreamStart, Task

__all__ = ["work"]


def work(connection: Connection, number: int, num_workers: int, surroundings: Surroundings) -> None:
    """The main function of a worker process."""
    log = become_worker()
    own_globals()
    channel = Channel(connection, waits=True)
    surroundings.enter(number)
    try:
        with suppress(BrokenPipeError, ConnectionError):  # the parent is gone: nobody is left to be told
            channel.send(bytes((Report.HELLO,)), () if log is None else (log,))
            _Worker(channel, number, num_workers).run()
    finally:
        channel.close()


class _Shipment(NamedTuple):
    """What was sent for some sessions, unpacked: without the rest if ``recipe`` is the error of unpacking it."""

    recipe: Recipe | bytes
    info: WorkerInfo | None = None
    registrations: Mapping[type, Any] = MappingProxyType({})


class _Worker:
    def __init__(self, channel: Channel, number: int, num_workers: int) -> None:
        self._channel = channel
        self._number = number
        self._num_workers = num_workers
        self._slots = SlotWriter()
        self._where = f"worker {number} (process {os.getpid()})"
        self._shipments: dict[int, _Shipment] = {}
        self._sessions: dict[int, tuple[Maker | bytes, _Shipment]] = {}
        self._entered: _Shipment | None = None
        self._tasks: deque[tuple[int, Task]] = deque()
        self._undo: list[Any] = []
        self._stopped = False
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._give_up)

    def _give_up(self) -> None:
        """In a process forked by the user's code: write no more into memory that is shared with the worker."""
        made: list[Any] = [maker for maker, _ in self._sessions.values() if not isinstance(maker, bytes)]
        for maker in made:
            maker.give_up()

    def run(self) -> None:
        """Work until the parent says stop, or is gone."""
        while True:
            frame = self._channel.receive(wait=not self._tasks)
            if frame is not None:
                self._hear(frame.payload, frame.descriptors)
            elif self._channel.ended or self._stopped:
                return
            elif self._tasks:
                self._do(*self._tasks.popleft())
            if self._stopped:
                return

    def _hear(self, message: bytes, descriptors: tuple[int, ...]) -> None:
        kind = message[0]
        if kind in messages.TASKS:
            session, task, free, dropped = messages.task_of(message)
            for number in free:
                self._slots.free(number)
            for number in dropped:
                self._slots.drop(number)
            self._tasks.append((session, task))
        elif kind == Order.OPEN:
            self._open(*messages.order_of(message))
        elif kind == Order.CLOSE:
            (session,) = messages.order_of(message)
            self._sessions.pop(session, None)
            self._tasks = deque(each for each in self._tasks if each[0] != session)
        elif kind == Order.CANCEL:
            session, step = messages.order_of(message)
            self._tasks = deque(each for each in self._tasks if (each[0], each[1].plan.step) != (session, step))
        elif kind == Order.SHIPMENT:
            self._load(descriptors, *messages.order_of(message))
        elif kind == Order.FORGET:
            (number,) = messages.order_of(message)
            self._shipments.pop(number, None)
        elif kind == Order.STOP:
            self._stopped = True

    def _load(self, descriptors: tuple[int, ...], number: int, payload: bytes, sizes: list[int], spans: Any) -> None:
        """Unpack what the parent has sent, and do what is to be done once before it is used."""
        count = len(sizes)
        blocks = [  # if there is no memory this worker ends, and another may do
            Block.attach(nbytes, descriptor=descriptor, private=True)
            for nbytes, descriptor in zip(sizes, descriptors[:count], strict=True)
        ]
        try:
            kit: Kit = unpack(payload, blocks, spans, descriptors[count:])
            info = WorkerInfo(self._number, self._num_workers, kit.seed, kit.dataset)
            shipment = _Shipment(kit.recipe(), info, kit.registrations)
            self._enter(shipment)
            if kit.worker_init_fn is not None:
                seed_globals(worker_seed(kit.seed, self._number), torch_generator())
                kit.worker_init_fn(self._number)
        except MemoryError:  # as above
            raise
        except Exception as error:  # noqa: BLE001 -- the user's code may raise anything; it arrives with each task
            add_note(error, f"while {self._where} was made ready")
            shipment = _Shipment(pack_error(error))
        self._shipments[number] = shipment
        self._channel.send(bytes((Report.LOADED,)))

    def _open(self, session: int, shipment: int, epoch: int, stream: StreamStart | None, order: Any) -> None:
        """Make what makes the batches of a session, or remember why it cannot be made."""
        sent = self._shipments[shipment]
        recipe = sent.recipe
        if isinstance(recipe, bytes):
            self._sessions[session] = recipe, sent
            return
        self._enter(sent)
        role = Role(replace(recipe, order=order), epoch, stream)
        maker: Maker | bytes
        try:
            if stream is None:
                maker = MapMaker(role.recipe, self._slots, where=self._where)
            else:
                maker = stream_maker(role, self._slots, where=self._where)
        except Exception as error:  # noqa: BLE001 -- as above: the dataset is looked at
            maker = pack_error(error)
        self._sessions[session] = maker, sent

    def _enter(self, shipment: _Shipment) -> None:
        """Let the user's code find what belongs to a shipment: the worker's copy of the dataset, the registrations."""
        if shipment is self._entered or shipment.info is None:
            return
        self._entered = shipment
        while self._undo:
            self._undo.pop()()
        self._undo += [register_collate(cls, fn) for cls, fn in shipment.registrations.items()]
        become(shipment.info)

    def _do(self, session: int, task: Task) -> None:
        maker, shipment = self._sessions[session]
        if isinstance(maker, bytes):
            self._channel.send(messages.failed(session, task, maker))
            return
        self._enter(shipment)
        slots = self._slots
        slots.begin()
        try:
            outcome = maker.make(task)
        except SystemExit:  # the user's code wants this process to end
            raise
        except GivenUp:  # this process was forked by the user's code, and let return: the worker goes on elsewhere
            os._exit(0)
        except BaseException as error:  # noqa: BLE001 -- KeyboardInterrupt and its like
            outcome = Outcome(task, error=no_exception(error, task.plan, self._where))
        placed = None
        if outcome.batch is None:
            slots.end()
        else:
            try:
                placed = slots.place(outcome.batch.value)
            except Exception as error:  # noqa: BLE001 -- a batch of the user's may refuse to be pickled in any way
                outcome = Outcome(task, error=_unsendable(error, outcome.batch.value), failures=outcome.failures)
        rss = 0 if getrusage is None else getrusage(RUSAGE_SELF).ru_maxrss
        try:
            message = messages.done(session, outcome, placed, rss)
        except Exception as error:  # noqa: BLE001 -- the worker is to live, whatever it has to say
            if placed is not None:
                slots.recall(placed)
                placed = None
            message = messages.failed(session, task, pack_error(error))
        block = None if placed is None else placed.block
        self._channel.send(message, () if block is None else (block.descriptor,))
        if block is not None:
            block.close_descriptor()


def _unsendable(error: Exception, batch: Any) -> Exception:
    """The error of a batch that cannot leave the worker, with the part at fault."""
    if isinstance(error, MemoryError | OSError):
        lacking = WorkerError(f"there was no memory to hand the batch over to the main process: {error!r}")
        lacking.__cause__ = error
        return lacking
    return explained(batch, "batch", error, FROM_WORKER)
