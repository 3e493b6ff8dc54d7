"""Choosing samples at random: a billion of them, resuming, what shuffling costs, and packing sequences into rows.

Sizes, memory and resume are measured each time in a fresh process, where the library is imported and nothing else has
run. A sample is its index, and a batch what the dataset was asked for: nothing is read. The first batch is that of a
loader without workers, from before it is built; the first index that of ``next(iter(RandomSampler))``. An index is told
over a prefix of the epoch, from nothing on: in batches, as a loader takes them, and many at a time. Resident memory is
what the first thousand batches add to the process at its peak; allocated is what Python and NumPy hold for them at
their peak, by tracemalloc, which does not see torch's tensors.

What shuffling costs is told of a whole epoch, once of the batches of indices alone, and once of a loader over an array,
where reading rows that are far apart in memory costs as much again. Packing is in `benchmarks/packing.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.apart import answer_of
from benchmarks.figures import Figures, Probe, Quantity
from benchmarks.harness import Bar, Case, Contender
from benchmarks.packing import packing_cases
from benchmarks.programs.order import Numbers
from benchmarks.report import version_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["REPEATS", "build"]

REPEATS = 5
SIZES = (10**9, 2**30 + 1)  # the second is the worst for networks on powers of two, which walk half of the time
LISTED = 20_000_000  # torch makes a list of them
_BATCH_SIZE = 256
_PREFIX = 10**7
_BATCHES = 1_000  # whose memory is told
_STEP = 10**6
_RUN = 3  # batches before a state whose position is moved on to that step
_COLUMNS = 32

_FIRST_S = 0.005
_NBYTES = 1 << 20
_INDEX_S = 0.3e-6
_RESUME_S = 0.005

_MS = 1e3
_NS = 1e9
_MIB = 1 / (1 << 20)
_FIRST_INDEX = Quantity("first index", "ms", _MS, 2)
_FIRST_BATCH = Quantity("first batch", "ms", _MS, 2)
_AN_INDEX = Quantity("an index", "ns", _NS, 1)
_LONG_TAKES = Quantity("long takes", "ns", _NS, 1)
_RESIDENT = Quantity("resident", "MiB", _MIB, 2)
_ALLOCATED = Quantity("allocated", "MiB", _MIB, 2)
_RESUME = Quantity("resume", "ms", _MS, 2)

_TORCHDATA = "torchdata StatefulDataLoader"


def build(
    samples: int = 1_000_000, sizes: Sequence[int] = SIZES, listed: int = LISTED, prefix: int = _PREFIX
) -> Iterator[Case | Figures]:
    """The cases; needs Linux.

    Args:
        samples: of the epochs that are compared with one in order, of the resume beside torchdata, and the sequences
            that are packed.
        sizes: numbers of samples that are too many for a list.
        listed: beside torch, which makes one.
        prefix: indices that are timed.
    """
    for size in sizes:
        yield _size(size, min(prefix, size))
    yield _listed(listed, min(prefix, listed))
    yield _resumed(samples)
    yield _order_alone(samples)
    yield _shuffling(samples)
    yield from packing_cases(samples)


def _taken(library: str, samples: int, prefix: int) -> dict[str, float]:
    """First index, first batch, time an index and memory, from two processes."""
    arguments = {"library": library, "samples": samples, "batch_size": _BATCH_SIZE}
    return {
        **answer_of("order", measure="times", prefix=prefix, **arguments),
        **answer_of("order", measure="memory", batches=_BATCHES, **arguments),
    }


def _size(samples: int, prefix: int) -> Figures:
    step = min(_STEP, samples // _BATCH_SIZE - 1)

    def take(_round: int) -> dict[str, float]:
        arguments = {"library": "feedline", "samples": samples, "batch_size": _BATCH_SIZE}
        resumed = answer_of("order", measure="resume", step=step, run=min(_RUN, step), **arguments)
        return {**_taken("feedline", samples, prefix), **resumed}

    return Figures(
        name="order",
        label=f"{samples:,} samples",
        quantities=(_FIRST_INDEX, _FIRST_BATCH, _RESUME, _AN_INDEX, _LONG_TAKES, _RESIDENT, _ALLOCATED),
        probes=(Probe("feedline", take),),
        bars=(
            Bar("feedline", most=_FIRST_S, quantity="first index"),
            Bar("feedline", most=_FIRST_S, quantity="first batch"),
            Bar("feedline", most=_RESUME_S, quantity="resume"),
            Bar("feedline", most=_INDEX_S, quantity="an index"),
            Bar("feedline", most=_INDEX_S, quantity="long takes"),
            Bar("feedline", most=_NBYTES, quantity="resident"),
            Bar("feedline", most=_NBYTES, quantity="allocated"),
        ),
        settings={"samples": samples, "batch_size": _BATCH_SIZE, "prefix": prefix, "step": step},
        warm_ups=0,
    )


def _listed(samples: int, prefix: int) -> Figures:
    def probe(library: str) -> Callable[[int], dict[str, float]]:
        return lambda _round: _taken(library, samples, prefix)

    quantities = (_FIRST_INDEX, _FIRST_BATCH, _AN_INDEX, _RESIDENT)
    return Figures(
        name="order",
        label=f"{samples:,} samples",
        quantities=(*quantities, _ALLOCATED),
        probes=(Probe("feedline", probe("feedline")), Probe("torch", probe("torch"))),
        bars=tuple(Bar("feedline", "torch", quantity=quantity.name) for quantity in quantities),
        settings={"samples": samples, "batch_size": _BATCH_SIZE, "prefix": prefix},
        warm_ups=0,
    )


def _resumed(samples: int, batch_size: int = 64) -> Figures:
    """At two thirds of an epoch that both loaders have run up to there."""
    step = 2 * (-(-samples // batch_size)) // 3

    def probe(library: str) -> Probe:
        arguments = {"samples": samples, "batch_size": batch_size, "step": step, "run": step}
        name = _TORCHDATA if library == "torchdata" else library
        return Probe(name, lambda _round: answer_of("order", measure="resume", library=library, **arguments))

    there = version_of("torchdata")
    libraries = ("feedline", "torchdata") if there else ("feedline",)
    return Figures(
        name="order",
        label="resume",
        quantities=(_RESUME,),
        probes=tuple(map(probe, libraries)),
        bars=(
            Bar("feedline", most=_RESUME_S, quantity="resume"),
            *(Bar("feedline", _TORCHDATA, quantity="resume") for _ in libraries[1:]),
        ),
        settings={
            "samples": samples,
            "batch_size": batch_size,
            "step": step,
            "torchdata": there or "not installed",
        },
        warm_ups=0,
    )


def _loaders(dataset: Any, theirs: Any) -> dict[str, Any]:
    """Feedline's and torch's, shuffled and in order, over the same samples."""
    import torch.utils.data

    import feedline

    loaders: dict[str, Any] = {}
    for name, shuffle in (("shuffled", True), ("in order", False)):
        loaders[f"feedline {name}"] = feedline.DataLoader(dataset, batch_size=_BATCH_SIZE, shuffle=shuffle, seed=0)
        generator = torch.Generator().manual_seed(0)
        loaders[f"torch {name}"] = torch.utils.data.DataLoader(
            theirs, batch_size=_BATCH_SIZE, shuffle=shuffle, generator=generator
        )
    return dict(sorted(loaders.items()))


def _bars() -> tuple[Bar, ...]:
    """What shuffling leaves of each one's throughput, and the two beside each other."""
    return (
        Bar("feedline shuffled", "feedline in order"),
        Bar("torch shuffled", "torch in order"),
        Bar("feedline shuffled", "torch shuffled"),
    )


