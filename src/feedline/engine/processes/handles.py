"""Open things that a dataset holds, and how they are sent: files, memory maps, multiprocessing's objects.

Guarantee: none is copied by its content. A regular file that is open for reading, and a memory map, are opened again
in the worker, where they have an offset of their own; multiprocessing's objects stay shared. What cannot be sent
raises `Refused` with the reason.
"""

from __future__ import annotations

import gc
import io
import mmap
import os
import stat
import sys
import weakref
from multiprocessing import util
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from feedline.errors import FeedlineError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["OPEN", "Refused"]

_FILES = (
    io.TextIOWrapper, io.BufferedReader, io.BufferedWriter, io.BufferedRandom, io.BufferedRWPair, io.FileIO,
)  # fmt: skip
OPEN = {"h5py", "lmdb", "sqlite3"}  # packages whose objects are handles
_MODES = {"w+": "r+"}  # opened as it was made, a memory map would be emptied


class Refused(Exception):  # noqa: N818 -- no error yet: whoever knows the attribute path makes it one
    """An object cannot be sent; says what it is."""


def article(name: str) -> str:
    """The name with its indefinite article.

    Example:
        >>> article("_thread.lock"), article("io.FileIO")
        ('a _thread.lock', 'an io.FileIO')
    """
    return f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"


def name_of(kind: type) -> str:
    """A class's name with its module's."""
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def identity(value: Any) -> Any:
    """What was sent."""
    return value


def refuse(obj: Any) -> Any:
    """Refuse an open handle by its class."""
    raise Refused(f"it is {article(name_of(type(obj)))}")


def reduce_file(file: Any) -> Any:
    """A regular file that is open for reading: its path and position."""
    for standard in ("stdin", "stdout", "stderr"):
        if file is getattr(sys, standard):
            return getattr, (sys, standard)
    if type(file) not in _FILES:
        return NotImplemented
    if file.closed:
        raise Refused("it is a closed file")
    raw = file.buffer if isinstance(file, io.TextIOWrapper) else file
    raw = getattr(raw, "raw", raw)
    if type(raw) is not io.FileIO:
        raise Refused(f"it is {article(name_of(type(file)))} over {article(name_of(type(raw)))}, which has no file")
    if file.writable():
        raise Refused("it is a file open for writing")
    path = _path_of(raw)
    try:
        position = file.tell()
    except OSError as error:
        raise Refused(f"it is the open file {path}, whose position is not known ({error})") from error
    text = None
    if isinstance(file, io.TextIOWrapper):
        text = {"encoding": file.encoding, "errors": file.errors, "newline": _newline_of(file)}
    return reopen_file, (path, file is not raw, text, position)


def _path_of(raw: io.FileIO) -> str:
    """The path that leads to an open file, still."""
    opened = os.fstat(raw.fileno())
    if not stat.S_ISREG(opened.st_mode):
        raise Refused("it is an open pipe, socket or device")
    if isinstance(raw.name, int):
        raise Refused("it is a file opened by its descriptor, without a path")
    path = Path(os.fsdecode(raw.name)).absolute()
    try:
        found = path.stat()
    except OSError as error:
        raise Refused(f"it is the open file {path}, which is gone") from error
    if not os.path.samestat(opened, found):
        raise Refused(f"it is the open file {path}, in whose place there is another one now")
    return str(path)


def _newline_of(file: io.TextIOWrapper) -> str | None:
    """The ``newline`` that a text file was opened with, which it does not tell: asked of its decoder."""
    parts = gc.get_referents(file)
    decoder = next((part for part in parts if isinstance(part, io.IncrementalNewlineDecoder)), None)
    if decoder is None:
        return next((part for part in parts if part in ("\n", "\r", "\r\n")), "\n")
    state = decoder.getstate()
    decoder.reset()
    translates = decoder.decode("\r\n".encode(file.encoding), final=True) == "\n"
    decoder.reset()  # as `tell` does
    decoder.setstate(state)
    return None if translates else ""


