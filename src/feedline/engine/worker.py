"""What code that runs in a worker can know about it.

Guarantee: a thread that entered a worker knows of that alone; all threads of a worker process know of theirs.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["WorkerInfo", "become", "entered", "get_worker_info"]


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """The worker that the calling code runs in.

    Attributes:
        id: its number, from 0.
        num_workers: how many there are.
        seed: the run's seed.
        dataset: its copy of the dataset.
    """

    id: int
    num_workers: int
    seed: int
    dataset: Any


class _Process:
    info: WorkerInfo | None = None  # where the process as a whole is a worker


class _Current(threading.local):
    info: WorkerInfo | None = None


_current = _Current()


def become(info: WorkerInfo) -> None:
    """From now on this process is that worker."""
    _Process.info = info


@contextmanager
def entered(info: WorkerInfo) -> Iterator[None]:
    """Within this context the calling thread is that worker.

    Example:
        >>> with entered(WorkerInfo(1, 4, seed=0, dataset=[])):
        ...     get_worker_info().id
        1
    """
    outer, _current.info = _current.info, info
    try:
        yield
    finally:
        _current.info = outer


def get_worker_info() -> WorkerInfo | None:
    """The worker that the calling code runs in; None outside a worker, as where the loader has none.

    Example:
        >>> get_worker_info() is None
        True
    """
    return _current.info or _Process.info
