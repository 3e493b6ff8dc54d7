"""How long workers may take: which are late, and what to say where nothing comes, or comes the slow way.

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
    from feedline.engine.processes.messages import Done

__all__ = ["Watch"]

_STARTING_S = 60.0  # beyond the deadline, for a process that is to start: a machine under load takes its time
_LOADING_S = 20.0  # beyond the deadline, for unpacking the dataset and for worker_init_fn
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
        self._unshared: int | None = 0  # the bytes of a batch that came without shared memory; None: it was told

    def heard(self, done: Done) -> None:
        """A worker has reported."""
        self._last_report = time.monotonic()
        if done.slot is None and done.has_batch and self._unshared == 0:
            self._unshared = done.nbytes

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
        """Speak up once where there is no shared memory; and without a deadline when a lock may be lost."""
        if self._unshared:
            nbytes, self._unshared = self._unshared, None
            warnings.warn(
                f"no shared memory for a batch of {nbytes} bytes: batches come through a pipe, more slowly; free "
                f"memory, allow more open files (ulimit -n), or use smaller batches or fewer workers",
                stacklevel=2,
            )
        if self.timeout_s or not self._deaths:
            return
        silent_s = time.monotonic() - self._last_report
        if silent_s < _PATIENCE_S:
            return
        death = self._deaths[-1]
        self._deaths.clear()
        warnings.warn(
            f"no worker has finished a batch for {silent_s:.0f} s, since {death}; if it held a lock of the dataset's, "
            f"its successor waits in vain: give timeout=",
            stacklevel=2,
        )

    def _due(self, member: Member) -> float:
        return member.since + self.allowed_s(member)

    def allowed_s(self, member: Member) -> float:
        """How long it may take over what it is at."""
        if not member.is_up:
            return self.timeout_s + _STARTING_S
        return self.timeout_s + (_LOADING_S if member.loading else 0.0)
