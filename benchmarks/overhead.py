"""The loader's own work for a batch: without workers, and in the main thread beside 1 to 16 workers.

Without workers: one integer of a list at a time, in order. Nothing is read and next to nothing is collated, so that
what a batch costs is the loader's bookkeeping: feedline against torch, and against a bare loop that makes an array of
each number.

With workers: batches of 32 such numbers, and the processor time of the main thread within ``next()``. Once in a loop
that does nothing else: what the bookkeeping takes. Once in a loop that sleeps for 2 ms between batches, so that caches
and processor have gone cold, as after a training step: the same work takes three times as long then. torch's process
has another thread that sends the indices: its time is not counted.
"""

from __future__ import annotations

import time
import warnings
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.figures import Figures, Probe, Quantity
from benchmarks.harness import Bar, Case, Contender
from benchmarks.loaders import feedline_contender, torch_contender

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

__all__ = ["build"]

_BATCH_SIZE = 32
_STEP_S = 0.002
_MOST_S = 50e-6


class Numbers:
    """The numbers from 0, of a dataset that any backend may have."""

    thread_safe = True
    uses_global_rng = False

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> int:
        return index


def build(samples: int = 20_000, workers: Sequence[int] = (1, 2, 4, 8, 16)) -> Iterator[Case | Figures]:
    """Three cases: without workers, and with each of these numbers of workers, at once and after a step."""
    yield _alone(samples)
    beside = min(samples, 200 * _BATCH_SIZE)
    yield _beside(beside, workers, "main thread per batch", 0.0)
    yield _beside(beside, workers, "main thread per batch, after 2 ms", _STEP_S)


def _alone(samples: int) -> Case:
    import torch.utils.data

    import feedline

    numbers = list(range(samples))
    ours: Any = feedline.DataLoader(numbers, batch_size=1, seed=0)
    theirs: Any = torch.utils.data.DataLoader(numbers, batch_size=1)
    return Case(
        name="overhead",
        label="no workers",
        samples=samples,
        batches=samples,
        nbytes=8 * samples,
        contenders=(
            Contender("feedline", lambda _round: ours),
            Contender("torch", lambda _round: theirs),
            Contender("np.array", lambda _round: (np.array([numbers[index]]) for index in range(samples))),
        ),
        bars=(Bar("feedline", "torch"),),
        count=len,
        fingerprint=lambda batch: (int(batch[0]) + 1) ** 2,
        expected=sum((number + 1) ** 2 for number in numbers),
        settings={"batch_size": 1, "shuffled": False, "num_workers": 0},
    )


def _beside(samples: int, workers: Sequence[int], label: str, step_s: float) -> Figures:
    quantities = {count: f"{count} workers" if count > 1 else "1 worker" for count in workers}

    def probe(make: Callable[..., Contender], **arguments: Any) -> Callable[[int], dict[str, float]]:
        def take(number: int) -> dict[str, float]:
            taken = {}
            for count, quantity in quantities.items():
                # Anew each time: 16 idle workers would wait beside what is measured.
                with ExitStack() as ending, warnings.catch_warnings():
                    warnings.filterwarnings("ignore", ".*excessive worker creation", UserWarning)  # it is meant
                    dataset = Numbers(samples)
                    loader = make(ending, "", dataset, batch_size=_BATCH_SIZE, num_workers=count, **arguments)
                    taken[quantity] = bookkeeping_s(loader.epoch(number), samples, step_s)
            return taken

        return take

    return Figures(
        name="overhead",
        label=label,
        quantities=tuple(Quantity(name, "us", 1e6) for name in quantities.values()),
        probes=(
            Probe("feedline processes", probe(feedline_contender, backend="process")),
            Probe("feedline threads", probe(feedline_contender, backend="thread")),
            Probe("torch", probe(torch_contender)),
        ),
        bars=tuple(
            Bar(name, most=None if step_s else _MOST_S, quantity=quantity)
            for name in ("feedline processes", "feedline threads")
            for quantity in quantities.values()
        ),
        settings={"samples": samples, "batch_size": _BATCH_SIZE, "step_ms": step_s * 1e3},
    )


def bookkeeping_s(batches: Iterable[Any], samples: int, step_s: float = _STEP_S) -> float:
    """The main thread's processor time in ``next()``, per batch, without the first, which starts the workers.

    Args:
        batches: an epoch.
        samples: how many it has.
        step_s: how long to sleep before each batch.

    Raises:
        RuntimeError: not all samples came.
    """
    iterator = iter(batches)
    seen, count, spent = len(next(iterator)), 0, 0.0
    while True:
        if step_s:
            time.sleep(step_s)
        begin = time.thread_time()
        batch = next(iterator, None)
        spent += time.thread_time() - begin
        if batch is None:
            break
        seen, count = seen + len(batch), count + 1
    if seen != samples:
        raise RuntimeError(f"an epoch must deliver every sample: got {seen} of {samples}")
    return spent / max(count, 1)
