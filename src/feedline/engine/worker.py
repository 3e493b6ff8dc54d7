"""What code that runs in a worker can know about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["WorkerInfo", "get_worker_info"]


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


def get_worker_info() -> WorkerInfo | None:
    """The worker that the calling code runs in; None outside a worker, as where the loader has none.

    Example:
        >>> get_worker_info() is None
        True
    """
    return None
