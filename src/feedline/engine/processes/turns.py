"""How threads that use one pool take turns at it.

Guarantee: a thread that waits for the workers keeps the pool from the others for 50 ms at most, and for 5 ms while
several epochs are under way. One that is alone waits undisturbed, and nobody gives way to nobody.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterable

    from feedline.engine.processes.session import Session

__all__ = ["Turns"]

_LONG_S = 0.05  # another thread may want to close the loader
_SHORT_S = 0.005  # another thread may want its own batches: waking so often costs the process 1 % of a CPU at most
_PAUSE_S = 0.001  # a lock that is taken again at once goes past those who wait for it


class Turns:
    """A lock that one thread may take several times, and that knows who waits for it.

    Attributes:
        acquire, release: the lock's own, of C, for where a context would be felt: once a batch and more.
    """

    def __init__(self) -> None:
        lock = threading.RLock()
        self.acquire = lock.acquire
        self.release = lock.release
        self._waiting: set[int] = set()

    def __enter__(self) -> Self:
        self.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def wait(self) -> None:
        """Take the lock, and say until then that this thread waits for it."""
        thread = threading.get_ident()
        self._waiting.add(thread)
        try:
            self.acquire()
        finally:
            self._waiting.discard(thread)

    def at_most_s(self, patience_s: float | None, sessions: Iterable[Session]) -> float | None:
        """How long of ``patience_s`` a thread may wait at a time; None: for ever."""
        if threading.active_count() == 1:  # no other can come
            return patience_s
        turn_s = _SHORT_S if sum(bool(session.pending) for session in sessions) > 1 else _LONG_S
        return turn_s if patience_s is None else min(turn_s, patience_s)

    def give_way(self) -> None:
        """Let another thread in, if one waits."""
        if self._waiting:
            time.sleep(_PAUSE_S)
