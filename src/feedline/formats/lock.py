"""A lock file, so that two processes or threads do not write the same file at once.

Guarantee: at most one holder at a time on one machine, and the operating system releases the lock when its
holder dies. Between machines it holds as far as the file system carries locks.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["exclusive"]

_POLL_S = 0.1  # Windows only: its blocking call gives up after ten seconds


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold the lock file ``path`` for the body, waiting for whoever holds it; it is gone afterwards.

    On Windows an empty file may stay behind, which locks nothing.
    """
    while True:
        with path.open("ab") as file:
            _acquire(file.fileno())
            if not _is_still(path, file.fileno()):
                continue  # its last holder removed it while we waited: a lock on it excludes nobody
            try:
                yield
            finally:
                with suppress(OSError):  # Windows does not remove a file that somebody has open
                    path.unlink()  # before the lock goes, so that no one can take it in between
            return


def _is_still(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


if sys.platform == "win32":  # pragma: no cover

    def _acquire(descriptor: int) -> None:
        import msvcrt

        while True:
            with suppress(OSError):
                msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
                return
            time.sleep(_POLL_S)

else:

    def _acquire(descriptor: int) -> None:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX)
