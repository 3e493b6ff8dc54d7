"""What a batch costs on its way from a worker process: float32 batches of four sizes, samples that cost nothing.

Two processes. A sample is one of a few rows of random numbers that were made before, so that nothing is measured but
collating and transport. torch holds the same memory as tensors, its fastest path. Feedline's dataset declares
``uses_global_rng = False``; what it costs to leave that out, so that the global generators are seeded for each sample,
is shown beside it.
"""

from __future__ import annotations

import math
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.harness import Bar, Case
from benchmarks.loaders import feedline_contender, torch_contender

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["SIZES", "build"]

_ROWS = 16
_WORKERS = 2
# Batch, shape of a sample, batches an epoch (0.5 to 2 s for torch), and how many times faster than torch we want to be.
SIZES = (
    (64, (16,), 3_000, 6.0),
    (256, (3, 32, 32), 300, 8.0),
    (64, (3, 224, 224), 60, 6.0),
    (256, (3, 224, 224), 20, 6.0),
)


class Rows:
    """Samples that are there already: views of a few rows, which do not need the global generators."""

    thread_safe = True
    uses_global_rng = False

    def __init__(self, rows: Any, length: int) -> None:
        self.rows = list(rows)
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        return self.rows[index % len(self.rows)]


class SeededRows(Rows):
    """The same, of which nothing is known: the global generators are seeded before each sample."""

    uses_global_rng = True


def build(
    samples: int | None = None, sizes: Sequence[tuple[int, tuple[int, ...], int, float]] = SIZES
) -> Iterator[Case]:
    """A case for each size; ``samples`` overrides how many an epoch has."""
    for batch_size, shape, batches, bar in sizes:
        yield _case(samples or batches * batch_size, batch_size, shape, bar)


def _case(samples: int, batch_size: int, shape: Sequence[int], bar: float) -> Case:
    import torch

    generator = np.random.default_rng(0)
    rows = generator.random((_ROWS, *shape), dtype=np.float32)
    weights = generator.integers(0, 1 << 64, math.prod(shape) // 2, dtype=np.uint64)

    def fingerprint(batch: Any) -> int:
        return int((np.asarray(batch).reshape(len(batch), -1).view(np.uint64) @ weights).sum())

    ending, workers = ExitStack(), {"batch_size": batch_size, "num_workers": _WORKERS}
    contenders = (
        feedline_contender(ending, "feedline", Rows(rows, samples), backend="process", **workers),
        feedline_contender(ending, "feedline seeded", SeededRows(rows, samples), backend="process", **workers),
        torch_contender(ending, "torch", Rows(torch.from_numpy(rows), samples), **workers),
    )
    times = np.bincount(np.arange(samples) % _ROWS, minlength=_ROWS).astype(np.uint64)
    return Case(
        name="ipc",
        label="x".join(map(str, (batch_size, *shape))),
        samples=samples,
        batches=-(-samples // batch_size),
        nbytes=samples * rows[0].nbytes,
        contenders=contenders,
        bars=(Bar("feedline", "torch", bar), Bar("feedline seeded", "torch")),
        count=len,
        fingerprint=fingerprint,
        expected=int((rows.reshape(_ROWS, -1).view(np.uint64) @ weights * times).sum()),
        settings={"dtype": "float32", "shuffled": False, "num_workers": _WORKERS},
        close=ending.close,
    )
