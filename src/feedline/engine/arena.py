"""The arena: memory for batches, made once and used again as soon as nobody sees it any more.

Guarantee (contract 5): memory that was handed out is not handed out again while any view of it lives: a slice, a torch
tensor over it, a DLPack capsule, a JAX array that aliases it. Each allocation has one owner object at the root of
every view's base chain; the callback of a weak reference to it only appends to a deque, whatever thread it runs in.
(A weak reference to the array itself would fire too early: NumPy lets a slice refer to the root, past the array it was
cut from.) The owner keeps the memory, so that batches outlive the arena. Raw addresses are outside the promise.
"""

from __future__ import annotations

import math
import threading
import weakref
from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

__all__ = ["Arena"]

_ALIGNMENT = 64  # a cache line, and what JAX asks for to use memory in place
_SMALLEST = 64 * 1024  # below, the allocator of C hands out warm memory by itself, sooner than an owner is made
_HUGE_PAGE = 2 * 1024 * 1024
_HUGE_FROM = 4 * 1024 * 1024  # from here on NumPy asks Linux for huge pages: writing a batch into one is 5% faster
_KEPT = 4  # free slots kept: two batches alive at a time, in two arrays each, is a common loop


class _Slot:
    """A stretch of memory, aligned; to a huge page where it is worth one."""

    __slots__ = ("address", "memory", "nbytes")

    def __init__(self, nbytes: int) -> None:
        size = max(nbytes + _ALIGNMENT, _HUGE_FROM if nbytes >= _HUGE_FROM // 4 else 0)
        self.memory = np.empty(size, dtype=np.uint8)
        start = self.memory.__array_interface__["data"][0]
        ahead = -start % _HUGE_PAGE
        self.address = start + (ahead if ahead + nbytes <= size else -start % _ALIGNMENT)
        self.nbytes = nbytes


class _Owner:
    """What every view of an allocation refers to in the end."""

    __slots__ = ("__array_interface__", "__weakref__", "_slot")

    def __init__(self, slot: _Slot, interface: dict[str, Any]) -> None:
        self._slot = slot
        self.__array_interface__ = interface


class _Lease(weakref.ref[_Owner]):
    """A slot that is in use; called back when its owner is dead."""

    __slots__ = ("slot",)
    slot: _Slot


class Arena:
    """Hands out arrays whose memory returns when the last view of them is dead. Several threads may use it.

    Example:
        >>> arena = Arena()
        >>> first = arena.empty((512, 32, 32, 3), np.uint8)
        >>> address = first.ctypes.data
        >>> part = first[100:]
        >>> del first
        >>> arena.empty((512, 32, 32, 3), np.uint8).ctypes.data == address  # a view of it lives
        False
        >>> del part
        >>> arena.empty((512, 32, 32, 3), np.uint8).ctypes.data == address
        True
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._free: list[_Slot] = []
        self._leases: dict[int, _Lease] = {}
        self._returned: deque[_Lease] = deque()

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """A new array, uninitialised, C-contiguous, 64-byte aligned where it is 64 KiB or more."""
        dtype = np.dtype(dtype)
        nbytes = math.prod(shape) * dtype.itemsize
        if nbytes < _SMALLEST or dtype.kind not in "biufc":
            return np.empty(shape, dtype)
        with self._lock:
            if self._returned:
                self._collect()
            slot = self._slot(nbytes)
            data = {"data": (slot.address, False), "shape": shape, "typestr": dtype.str, "version": 3}
            owner = _Owner(slot, data)
            lease = _Lease(owner, self._returned.append)
            lease.slot = slot
            self._leases[id(lease)] = lease
        return np.asarray(owner)

    def close(self) -> None:
        """Give free memory back; what is in use goes with its last view. The arena can still be used."""
        with self._lock:
            self._collect()
            self._free.clear()

    @property
    def nbytes(self) -> int:
        """The memory held: in use and free."""
        with self._lock:
            self._collect()
            return sum(slot.nbytes for slot in self._free) + sum(lease.slot.nbytes for lease in self._leases.values())

    def _slot(self, nbytes: int) -> _Slot:
        """A free slot that is large enough and not twice as large as that, or a new one."""
        for place in reversed(range(len(self._free))):  # the last one used is the warmest
            if nbytes <= self._free[place].nbytes <= 2 * nbytes:
                return self._free.pop(place)
        return _Slot(nbytes)

    def _collect(self) -> None:
        """Take back the slots whose owners died; the oldest free ones beyond a few are given up."""
        while self._returned:
            lease = self._returned.popleft()
            del self._leases[id(lease)]
            self._free.append(lease.slot)
        del self._free[:-_KEPT]
