"""How long workers may take: which are late, and what to say where nothing comes and nothing is due.

Guarantee: a deadline runs while a worker is at a batch, never while it waits for the parent. Monotonic clocks only.
"""

from __future__ import annotations

import time
import warnings
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from feedline.engine.processes.deaths import Death
    from feedline.engine.processes.member import Member

__all__ = ["Watch"]

_STARTING_S = 60.0  # beyond the deadline, for who is not ready: a machine under load takes seconds to import torch
_PATIENCE_S = 10.0  # after a death and without a deadline, when to say that a worker may wait for a lock that is lost


class Watch:
    """The clock of a pool.

    Args:
        timeout_s: how long a worker may take over a batch; 0: for ever.
    """

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self._deaths: deque[Death] = deque(maxlen=4)  # after which nobody was told of a lost lock yet
        self._last_report = 0.0

    def heard(self) -> None:
        """A worker has reported."""
        self._last_report = time.monotonic()

    def told(self, death: Death) -> Death:
        """Remember a death; one by lateness says which came before it, and may have left a lock behind."""
        if death.late_s:
            return replace(death, earlier=self._deaths[-1].brief) if self._deaths else death
        self._deaths.append(death)
        self._last_report = time.monotonic()
        return death

    def patience_s(self, members: Iterable[Member]) -> float | None:
        """How long to wait for the next word; None: for ever."""
        if not self.timeout_s:
            return _PATIENCE_S if self._deaths else None
        dues = [self._due(member) for member in members if member.tasks]
        return max(0.0, min(dues) - time.monotonic()) if dues else None

    def late(self, members: Iterable[Member]) -> list[Member]:
        """Workers that missed their deadline."""
        if not self.timeout_s:
            return []
        now = time.monotonic()
        return [member for member in members if member.tasks and self._due(member) <= now]

    def warn(self) -> None:
        """Without a deadline, speak up when a lock may be lost."""
        silent_s = time.monotonic() - self._last_report
        if self.timeout_s or not self._deaths or silent_s < _PATIENCE_S:
            return
        death = self._deaths[-1]
        self._deaths.clear()
        warnings.warn(
            f"no worker has finished a batch for {silent_s:.0f} s, since {death}; if it held a lock of the dataset's, "
            f"its successor waits in vain: give timeout=",
            stacklevel=2,
        )

    def _due(self, member: Member) -> float:
        return member.since + self.timeout_s + (_STARTING_S if member.loading else 0.0)
