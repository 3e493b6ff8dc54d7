"""How threads that use one pool take turns at it.

Guarantee: a thread that waits for the workers keeps the pool from the others for 50 ms at most, and for 5 ms while
several epochs are under way. One that is alone waits undisturbed.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from feedline.engine.processes.session import Session

__all__ = ["at_most_s", "give_way"]

_LONG_S = 0.05  # another thread may want to close the loader
_SHORT_S = 0.005  # another thread may want its own batches: waking so often costs the process 1 % of a CPU at most
_PAUSE_S = 0.001  # a lock that is taken again at once goes past those who wait for it


def at_most_s(patience_s: float | None, sessions: Iterable[Session]) -> float | None:
    """How long of ``patience_s`` a thread may wait at a time; None: for ever."""
    if threading.active_count() == 1:  # no other can come
        return patience_s
    turn_s = _SHORT_S if sum(bool(session.pending) for session in sessions) > 1 else _LONG_S
    return turn_s if patience_s is None else min(turn_s, patience_s)


def give_way() -> None:
    """Let another thread in, if there is one."""
    if threading.active_count() > 1:
        time.sleep(_PAUSE_S)
