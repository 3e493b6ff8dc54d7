"""What parent and worker say to each other, as bytes.

Guarantee: what is said once a batch is a fixed structure and the batch's indices, packed and unpacked in a few
microseconds. Everything else is a pickle. Messages pass between our own processes only, over a pipe that nobody else
has.
"""

from __future__ import annotations

import pickle
import struct
from enum import IntEnum
from typing import TYPE_CHECKING, Any, NamedTuple

import cloudpickle
import numpy as np

from feedline.engine.processes.remote import pack_error, pack_failures, unpack_error, unpack_failures
from feedline.engine.task import Batch, Outcome, Task
from feedline.order.plan import BatchPlan

if TYPE_CHECKING:
    from collections.abc import Sequence

    from feedline.engine.processes.slots import Placed

__all__ = [
    "DONE",
    "TASKS",
    "Done",
    "Order",
    "Report",
    "done",
    "done_of",
    "failed",
    "order",
    "order_of",
    "task",
    "task_of",
]


class Order(IntEnum):
    """What the parent says."""

    SHIPMENT = 1
    FORGET = 2  # a shipment
    OPEN = 3  # a session
    CLOSE = 4
    TASK = 5
    TASK_PICKLED = 6
    CANCEL = 7
    STOP = 8


class Report(IntEnum):
    """What the worker says."""

    HELLO = 1
    LOADED = 2
    DONE = 3


# What is said once a batch, as plain integers: looking up an enumeration's member runs Python.
TASKS = _PLAIN, _PICKLED = int(Order.TASK), int(Order.TASK_PICKLED)
DONE = int(Report.DONE)

# ------------------------------------------------------------------------------------------------------- parent's side

_TASK = struct.Struct("<BBHHQQqqq")  # kind, attempt, slots freed and dropped, session, step, epoch, position, until
_NUMBER = struct.Struct("<I")  # of a slot
_INT64 = np.dtype(np.int64)


def order(kind: Order, *content: Any) -> bytes:
    """A message of the parent's that is not sent for every batch."""
    pickled: bytes = cloudpickle.dumps(content, protocol=5)
    return bytes((kind,)) + pickled


def order_of(message: bytes) -> tuple[Any, ...]:
    """The content of such a message."""
    content: tuple[Any, ...] = pickle.loads(message[1:])  # noqa: S301 -- of our own parent, by a private pipe
    return content


def task(session: int, task: Task, free: Sequence[int], dropped: Sequence[int]) -> bytes:
    """A task, with the slots that the worker gets back."""
    plan, attempt, fatal, items = task
    indices = plan.indices
    if fatal or items is not None or type(indices) is not np.ndarray or indices.dtype != _INT64:
        kind, rest = _PICKLED, cloudpickle.dumps(task, protocol=5)
    else:
        kind, rest = _PLAIN, indices.tobytes()
    slots = _NUMBER.pack(free[0]) if len(free) == 1 else struct.pack(f"<{len(free)}I", *free)  # one: the common case
    if dropped:
        slots += struct.pack(f"<{len(dropped)}I", *dropped)
    position, until = plan.position, plan.until
    head = _TASK.pack(kind, attempt, len(free), len(dropped), session, plan.step, plan.epoch, position, until)
    message: bytes = head + slots + rest
    return message


def task_of(message: bytes) -> tuple[int, Task, tuple[int, ...], tuple[int, ...]]:
    """The session, the task, and the slots that are free and those that are dropped."""
    kind, attempt, free, dropped, session, step, epoch, position, until = _TASK.unpack_from(message)
    start = _TASK.size
    slots = struct.unpack_from(f"<{free + dropped}I", message, start)
    start += 4 * len(slots)
    if kind == _PLAIN:
        indices = np.frombuffer(message, np.int64, -1, start) if start < len(message) else np.empty(0, np.int64)
        made = Task(BatchPlan(epoch, step, indices, position, until), attempt)
    else:
        made = pickle.loads(memoryview(message)[start:])  # noqa: S301 -- as above
    return session, made, slots[:free], slots[free:]


# ------------------------------------------------------------------------------------------------------- worker's side

_DONE = struct.Struct("<BBIIQQQqqqqq")
# kind, flags, parts, description's bytes, session, step, peak RSS in KiB, slot, the block's bytes, the batch's bytes,
# samples, until
_SPAN = struct.Struct("<qq")
_HAS_BATCH, _HAS_REST = 1, 2


class Done(NamedTuple):
    """What a worker says of a task.

    Attributes:
        session, step: which.
        peak_rss_kib: the most memory the worker ever had.
        has_batch: whether there is a batch.
        slot: where it is; None: in the description.
        block_nbytes: the size of the slot's block, where the parent has not seen it; else 0.
        nbytes, description, spans: as in `Placed`.
        samples, until: as in `Batch`.
        error, failures: as bytes, where there are any.
    """

    session: int
    step: int
    peak_rss_kib: int
    has_batch: bool
    slot: int | None
    block_nbytes: int
    nbytes: int
    description: bytes
    spans: list[tuple[int, int]]
    samples: int
    until: int
    error: bytes | None = None
    failures: bytes | None = None

    def outcome(self, task: Task, value: Any) -> Outcome:
        """The outcome of the task whose batch is ``value``."""
        return Outcome(
            task,
            Batch(value, self.samples, self.until, self.nbytes) if self.has_batch else None,
            None if self.error is None else unpack_error(self.error),
            () if self.failures is None else unpack_failures(self.failures),
        )


def done(session: int, outcome: Outcome, placed: Placed | None, peak_rss_kib: int) -> bytes:
    """What came of a task; the batch itself is in its slot."""
    batch = outcome.batch
    samples, until = (0, 0) if batch is None else (batch.samples, batch.until)
    flags, rest = 0, b""
    if outcome.error is not None or outcome.failures:
        error = None if outcome.error is None else pack_error(outcome.error)
        failures = pack_failures(outcome.failures) if outcome.failures else None
        rest, flags = pickle.dumps((error, failures), 5), _HAS_REST
    slot, size, nbytes, parts, description, spans = -1, 0, 0, 0, b"", b""
    if placed is not None:
        flags |= _HAS_BATCH
        nbytes, description, parts = placed.nbytes, placed.description, len(placed.spans)
        if placed.slot is not None:
            slot = placed.slot
        if placed.block is not None:
            size = placed.block.nbytes
        for span in placed.spans:
            spans += _SPAN.pack(*span)
    head = _DONE.pack(
        DONE, flags, parts, len(description), session, outcome.task.plan.step, peak_rss_kib, slot, size, nbytes,
        samples, until,
    )  # fmt: skip
    return head + spans + description + rest


def failed(session: int, task: Task, error: bytes) -> bytes:
    """A task could not even be begun; ``error`` is packed already."""
    head = _DONE.pack(DONE, _HAS_REST, 0, 0, session, task.plan.step, 0, -1, 0, 0, 0, 0)
    return head + pickle.dumps((error, None), 5)


def done_of(message: bytes) -> Done:
    """What a worker said of a task."""
    _, flags, parts, length, session, step, rss, slot, size, nbytes, samples, until = _DONE.unpack_from(message)
    begin = _DONE.size + _SPAN.size * parts
    spans = list(_SPAN.iter_unpack(message[_DONE.size : begin]))
    end = begin + length
    error, failures = pickle.loads(message[end:]) if flags & _HAS_REST else (None, None)  # noqa: S301 -- as above
    return Done(
        session, step, rss, flags & _HAS_BATCH != 0, None if slot < 0 else slot, size, nbytes, message[begin:end],
        spans, samples, until, error, failures,
    )  # fmt: skip
