"""Samples that take 1 ms of pure Python: how close two worker processes come to halving the time.

The loop holds the interpreter's lock, so that only processes help; it is calibrated when the benchmark starts. The bare
split is two processes that each make one half of the samples in one go and send back their values, an array of
integers, at the end: no batches in between, no order to keep, nothing ahead of what is asked. torch's and feedline's
datasets are the same object, which declares nothing, so that feedline seeds the global generators for each sample.

All processes are started anew for each round: of two that run the very same loop at the same time one may be some per
cent faster than the other for as long as they live.
"""

from __future__ import annotations

import multiprocessing
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.harness import Bar, Case, Contender
from benchmarks.loaders import feedline_contender, torch_contender

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from multiprocessing.connection import Connection

    from numpy.typing import NDArray

__all__ = ["build"]

_WORKERS = 2
_BATCH_SIZE = 32
_SAMPLE_S = 1e-3
_TRIALS = 30  # the quickest of them is the loop's own time


class Counted:
    """Samples of ``turns`` turns of a loop; a sample is what the loop ends with, and depends on its index."""

    def __init__(self, length: int, turns: int) -> None:
        self.length = length
        self.turns = turns

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> int:
        value = index
        for _ in range(self.turns):
            value = (value * 1103515245 + 12345) & 0x7FFFFFFF
        return value


def turns_for(seconds: float) -> int:
    """How many turns of the loop take that long on this machine, by the quickest of some trials."""
    trial = Counted(1, 2_000)
    quickest = float("inf")
    for _ in range(_TRIALS):
        begin = time.perf_counter()
        trial[0]
        quickest = min(quickest, time.perf_counter() - begin)
    return max(1, round(trial.turns * seconds / quickest))


def build(samples: int = 6_144, seconds: float = _SAMPLE_S) -> Iterator[Case]:
    """The case: an epoch of 3 s, at whose end one worker waits for the other's last batch, of 32 ms, at most."""
    dataset = Counted(samples, turns_for(seconds))
    ending, workers = ExitStack(), {"batch_size": _BATCH_SIZE, "num_workers": _WORKERS}
    contenders = (
        _anew(ending, lambda own: feedline_contender(own, "feedline", dataset, backend="process", **workers)),
        _anew(ending, lambda own: _bare(own, dataset)),
        _anew(ending, lambda own: torch_contender(own, "torch", dataset, **workers)),
    )
    yield Case(
        name="pure-python",
        samples=samples,
        batches=-(-samples // _BATCH_SIZE),
        nbytes=8 * samples,
        contenders=contenders,
        bars=(Bar("feedline", "bare split", 0.97), Bar("feedline", "torch", 1.0)),
        count=len,
        fingerprint=lambda batch: int(np.asarray(batch).sum()),
        expected=sum(dataset[index] for index in range(samples)),
        settings={"ms_per_sample": seconds * 1e3, "batch_size": _BATCH_SIZE, "num_workers": _WORKERS},
        close=ending.close,
    )


def _anew(ending: ExitStack, make: Callable[[ExitStack], Contender]) -> Contender:
    """A contender of which each round has another one, whose processes run already."""
    own = ExitStack()
    ending.callback(own.close)

    def epoch(number: int) -> Iterable[Any]:
        own.close()
        made = make(own)
        next(iter(made.epoch(0)))
        return made.epoch(number + 1)

    with ExitStack() as nobody:
        return Contender(make(nobody).name, epoch)


def _bare(ending: ExitStack, dataset: Counted) -> Contender:
    """Two processes of a pipe each, started before anything is timed."""
    context = multiprocessing.get_context("fork")  # as torch's
    pipes = [context.Pipe() for _ in range(_WORKERS)]
    processes = [context.Process(target=_serve, args=(theirs, dataset), daemon=True) for _, theirs in pipes]
    for process, (ours, theirs) in zip(processes, pipes, strict=True):
        process.start()
        theirs.close()
        ending.callback(process.join)  # a stack ends what came last first: it is told to end, then waited for
        ending.callback(ours.send, None)

    def batches(_number: int) -> Iterator[NDArray[np.int64]]:
        bounds = [len(dataset) * worker // _WORKERS for worker in range(_WORKERS + 1)]
        for (ours, _), begin, end in zip(pipes, bounds[:-1], bounds[1:], strict=True):
            ours.send((begin, end))
        values = np.concatenate([ours.recv() for ours, _ in pipes])
        for begin in range(0, len(values), _BATCH_SIZE):
            yield values[begin : begin + _BATCH_SIZE]

    return Contender("bare split", batches)


def _serve(pipe: Connection, dataset: Counted) -> None:
    while (asked := pipe.recv()) is not None:
        pipe.send(np.array([dataset[index] for index in range(*asked)]))
