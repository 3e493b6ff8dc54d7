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
from feedline.engine.processes.slots import Placed
from feedline.engine.task import Batch, Outcome, Task
from feedline.order.plan import BatchPlan

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Done", "Order", "Report", "done", "done_of", "failed", "order", "order_of", "task", "task_of"]


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


# ------------------------------------------------------------------------------------------------------- parent's side

_TASK = struct.Struct("<BBHHQQqqq")  # kind, attempt, slots freed and dropped, session, step, epoch, position, until


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
    plan = task.plan
    slots = struct.pack(f"<{len(free) + len(dropped)}I", *free, *dropped)
    indices = plan.indices
    plain = isinstance(indices, np.ndarray) and indices.dtype == np.int64 and not task.fatal and task.items is None
    if plain and isinstance(indices, np.ndarray):
        kind, rest = Order.TASK, indices.tobytes()
    else:
        kind, rest = Order.TASK_PICKLED, cloudpickle.dumps(task, protocol=5)
    head = _TASK.pack(
        kind, task.attempt, len(free), len(dropped), session, plan.step, plan.epoch, plan.position, plan.until
    )
    return head + slots + rest


def task_of(message: bytes) -> tuple[int, Task, tuple[int, ...], tuple[int, ...]]:
    """The session, the task, and the slots that are free and those that are dropped."""
    kind, attempt, free, dropped, session, step, epoch, position, until = _TASK.unpack_from(message)
    start = _TASK.size
    slots = struct.unpack_from(f"<{free + dropped}I", message, start)
    start += 4 * len(slots)
    if kind == Order.TASK:
        indices = np.frombuffer(message, np.int64, -1, start) if start < len(message) else np.empty(0, np.int64)
        made = Task(BatchPlan(epoch, step, indices, position, until), attempt)
    else:
        made = pickle.loads(memoryview(message)[start:])  # noqa: S301 -- as above
    return session, made, slots[:free], slots[free:]


# ------------------------------------------------------------------------------------------------------- worker's side

_DONE = struct.Struct("<BBBIQQQqqqqI")
# kind, flags, attempt, parts, session, step, peak RSS in KiB, slot, the block's bytes (of a batch in no slot: its own),
# samples, until, description's bytes
_HAS_BATCH, _HAS_REST = 1, 2


class Done(NamedTuple):
    """What a worker says of a task.

    Attributes:
        session, step, attempt: which.
        peak_rss_kib: the most memory the worker ever had.
        placed: where the batch is; ``block`` is the size of the slot's block where the parent has not seen it.
        samples, until: as in `Batch`.
        rest: the error and the failures, as bytes.
    """

    session: int
    step: int
    attempt: int
    peak_rss_kib: int
    placed: Placed | None
    samples: int
    until: int
    rest: tuple[bytes | None, bytes | None]

    def outcome(self, task: Task, value: Any) -> Outcome:
        """The outcome of the task whose batch is ``value``."""
        error, failures = self.rest
        return Outcome(
            task,
            None if self.placed is None else Batch(value, self.samples, self.until, self.placed.nbytes),
            None if error is None else unpack_error(error),
            () if failures is None else unpack_failures(failures),
        )


def done(session: int, outcome: Outcome, placed: Placed | None, peak_rss_kib: int) -> bytes:
    """What came of a task; the batch itself is in its slot."""
    batch, made = outcome.batch, outcome.task
    samples, until = (0, 0) if batch is None else (batch.samples, batch.until)
    flags, rest = 0, b""
    if outcome.error is not None or outcome.failures:
        error = None if outcome.error is None else pack_error(outcome.error)
        failures = pack_failures(outcome.failures) if outcome.failures else None
        rest, flags = pickle.dumps((error, failures), 5), _HAS_REST
    slot, size, parts, description, spans = -1, 0, 0, b"", b""
    if placed is not None:
        flags |= _HAS_BATCH
        slot = -1 if placed.slot is None else placed.slot
        if placed.slot is None:
            size = placed.nbytes
        elif placed.block is not None:
            size = placed.block.nbytes
        description, parts = placed.description, len(placed.spans)
        spans = struct.pack(f"<{2 * parts}q", *[number for span in placed.spans for number in span])
    head = _DONE.pack(
        Report.DONE, flags, made.attempt, parts, session, made.plan.step, peak_rss_kib, slot, size, samples, until,
        len(description),
    )  # fmt: skip
    return head + spans + description + rest


def failed(session: int, task: Task, error: bytes) -> bytes:
    """A task could not even be begun; ``error`` is packed already."""
    head = _DONE.pack(Report.DONE, _HAS_REST, task.attempt, 0, session, task.plan.step, 0, -1, 0, 0, 0, 0)
    return head + pickle.dumps((error, None), 5)


def done_of(message: bytes) -> tuple[Done, int]:
    """What a worker said of a task, and the size of its slot's block where that is new (else 0)."""
    _, flags, attempt, parts, session, step, rss, slot, size, samples, until, length = _DONE.unpack_from(message)
    start = _DONE.size
    placed = None
    rest: tuple[bytes | None, bytes | None] = (None, None)
    end = start + 16 * parts + length
    if flags & _HAS_BATCH:
        numbers = struct.unpack_from(f"<{2 * parts}q", message, start)
        spans = list(zip(numbers[::2], numbers[1::2], strict=True))
        description = message[end - length : end]
        if slot < 0:
            placed, size = Placed(None, None, description, spans, size), 0
        else:
            placed = Placed(slot, None, description, spans, sum(numbers[1::2]))
    if flags & _HAS_REST:
        rest = pickle.loads(message[end:])  # noqa: S301 -- as above
    return Done(session, step, attempt, rss, placed, samples, until, rest), size
