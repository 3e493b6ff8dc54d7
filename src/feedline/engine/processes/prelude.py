"""What the server of forked processes (``forkserver``) imports ahead, so that workers need not.

Guarantee: importing this imports what every worker needs. In the server it also lets Ctrl-C through again in all
processes that are forked there: those of ours ignore it by then, others get it as ever.
"""

from __future__ import annotations

import importlib
import signal
import sys
from contextlib import suppress
from multiprocessing import util

import feedline.engine.processes.worker  # noqa: F401 -- imported for those who are forked

__all__: list[str] = []

_IN_SERVER = sys.orig_argv[-1:] and sys.orig_argv[-1].startswith("from multiprocessing.forkserver import main")


def _let_interrupts_through(_: object) -> None:
    """Called in each forked process when it has unpickled what it is to do: a worker ignores interrupts since then."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


if _IN_SERVER:
    for name in ("ctypes", "threadpoolctl"):
        with suppress(ImportError):
            importlib.import_module(name)
    # It was started with interrupts blocked; they stay so in the server itself, which ignores them.
    util.register_after_fork(_let_interrupts_through, _let_interrupts_through)