def _order_alone(samples: int) -> Case:
    """The batches of indices that a loader takes: feedline's plan, torch's batch sampler."""
    numbers = Numbers(samples)

    def contender(name: str, loader: Any) -> Contender:
        if name.startswith("torch"):
            return Contender(name, lambda _round: loader.batch_sampler)
        return Contender(name, lambda number: (batch.indices for batch in loader.plan(number)))

    def fingerprint(indices: Any) -> int:
        return int(((np.asarray(indices, np.uint64) + np.uint64(1)) ** 2).sum())

    return Case(
        name="order",
        label="indices alone",
        samples=samples,
        batches=-(-samples // _BATCH_SIZE),
        nbytes=8 * samples,
        contenders=tuple(contender(name, loader) for name, loader in _loaders(numbers, numbers).items()),
        bars=_bars(),
        count=len,
        fingerprint=fingerprint,
        expected=fingerprint(np.arange(samples)),
        settings={"batch_size": _BATCH_SIZE},
    )


def _shuffling(samples: int, seed: int = 0) -> Case:
    """The batches of a loader without workers over rows of an array."""
    import torch.utils.data

    import feedline

    generator = np.random.default_rng(seed)
    rows = generator.random((samples, _COLUMNS), dtype=np.float32)
    weights = generator.integers(0, 1 << 64, _COLUMNS // 2, dtype=np.uint64)

    def fingerprint(batch: Any) -> int:
        hashes = np.asarray(batch[0]).view(np.uint64) @ weights
        hashes ^= hashes >> np.uint64(32)  # not linear, so that rows cannot exchange values unseen
        return int(hashes.sum())

    loaders = _loaders(feedline.TensorDataset(rows), torch.utils.data.TensorDataset(torch.from_numpy(rows)))

    def contender(name: str, loader: Any) -> Contender:
        return Contender(name, lambda _round: loader)

    return Case(
        name="order",
        label="loader over an array",
        samples=samples,
        batches=-(-samples // _BATCH_SIZE),
        nbytes=rows.nbytes,
        contenders=tuple(contender(name, loader) for name, loader in loaders.items()),
        bars=_bars(),
        count=lambda batch: len(batch[0]),
        fingerprint=fingerprint,
        expected=fingerprint((rows,)),
        settings={"columns": _COLUMNS, "batch_size": _BATCH_SIZE, "num_workers": 0},
    )
