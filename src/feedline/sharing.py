"""Memory that other processes map: anonymous on Linux, named elsewhere.

Guarantee (contract 6): on Linux a block has no name and takes nothing of /dev/shm; it is gone with the last process
that maps it, however that process ends. Its pages are there when `Block.create` returns: writing to them later raises
no bus error.
"""

from __future__ import annotations

import mmap
import os
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Block", "block_of"]

_PAGE = mmap.PAGESIZE
ANONYMOUS = hasattr(os, "memfd_create")  # Linux


class Block:
    """A stretch of shared memory.

    Attributes:
        nbytes: its size, a multiple of the page size.
        name: by which other processes find it; None for an anonymous one, whose descriptor is passed to them.
    """

    def __init__(self, memory: Any, nbytes: int, *, descriptor: int | None = None, name: str | None = None) -> None:
        self._memory = memory  # what keeps the mapping: an mmap, or a SharedMemory
        self._descriptor = descriptor
        self.nbytes = nbytes
        self.name = name
        buffer = memory if name is None else memory.buf
        self.address: int = np.frombuffer(buffer, np.uint8).__array_interface__["data"][0]

    @property
    def __array_interface__(self) -> dict[str, Any]:
        """Makes ``numpy.asarray(block)`` its bytes; the block lives as long as any view of that array."""
        return {"data": (self.address, False), "shape": (self.nbytes,), "typestr": "|u1", "version": 3}

    @property
    def descriptor(self) -> int:
        """The descriptor to pass to another process; an anonymous block's that this process made."""
        if self._descriptor is None:
            raise ValueError("the block has no descriptor: it has a name, was attached, or its descriptor was closed")
        return self._descriptor

    @property
    def sendable(self) -> bool:
        """Whether another process can be given the block."""
        return self._descriptor is not None or self.name is not None

    def close_descriptor(self) -> None:
        """Close the descriptor, which is needed no more once all have it; the memory stays. May be called again."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def __del__(self) -> None:
        if getattr(self, "_descriptor", None) is not None:
            self.close_descriptor()

    @classmethod
    def create(cls, nbytes: int) -> Block:
        """A new block of at least ``nbytes``, of zeros.

        Raises:
            OSError: there is no memory, or no descriptor, for it.
        """
        size = max(_PAGE, -(-nbytes // _PAGE) * _PAGE)
        if not ANONYMOUS:
            segment = _named()(create=True, size=size)
            return cls(segment, size, name=segment.name)
        descriptor = os.memfd_create("feedline", os.MFD_CLOEXEC)
        try:
            os.posix_fallocate(descriptor, 0, size)
            memory = mmap.mmap(descriptor, size)
        except BaseException:
            os.close(descriptor)
            raise
        return cls(memory, size, descriptor=descriptor)

    @classmethod
    def attach(cls, nbytes: int, *, descriptor: int | None = None, name: str | None = None, private: bool) -> Block:
        """The block that another process made.

        Args:
            nbytes: its size.
            descriptor: of an anonymous one; it is closed, whatever happens.
            name: of a named one.
            private: whether writes stay in this process (copy-on-write; anonymous blocks only).
        """
        if descriptor is None:
            segment = _named()(name=name)
            return cls(segment, nbytes, name=name)
        try:
            memory = mmap.mmap(descriptor, nbytes, flags=mmap.MAP_PRIVATE if private else mmap.MAP_SHARED)
        finally:
            os.close(descriptor)
        return cls(memory, nbytes)


def _named() -> Any:
    """The class of named segments; importing it takes 6 ms, which Linux is spared."""
    from multiprocessing.shared_memory import SharedMemory

    return SharedMemory


def block_of(array: NDArray[Any]) -> Block | None:
    """The block in whose memory an array lies, if there is one: the root of its base chain.

    Example:
        >>> block = Block.create(100)
        >>> block_of(np.asarray(block)[3:].view(np.int8)) is block, block_of(np.zeros(3)) is None
        (True, True)
    """
    base: Any = array
    while base is not None and not isinstance(base, Block):
        base = base.obj if isinstance(base, memoryview) else getattr(base, "base", None)
    return base
