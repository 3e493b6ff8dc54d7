"""Memory without a name, which other processes map by a descriptor that they are sent.

Guarantee (contract 6): a block is gone with the last process that maps it, however that process ends. On Linux it
takes nothing of /dev/shm. Elsewhere it has a name only until that is removed, at once; multiprocessing's tracker of
resources has no part in it. Where the system can promise memory (Linux, FreeBSD), a block's pages are there when
`Block.create` returns: writing to them later raises no bus error.
"""

from __future__ import annotations

import errno
import importlib
import mmap
import os
import secrets
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Block", "block_of"]

_PAGE = mmap.PAGESIZE
ANONYMOUS = hasattr(os, "memfd_create")  # Linux: memory that never has a name


class Block:
    """A stretch of shared memory.

    Attributes:
        nbytes: its size, a multiple of the page size.
        address: where it begins in this process.
    """

    def __init__(self, memory: mmap.mmap, nbytes: int, *, descriptor: int | None = None) -> None:
        self._memory = memory
        self._descriptor = descriptor
        self.nbytes = nbytes
        self.address: int = np.frombuffer(memory, np.uint8).__array_interface__["data"][0]
        # Makes ``numpy.asarray(block)`` its bytes; the block lives as long as any view of that array.
        self.__array_interface__: dict[str, Any] = {
            "data": (self.address, False), "shape": (nbytes,), "typestr": "|u1", "version": 3,
        }  # fmt: skip

    def lend(self) -> tuple[NDArray[np.uint8], memoryview]:
        """Its bytes as an array, and the owner of this use of them, which dies with the last view of that array.

        The owner, a buffer, stands at the root of every view's base chain. (The array itself dies sooner: NumPy lets a
        slice refer to what is behind the array that it was cut from.)
        """
        memory = np.frombuffer(self._memory, np.uint8)
        owner: Any = memory.base
        return memory, owner

    @property
    def descriptor(self) -> int:
        """The descriptor to pass to another process; of a block that this process made."""
        if self._descriptor is None:
            raise ValueError("the block has no descriptor: it was attached, or its descriptor was closed")
        return self._descriptor

    @property
    def sendable(self) -> bool:
        """Whether another process can be given the block."""
        return self._descriptor is not None

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
        descriptor = _opened()
        if descriptor is None:
            return cls(mmap.mmap(-1, size), size)
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(descriptor, 0, size)
            else:
                os.ftruncate(descriptor, size)
            memory = mmap.mmap(descriptor, size)
        except BaseException:
            os.close(descriptor)
            raise
        return cls(memory, size, descriptor=descriptor)

    @classmethod
    def attach(cls, nbytes: int, *, descriptor: int, private: bool) -> Block:
        """The block that another process made.

        Args:
            nbytes: its size.
            descriptor: its descriptor in this process; it is closed, whatever happens.
            private: whether writes stay in this process (copy-on-write). Where the system has no such maps of shared
                memory (macOS), all processes see them.
        """
        try:
            memory = _mapped(descriptor, nbytes, private=private)
        finally:
            os.close(descriptor)
        return cls(memory, nbytes)


def _opened() -> int | None:
    """A descriptor of new memory, of no size yet; None where the system has none that can be passed on (Windows)."""
    if ANONYMOUS:
        return os.memfd_create("feedline", os.MFD_CLOEXEC)
    try:
        # What multiprocessing.shared_memory is made of, which itself would keep the name, and have it tracked.
        posix: Any = importlib.import_module("_posixshmem")
    except ImportError:
        return None
    name = f"/fl_{secrets.token_hex(8)}"  # macOS takes 30 characters
    descriptor: int = posix.shm_open(name, os.O_CREAT | os.O_EXCL | os.O_RDWR, mode=0o600)
    posix.shm_unlink(name)
    return descriptor


def _mapped(descriptor: int, nbytes: int, *, private: bool) -> mmap.mmap:
    if private:
        try:
            return mmap.mmap(descriptor, nbytes, flags=mmap.MAP_PRIVATE)
        except OSError as error:
            if ANONYMOUS or error.errno != errno.EINVAL:
                raise
    return mmap.mmap(descriptor, nbytes)


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
