"""What a worker process does before anything else, and what it takes over from its parent.

Guarantee (contracts 6 and 8): Ctrl-C is ignored from its first instruction on; it ends when its parent does, however
that ends: on Linux the kernel kills it, even while it holds the GIL; it leaves its stack when it crashes; the user's
code finds there the surroundings that it has in the parent.
"""

from __future__ import annotations

import faulthandler
import importlib
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import warnings
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cloudpickle
import threadpoolctl  # type: ignore[import-untyped]

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.connection import Connection

__all__ = ["Deaf", "Surroundings", "become_worker", "begin", "capture", "find_libraries"]

_LINUX = sys.platform == "linux"


class Deaf:
    """Where it is unpickled, Ctrl-C is ignored from then on."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _ignore_interrupts, ()


def _ignore_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def begin(_: object, lifeline: Connection | None, target: Callable[..., object], args: tuple[Any, ...]) -> None:
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

    The process is for the scheduler a batch job from now on: it has its share of the CPU, but is not put in place of
    the training loop in the middle of the very ``next()`` that wakes it, which took 3 ms each time.

    Called first thing in a process of a `Starter`. Whoever has the descriptor reads it from position 0 (``os.pread``).
    """
    with suppress(AttributeError, OSError):  # AttributeError: not Linux
        if os.sched_getscheduler(0) == os.SCHED_OTHER:  # the user's choice of another stays
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    try:
        if hasattr(os, "memfd_create"):
            descriptor = os.memfd_create("feedline-stack", os.MFD_CLOEXEC)
        else:
            import tempfile

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
        with suppress(OSError), open("/proc/self/comm", "wb", buffering=0) as file:  # noqa: PTH123 -- it is no path
            file.write(name.encode())


_libraries: tuple[int, threadpoolctl.ThreadpoolController] | None = None


def find_libraries() -> threadpoolctl.ThreadpoolController:
    """The libraries of this process that have threads of their own; looked for again when modules were imported since.

    A worker to be forked takes over what its parent has found: if it looked itself, the kernel would have to copy
    thousands of pages for it, for 6 to 9 ms.
    """
    global _libraries  # noqa: PLW0603 -- one to a process, as the libraries
    if _libraries is None or _libraries[0] != len(sys.modules):
        _libraries = len(sys.modules), threadpoolctl.ThreadpoolController()
    return _libraries[1]


def _use_one_thread() -> None:
    libraries = find_libraries() if _libraries is None else _libraries[1]
    libraries.limit(limits=1)  # BLAS and OpenMP, as loaded; those that come read the environment
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
