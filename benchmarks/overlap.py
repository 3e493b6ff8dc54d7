"""How long a training loop waits whose step takes 20 ms while a batch takes two workers 10 ms together.

The step sleeps, as one that waits for an accelerator, and leaves the interpreter's lock to others. A batch is 10
samples of 1 ms of hashing, which releases the lock too and is calibrated when the benchmark starts, done by two threads
or two processes. Waiting is the share of the rest of an epoch that passes in ``next()`` once the first batch is there.
The wait for the first batch, which nobody made ahead here, is shown beside it.
"""

from __future__ import annotations

import hashlib
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from benchmarks.figures import Figures, Probe, Quantity
from benchmarks.harness import Bar
from benchmarks.loaders import feedline_contender, torch_contender

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from benchmarks.harness import Contender

__all__ = ["REPEATS", "build"]

REPEATS = 5
_WORKERS = 2
_BATCH_SIZE = 10
_SAMPLE_S = 0.001
_STEP_S = 0.02
_MOST = 0.01
_TRIALS = 20  # the quickest of them is the hash's own time


class Hashed:
    """Samples of ``nbytes`` of hashing each."""

    thread_safe = True
    uses_global_rng = False

    def __init__(self, length: int, nbytes: int) -> None:
        self.length = length
        self.block = bytes(nbytes)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> int:
        hashlib.sha256(self.block).digest()
        return index


def nbytes_for(seconds: float) -> int:
    """How many bytes this machine hashes in that time, by the quickest of some trials."""
    trial = Hashed(1, 1 << 20)
    quickest = float("inf")
    for _ in range(_TRIALS):
        begin = time.perf_counter()
        trial[0]
        quickest = min(quickest, time.perf_counter() - begin)
    return max(1, round(len(trial.block) * seconds / quickest))


def build(samples: int = 1_500) -> Iterator[Figures]:
    """The case, with an epoch of 3 s."""
    dataset = Hashed(samples, nbytes_for(_SAMPLE_S))
    ending, workers = ExitStack(), {"batch_size": _BATCH_SIZE, "num_workers": _WORKERS}
    contenders = (
        feedline_contender(ending, "feedline threads", dataset, backend="thread", **workers),
        feedline_contender(ending, "feedline processes", dataset, backend="process", **workers),
        torch_contender(ending, "torch", dataset, **workers),
    )
    yield Figures(
        name="overlap",
        quantities=(
            Quantity("waiting", "%", 100.0, 2),
            Quantity("first batch", "ms", 1e3, 1),
            Quantity("longest wait", "ms", 1e3, 1),
        ),
        probes=tuple(Probe(contender.name, _probe(contender, samples)) for contender in contenders),
        bars=(
            Bar("feedline threads", most=_MOST, quantity="waiting"),
            Bar("feedline processes", most=_MOST, quantity="waiting"),
        ),
        settings={
            "samples": samples,
            "batch_size": _BATCH_SIZE,
            "ms_per_sample": _SAMPLE_S * 1e3,
            "step_ms": _STEP_S * 1e3,
            "num_workers": _WORKERS,
        },
        close=ending.close,
    )


def _probe(contender: Contender, samples: int) -> Callable[[int], dict[str, float]]:
    return lambda number: waiting(contender.epoch(number), samples)


def waiting(batches: Iterable[Any], samples: int) -> dict[str, float]:
    """The share of an epoch after its first batch spent waiting, and the first and the longest other wait in seconds.

    Raises:
        RuntimeError: not all samples came.
    """
    waits, seen, begin = [], 0, time.perf_counter()
    asked, iterator = begin, iter(batches)
    while (batch := next(iterator, None)) is not None:
        waits.append(time.perf_counter() - asked)
        seen += len(batch)
        time.sleep(_STEP_S)
        asked = time.perf_counter()
    end = time.perf_counter()
    waits.append(end - asked)
    first = waits.pop(0)
    if seen != samples:
        raise RuntimeError(f"an epoch must deliver every sample: got {seen} of {samples}")
    return {
        "waiting": sum(waits) / (end - begin - first),
        "first batch": first,
        "longest wait": max(waits, default=0.0),
    }
