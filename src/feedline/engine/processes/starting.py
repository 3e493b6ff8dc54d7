"""How a worker process is started: what it must not import, and whom it dies with.

Guarantee (contracts 6 and 8): a worker never imports the user's main module, so that scripts without a guard work. No
Ctrl-C reaches it, from its first instruction on. It ends when its parent does, however that ends: on Linux the kernel
kills it, even while it holds the GIL. `Starter.start` gives a process that runs, or raises and leaves none. Other
processes that the user starts are unaffected.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import warnings
import weakref
from contextlib import contextmanager, nullcontext, suppress
from multiprocessing import connection, spawn
from typing import TYPE_CHECKING, Any

from feedline.engine.processes import ahead
from feedline.engine.processes.becoming import Deaf, begin, find_libraries

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.connection import Connection
    from multiprocessing.context import BaseContext
    from multiprocessing.process import BaseProcess
    from types import FrameType

__all__ = ["Starter"]

_LINUX = sys.platform == "linux"

# What the server of forked processes imports ahead if workers will need it: importing these starts no thread. Others
# do, or start one soon (jax, tensorflow, polars), and are left to the workers.
_PRELOADED = ("torch", "torchvision", "cv2", "PIL.Image", "scipy", "pandas", "h5py", "simplejpeg")
_PRELUDE = "feedline.engine.processes.prelude"

_hiding = threading.RLock()  # one start at a time: each puts its own function in place of multiprocessing's


class Starter:
    """Starts worker processes, which end when the starter is collected.

    Args:
        context: the user's multiprocessing context; None: ``forkserver`` on Linux, elsewhere what Python prefers.

    Attributes:
        context: the context that is used.
        method: its start method: ``"fork"``, ``"forkserver"`` or ``"spawn"``.
        may_fork: whether `forking` may be used: the user has not asked for a start method.
    """

    def __init__(self, context: BaseContext | None = None) -> None:
        self.context: Any = context or multiprocessing.get_context("forkserver" if _LINUX else None)
        self.method: str = self.context.get_start_method()
        self.may_fork = context is None and "fork" in multiprocessing.get_all_start_methods()
        self._lifeline: tuple[Connection, Connection] | None = None  # ends for the workers, and for this process
        self._warned = False
        _starters.add(self)

    def forking(self) -> Starter:
        """A starter that forks this process."""
        return Starter(multiprocessing.get_context("fork"))

    def prepare(self, payload: bytes | memoryview = b"") -> None:
        """Start, without waiting for it, what must run before a worker can: the server of ``forkserver``.

        Args:
            payload: a pickle of what workers will be sent: the server imports ahead what it refers to.
        """
        if self.method == "fork" or sys.platform == "win32":
            return
        from multiprocessing import resource_tracker

        resource_tracker.ensure_running()  # beforehand: starting it unblocks Ctrl-C
        if self.method == "forkserver":
            from multiprocessing import forkserver

            self._preload(forkserver, payload)
            with _hidden_main(), _interrupts_held():
                forkserver.ensure_running()

    def start(self, target: Callable[..., object], args: tuple[Any, ...], name: str) -> BaseProcess:
        """A new daemonic process that runs ``target(*args)``, started.

        Both are pickled, as multiprocessing does it, unless the process is forked. ``target`` calls `become_worker`.

        Raises:
            OSError: there is no process, descriptor or memory for it.
        """
        self.prepare()
        if self.method == "fork":
            self._warn_of_threads()
            find_libraries()
        if _LINUX and self._lifeline is None:
            self._lifeline = connection.Pipe(duplex=False)
        lifeline = None if self._lifeline is None else self._lifeline[0]
        process: BaseProcess = self.context.Process(
            target=begin, args=(Deaf(), lifeline, target, args), name=name, daemon=True
        )
        try:
            with nullcontext() if self.method == "fork" else _hidden_main(), _interrupts_held():
                process.start()
        except BaseException:  # Ctrl-C comes when it is held no more: the process has started by then
            if process.pid is not None:
                process.kill()
                process.join()
            raise
        return process

    def _preload(self, forkserver: Any, payload: bytes | memoryview) -> None:
        """Have the server import what workers need, besides what the user wants it to."""
        known = getattr(getattr(forkserver, "_forkserver", None), "_preload_modules", None) or ["__main__"]
        ours = ["numpy", *ahead.needed(payload, _PRELOADED), _PRELUDE]
        self.context.set_forkserver_preload([name for name in known if name not in ours] + ours)

    def _warn_of_threads(self) -> None:
        others = threading.active_count() - 1
        if others and not self._warned:
            self._warned = True
            warnings.warn(
                f"fork with {others} other thread{'s' * (others > 1)} alive may deadlock: a lock that one holds "
                f"stays locked in the worker for ever; use 'forkserver' or 'spawn' as multiprocessing_context",
                stacklevel=3,
            )

    def close(self, first: int = 0) -> None:
        """End the processes that are left, by closing the pipe they live on; a further start opens another.

        A forked process closes its copy of our end (the ``first`` is 1): workers would live as long as it does.
        """
        lifeline, self._lifeline = self._lifeline, None
        for end in (lifeline or ())[first:]:
            end.close()


_starters: weakref.WeakSet[Starter] = weakref.WeakSet()


def _forget_parents() -> None:
    """In a forked process: workers are its parent's, and so is the server, which starts none for it."""
    for starter in list(_starters):
        starter.close(1)
    server: Any = getattr(sys.modules.get("multiprocessing.forkserver"), "_forkserver", None)
    if getattr(server, "_forkserver_pid", None) is not None:
        with suppress(OSError):
            os.close(server._forkserver_alive_fd)  # noqa: SLF001 -- the standard library leaves its clients unusable
        server._forkserver_pid = server._forkserver_address = server._forkserver_alive_fd = None  # noqa: SLF001


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_parents)


@contextmanager
def _hidden_main() -> Iterator[None]:
    """Processes that this thread starts are not told where the user's main module is."""
    thread = threading.get_ident()
    with _hiding:
        original = spawn.get_preparation_data

        def prepared(name: str) -> dict[str, Any]:
            data: dict[str, Any] = original(name)
            if threading.get_ident() == thread:
                data.pop("init_main_from_name", None)
                data.pop("init_main_from_path", None)
            return data

        spawn.get_preparation_data = prepared
        try:
            yield
        finally:
            spawn.get_preparation_data = original


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Ctrl-C waits, here and in processes that are started here: these are not ready to ignore it.

    Blocking it serves the processes, which inherit that. Here another thread may take it (NumPy's BLAS has some), and
    Python would raise KeyboardInterrupt in the midst of a start all the same; hence the handler.
    """
    held: list[tuple[int, FrameType | None]] = []
    handler = signal.getsignal(signal.SIGINT)
    handles = callable(handler) and threading.current_thread() is threading.main_thread()
    if handles:
        signal.signal(signal.SIGINT, lambda *arrived: held.append(arrived))
    masks = hasattr(signal, "pthread_sigmask")
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT}) if masks else ()
    try:
        yield
    finally:
        if masks:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if handles:
            signal.signal(signal.SIGINT, handler)
        if held and callable(handler):
            handler(*held[0])