def reopen_file(path: str, buffered: bool, text: dict[str, Any] | None, position: int) -> Any:  # noqa: FBT001
    """The file at ``path``, open for reading as the one that was sent."""
    if text is None:
        file: Any = Path(path).open("rb", buffering=-1 if buffered else 0)  # noqa: SIM115 -- the user's object's
    else:
        file = Path(path).open(**text)  # noqa: SIM115
    file.seek(position)
    return file


def map_of(array: NDArray[Any]) -> Any:
    """The memory map that an array is, or is a view of; None where there is none, or its file has no name."""
    base: Any = array
    while base is not None:
        below = base.obj if isinstance(base, memoryview) else getattr(base, "base", None)
        if isinstance(below, mmap.mmap):
            return base if getattr(base, "filename", None) is not None else None
        base = below
    return None


def reduce_map(array: Any, root: Any) -> Any:
    """A memory map: its file and layout. A view of one: the map and where it lies in it."""
    if array is not root:
        start = array.__array_interface__["data"][0] - root.__array_interface__["data"][0]
        layout = (array.dtype, array.shape, array.strides, start)
        return view_map, (root, layout, isinstance(array, np.memmap), array.flags.writeable)
    end = root.offset + root.nbytes
    try:
        size = Path(root.filename).stat().st_size
    except OSError as error:
        raise Refused(f"it maps the file {root.filename}, which is gone") from error
    if size < end:
        raise Refused(f"it maps {end} bytes of the file {root.filename}, which has {size} now")
    order = "C" if root.flags.c_contiguous else "F"
    mode = _MODES.get(root.mode, root.mode)
    return reopen_map, (str(root.filename), root.dtype, mode, root.offset, root.shape, order)


def reopen_map(*parts: Any) -> Any:
    """The file mapped again; of filename, dtype, mode, offset, shape and order."""
    filename, dtype, mode, offset, shape, order = parts
    try:
        return np.memmap(filename, dtype, mode, offset, shape, order)
    except (OSError, ValueError) as error:
        raise FeedlineError(f"the file {filename} cannot be mapped again in the worker: {error}") from error


def view_map(root: Any, layout: tuple[Any, ...], is_map: bool, writeable: bool) -> Any:  # noqa: FBT001
    """A view of a memory map; a memory map too if ``is_map``."""
    dtype, shape, strides, start = layout
    flat = root.reshape(-1, order="A").view(np.ndarray).view(np.uint8)
    view: Any = np.ndarray.__new__(np.memmap if is_map else np.ndarray, shape, dtype, flat, start, strides)
    if is_map:
        for name in ("_mmap", "filename", "mode", "offset"):
            setattr(view, name, getattr(root, name))
    if not writeable:
        view.flags.writeable = False
    return view


def is_shared(obj: Any) -> bool:
    """Whether an object of a class that multiprocessing knows is of multiprocessing: plain ctypes have no wrapper."""
    return type(obj).__module__.startswith("multiprocessing") or hasattr(obj, "_wrapper")


def is_fork_lock(lock: Any) -> bool:
    """Whether a multiprocessing lock (semaphore) has no name by which others than forks could open it."""
    return bool(lock._is_fork_ctx)  # noqa: SLF001 -- no public name


def inherited_lock(number: int, handle: int) -> Any:
    """The lock itself, in a fork of the process that made it.

    One made anew of the handle would close the semaphore of all others of this process when it is collected.
    """
    from multiprocessing import synchronize  # it is there: a lock has come

    for lock in list(util._afterfork_registry.values()):  # type: ignore[attr-defined]  # noqa: SLF001
        if id(lock) == number and isinstance(lock, synchronize.SemLock) and lock._semlock.handle == handle:  # type: ignore[attr-defined]  # noqa: SLF001
            return lock
    raise FeedlineError("a multiprocessing lock of the dataset was made after this worker was forked; make it before")


def reduce_arena(arena: Any) -> Any:
    """The memory of multiprocessing's values and arrays."""
    return rebuild_arena, (arena.size, DupFd(arena.fd))


def rebuild_arena(size: int, sent: Any) -> Any:
    """The memory, mapped again; multiprocessing itself would leave the descriptor open for ever."""
    from multiprocessing import heap  # 4 ms that loaders without its values are spared

    descriptor = sent.detach()
    arena = heap.Arena(size, descriptor)
    weakref.finalize(arena, os.close, descriptor)
    return arena
