"""How a worker process comes up: what it must not import, whom it dies with, what it takes over from its parent.

Guarantee (contracts 6 and 8): a worker never imports the user's main module, so that scripts without a guard work. No
Ctrl-C reaches it, from its first instruction on. It ends when its parent does, however that ends: on Linux the kernel
kills it, even while it holds the GIL. `Starter.start` gives a process that runs, or raises and leaves none. Other
processes that the user starts are unaffected.
"""

from __future__ import annotations

import faulthandler
import importlib
import multiprocessing
import os
import pickle
import signal
import sys
import tempfile
import threading
import warnings
import weakref
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from multiprocessing import connection, spawn
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cloudpickle

from feedline.engine.processes import ahead

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.connection import Connection
    from multiprocessing.context import BaseContext
    from multiprocessing.process import BaseProcess
    from types import FrameType

__all__ = ["Starter", "Surroundings", "become_worker", "capture"]

_LINUX = sys.platform == "linux"

# ------------------------------------------------------------------------------------------------------ in the parent

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
        if _LINUX and self._lifeline is None:
            self._lifeline = connection.Pipe(duplex=False)
        lifeline = None if self._lifeline is None else self._lifeline[0]
        process: BaseProcess = self.context.Process(
            target=_begin, args=(_Deaf(), lifeline, target, args), name=name, daemon=True
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
                f"fork with {others} other threads alive may deadlock: a lock that one of them holds stays locked in "
                f"the worker for ever; use 'forkserver' or 'spawn' as multiprocessing_context",
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


def _forget_lifelines() -> None:
    for starter in list(_starters):
        starter.close(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_lifelines)


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


# ------------------------------------------------------------------------------------------------------ in the worker


class _Deaf:
    """Where it is unpickled, Ctrl-C is ignored from then on."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _ignore_interrupts, ()


def _ignore_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _begin(_: object, lifeline: Connection | None, target: Callable[..., object], args: tuple[Any, ...]) -> None:
    """The first function of a worker."""
    _ignore_interrupts()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.set_wakeup_fd(-1)  # a parent with an event loop would be woken by the signals of its forked child
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    _die_with_server()
    if lifeline is None or not _die_at_the_end_of(lifeline):
        threading.Thread(target=_die_with_parent, name="feedline-parent", daemon=True).start()
    target(*args)


def _die_at_the_end_of(lifeline: Connection) -> bool:
    """Have the kernel kill this process when the other end of a pipe is closed; False where it will not.

    The pipe is opened anew, since whom the kernel signals is a property of the opening, which workers would share.
    Nothing is ever written to the pipe. (multiprocessing's own would do for none of this: the parent writes to it.)
    """
    import fcntl

    try:
        own = os.open(f"/proc/self/fd/{lifeline.fileno()}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        fcntl.fcntl(own, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(own, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(own, fcntl.F_SETFL, os.O_NONBLOCK | os.O_ASYNC)
    except OSError:  # there is no /proc
        return False
    lifeline.close()
    with suppress(BlockingIOError):  # what an open pipe gives
        os.read(own, 1)
        os._exit(1)  # the parent was gone before
    return True


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _die_with_server() -> None:
    """Under ``forkserver``, end with the server: it alone can tell the parent that this process has ended."""
    parent = multiprocessing.parent_process()
    if not _LINUX or parent is None or os.getppid() == parent.pid:
        return
    import ctypes

    server = os.getppid()
    set_parent_death_signal = 1  # PR_SET_PDEATHSIG of <sys/prctl.h>
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != server:
        os._exit(1)


def become_worker() -> int | None:
    """Write down the stack when this process crashes; the descriptor of where, or None where there is no such file.

    Called first thing in a process of a `Starter`. Whoever has the descriptor reads it from position 0 (``os.pread``).
    """
    try:
        if hasattr(os, "memfd_create"):
            descriptor = os.memfd_create("feedline-stack", os.MFD_CLOEXEC)
        else:
            with tempfile.TemporaryFile() as file:
                descriptor = os.dup(file.fileno())
        faulthandler.enable(descriptor)
    except OSError:
        return None
    return descriptor


# --------------------------------------------------------------------------------------------------- what is taken over

# Read by libraries when they are loaded: workers share the processor by being many.
_SINGLE = dict.fromkeys(
    (
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "MKL_NUM_THREADS",
        "BLIS_NUM_THREADS",
        "VECLIB_MAXIMUM_THREADS",
        "NUMEXPR_NUM_THREADS",
        "OPENCV_FOR_THREADS_NUM",
    ),
    "1",
)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a worker takes over from its parent, so that the user's code finds there what it finds here.

    Attributes:
        environ: the environment.
        folder: the working directory; None: it is gone.
        path: where modules are searched.
        filters: the filters of warnings: each the package of its category, and pickled.
        dtype: the name of torch's default dtype; None: torch is not there.
    """

    environ: dict[str, str]
    folder: str | None
    path: tuple[str, ...]
    filters: tuple[tuple[str, bytes], ...]
    dtype: str | None

    def enter(self, number: int) -> None:
        """Take it over, as worker ``number``; libraries that are there, or come later, use one thread."""
        _name_process(f"feedline-{number}")
        environ = self.environ | _SINGLE
        if "jax" not in sys.modules:  # forked from a process that has it, its backends are chosen
            environ["JAX_PLATFORMS"] = "cpu"
        for name in os.environ.keys() - environ.keys():
            del os.environ[name]
        os.environ.update(environ)
        if self.folder is not None:
            with suppress(OSError):
                os.chdir(self.folder)
        sys.path[:] = self.path
        warnings.resetwarnings()  # also has every module ask the filters again
        warnings.filters[:] = list(_unpickled(self.filters))  # type: ignore[index] # a list, whatever it is said to be
        _use_one_thread()
        if self.dtype is not None:
            _set_default_dtype(self.dtype)


def capture() -> Surroundings:
    """The surroundings of this process."""
    torch: Any = sys.modules.get("torch")
    folder = None
    with suppress(OSError):
        folder = str(Path.cwd())
    filters = []
    for each in warnings.filters:
        with suppress(Exception):  # a class of warnings that cannot be pickled is none that a worker raises
            pickled = cloudpickle.dumps(each)
            by_value = b"_make_skeleton_class" in pickled  # cloudpickle's: it needs no import
            filters.append(("builtins" if by_value else each[2].__module__.partition(".")[0], pickled))
    return Surroundings(
        environ=dict(os.environ),
        folder=folder,
        path=tuple(sys.path),
        filters=tuple(filters),
        dtype=str(torch.get_default_dtype()).removeprefix("torch.") if hasattr(torch, "get_default_dtype") else None,
    )


def _unpickled(filters: tuple[tuple[str, bytes], ...]) -> Iterator[Any]:
    """The filters of packages that are here: importing torch for one of its warnings would take a second."""
    for package, each in filters:
        with suppress(Exception):  # its class is in a module that is not here
            if package in sys.modules:
                yield pickle.loads(each)  # noqa: S301 -- of our own parent


def _name_process(name: str) -> None:
    """Show a name in the system's lists of processes, where that is a matter of writing it."""
    if _LINUX:
        with suppress(OSError), open("/proc/self/comm", "w", encoding="ascii") as file:  # noqa: PTH123 -- it is no path
            file.write(name)


def _use_one_thread() -> None:
    with suppress(ImportError):
        threadpoolctl = importlib.import_module("threadpoolctl")
        threadpoolctl.threadpool_limits(1)  # BLAS and OpenMP, as loaded; those that come read the environment
    set_torch = getattr(sys.modules.get("torch"), "set_num_threads", None)
    if set_torch is not None:
        set_torch(1)
    set_cv2 = getattr(sys.modules.get("cv2"), "setNumThreads", None)
    if set_cv2 is not None:
        set_cv2(0)  # in a forked process, 1 waits for ever for threads that only the parent has


def _set_default_dtype(name: str) -> None:
    """Import torch for it only if what it defaults to by itself is not what is wanted."""
    if name != "float32" or "torch" in sys.modules:
        with suppress(ImportError):
            torch = importlib.import_module("torch")
            torch.set_default_dtype(getattr(torch, name))
