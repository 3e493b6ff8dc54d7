"""Batches in memory that worker and parent share: slots, made once, used again as soon as nobody sees them any more.

Guarantee (contract 5): a worker writes a batch into a slot, and the parent hands out views of the same memory. A slot
is written again only after the last view of it has died in the parent (each delivery has one owner object at the root
of all its arrays' base chains), and in the worker too, where the user's code may have kept a view. Who keeps every
batch gets correct data: beyond a limit batches are copied out of their slots. What was handed out outlives worker, pool
and loader.
"""

from __future__ import annotations

import math
import weakref
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from feedline.engine.processes.packing import Packed, packed, unpacker
from feedline.sharing import Block

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import DTypeLike, NDArray

    from feedline.engine.processes.packing import Unpacker

__all__ = ["Placed", "Quota", "SlotReader", "SlotWriter"]

_ALIGNMENT = 64  # a cache line, and what JAX asks for to use memory in place
_FADING = 4  # what a large batch took is reckoned with for a few batches: a quarter less each time
_HEADROOM = 8  # a new slot has an eighth more room than the batch it is made for: the next may be a little longer


def _aligned(nbytes: int) -> int:
    return -(-nbytes // _ALIGNMENT) * _ALIGNMENT


class Placed(NamedTuple):
    """A batch in a slot.

    Attributes:
        slot: the slot's number; None where there was no shared memory: the batch is in the description.
        block: the slot's memory, if the parent has not seen it yet.
        description: see `packing.packed`; empty: as that of the batch before.
        spans: offset and size of each part.
        nbytes: the memory of the parts, wherever they are.
    """

    slot: int | None
    block: Block | None
    description: bytes
    spans: list[tuple[int, int]]
    nbytes: int


class _Slot:
    """A slot of this worker's."""

    __slots__ = ("block", "is_known", "lease", "number")

    def __init__(self, number: int, block: Block) -> None:
        self.number = number
        self.block = block
        self.is_known = False  # to the parent
        self.lease: weakref.ref[memoryview] | None = None

    @property
    def is_idle(self) -> bool:
        """Whether no view of it lives in this process."""
        return self.lease is None or self.lease() is None

    def view(self) -> NDArray[np.uint8]:
        """Its bytes, under a new lease."""
        memory, owner = self.block.lend()
        self.lease = weakref.ref(owner)
        return memory


class SlotWriter:
    """The worker's side: the memory of the batch that is being made. Not for use by several threads."""

    def __init__(self) -> None:
        self._slots: dict[int, _Slot] = {}
        self._free: list[_Slot] = []
        self._made = 0
        self._slot: _Slot | None = None
        self._bytes = _NOTHING
        self._start = self._used = 0
        self._typical = 0  # what the last batches took, the largest of them
        self._described = b""

    def begin(self) -> None:
        """Begin a batch: in a free slot, or in a new one if it is known how large."""
        slot = self._found(self._typical) or self._found(0)
        if slot is None and self._typical:
            slot = self._new(self._typical)
        self._enter(slot)

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """A new array, uninitialised, C-contiguous: in the slot while there is room."""
        dtype = np.dtype(dtype)
        nbytes = math.prod(shape) * dtype.itemsize
        offset = self._used
        if dtype.hasobject or offset + nbytes > len(self._bytes):
            return np.empty(shape, dtype)
        self._used = offset + _aligned(nbytes)
        return np.ndarray(shape, dtype, self._bytes, offset)

    def place(self, value: Any) -> Placed:
        """Bring a batch into the slot, whatever of it is not there yet, and let go of the slot.

        Raises:
            Exception: whatever pickling a value of the user's raises; the slot is free again.
        """
        try:
            description, parts = packed(value)
            spans = self._spans(parts)
        except BaseException:
            self.end()
            raise
        slot = self._slot
        if slot is None:  # no parts, or no memory for them
            self._described = b""
            whole = Packed(description, parts) if not parts else packed(value, whole=True)
            return Placed(None, None, whole.description, [], sum([part.nbytes for part in parts]))
        known, self._described = description == self._described, description
        block = None if slot.is_known else slot.block
        slot.is_known = True
        self._typical = max(self._used, self._typical - self._typical // _FADING)
        self._slot, self._bytes = None, _NOTHING
        return Placed(slot.number, block, b"" if known else description, spans, sum([span[1] for span in spans]))

    def end(self) -> None:
        """Give the batch up: its slot is free again."""
        if self._slot is not None:
            self._free.append(self._slot)
        self._enter(None)

    def recall(self, placed: Placed) -> None:
        """What was placed last is not sent: its slot is free again."""
        self._described = b""
        if placed.slot is not None:
            slot = self._slots[placed.slot]
            slot.is_known = placed.block is None
            self._free.append(slot)

    def free(self, number: int) -> None:
        """The parent sees a slot no more."""
        self._free.append(self._slots[number])

    def drop(self, number: int) -> None:
        """The parent sees a slot no more, and needs it no more."""
        del self._slots[number]

    def _enter(self, slot: _Slot | None) -> None:
        self._slot, self._used = slot, 0
        self._bytes = _NOTHING if slot is None else slot.view()
        self._start = 0 if slot is None else slot.block.address

    def _found(self, nbytes: int) -> _Slot | None:
        """A free slot that large; of several the last one used, which is the warmest."""
        for slot in reversed(self._free):
            if slot.is_idle and slot.block.nbytes >= nbytes:
                self._free.remove(slot)
                return slot
        return None

    def _new(self, nbytes: int, small: _Slot | None = None) -> _Slot | None:
        """A slot with a little more room than that, in place of a ``small`` one; None where there is no memory for it.

        The parent learns of it as of a new one: it forgets the small one's memory for that.
        """
        try:
            block = Block.create(nbytes + nbytes // _HEADROOM)
        except OSError:
            return None
        if small is not None:
            small.block, small.is_known = block, False
            return small
        self._made += 1
        slot = self._slots[self._made] = _Slot(self._made, block)
        return slot

    def _spans(self, parts: Sequence[NDArray[Any]]) -> list[tuple[int, int]]:
        """Where each part is in the slot; those that are not yet are brought there."""
        spans, outside = [], []
        start, stop, used = self._start, self._start + len(self._bytes), self._used
        for place, part in enumerate(parts):
            address, nbytes = part.__array_interface__["data"][0], part.nbytes
            if start <= address and address + nbytes <= stop and nbytes:
                spans.append((address - start, nbytes))
            else:
                outside.append(place)
                spans.append((used, nbytes))
                used += _aligned(nbytes)
        if not outside:
            return spans
        if used > stop - start or self._slot is None:
            return self._moved(parts)
        for place in outside:
            self._write(parts[place], spans[place][0])
        self._used = used
        return spans

    def _moved(self, parts: Sequence[NDArray[Any]]) -> list[tuple[int, int]]:
        """The parts in another slot, large enough for all of them; no spans where there is no memory for it."""
        sizes = [part.nbytes for part in parts]
        needed, small = sum(map(_aligned, sizes)), self._slot
        slot = self._found(needed) or self._new(needed, small)
        self._enter(slot)
        if small is not None and small is not slot:
            if small.is_known:
                self._free.append(small)
            else:
                del self._slots[small.number]  # nobody has seen it, and it is too small
        if slot is None:
            return []
        spans = []
        for part, nbytes in zip(parts, sizes, strict=True):
            spans.append((self._used, nbytes))
            self._write(part, self._used)
            self._used += _aligned(nbytes)
        return spans

    def _write(self, part: NDArray[Any], offset: int) -> None:
        np.ndarray(part.shape, part.dtype, self._bytes, offset)[...] = part


_NOTHING = np.empty(0, np.uint8)


class _Lease(weakref.ref[memoryview]):
    """A slot that is in use; called back when its owner is dead."""

    __slots__ = ("slot",)
    slot: int


class Quota:
    """How many slots of all workers together may be in use by whoever takes the batches.

    Args:
        limit: so many; beyond, batches are copied out of their slots.
        share: how many slots a worker keeps, if so many are not in use.

    Attributes:
        leased: how many slots are in use.
    """

    def __init__(self, limit: int, share: int) -> None:
        self.limit = limit
        self.share = share
        self.leased = 0


class SlotReader:
    """The parent's side of one worker's slots."""

    def __init__(self, quota: Quota) -> None:
        self._quota = quota
        self._blocks: dict[int, Block] = {}
        self._leases: dict[int, _Lease] = {}
        self._returned: deque[_Lease] = deque()
        self._build: Unpacker = unpacker(packed(()).description)

    def add(self, number: int, block: Block) -> None:
        """A slot that the worker has made, or made anew."""
        self._blocks[number] = block

    def take(self, slot: int | None, description: bytes, spans: Sequence[tuple[int, int]]) -> Any:
        """The batch that was `Placed` so, as views of its slot."""
        if description:
            self._build = unpacker(description)
        if slot is None:
            return self._build(_NOTHING, ())
        memory, owner = self._blocks[slot].lend()
        lease = self._leases[slot] = _Lease(owner, self._returned.append)
        lease.slot = slot
        quota = self._quota
        quota.leased += 1
        if quota.leased > quota.limit:
            memory = memory[: max([offset + nbytes for offset, nbytes in spans], default=0)].copy()
        return self._build(memory, spans)

    def returned(self) -> tuple[list[int], list[int]]:
        """The slots that nobody sees any more, since the last call: those to be used again, and those to be dropped."""
        free: list[int] = []
        dropped: list[int] = []
        while self._returned:
            number = self._returned.popleft().slot
            del self._leases[number]
            self._quota.leased -= 1
            if len(self._blocks) > self._quota.share:
                del self._blocks[number]
                dropped.append(number)
            else:
                free.append(number)
        return free, dropped

    def close(self) -> None:
        """The worker is dead: its slots go with the last views of them."""
        self._quota.leased -= len(self._leases)
        self._leases.clear()
        self._blocks.clear()
