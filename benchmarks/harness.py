"""Contenders side by side: run in turn, timed in pairs, reported with their spread.

Guarantee: what is timed is one epoch as a training loop takes it, from ``iter()`` to the last batch, each batch held
until the next is there. Whatever comes before (data, loaders, a given order) and the proof that a contender delivers
every sample are outside. Contenders take turns (A B C, A B C, ...), and a ratio is formed within each round, so that
what slows the machine for a while slows both sides of it.
"""

from __future__ import annotations

import gc
import time
from dataclasses import dataclass, field
from statistics import median, quantiles
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

__all__ = ["Bar", "Case", "Contender", "Ratio", "Run", "Spread", "compare", "measure", "time_epoch", "verify"]

_MASK64 = (1 << 64) - 1
_CPU_TICK_S = time.get_clock_info("process_time").resolution  # a coarse clock sees nothing of a short run
_WARM_UPS = 1  # `verify` has run each contender once before


@dataclass(frozen=True, slots=True)
class Contender:
    """One way to deliver the samples.

    Attributes:
        name: as it stands in the table.
        epoch: given the round's number, makes what yields the batches. The call is not timed, iterating is.
    """

    name: str
    epoch: Callable[[int], Iterable[Any]]


@dataclass(frozen=True, slots=True)
class Bar:
    """The throughput of one contender over that of another, and what it should reach, if anything."""

    of: str
    to: str
    least: float | None = None


@dataclass(frozen=True, slots=True)
class Case:
    """What contenders have to deliver.

    Attributes:
        name: the benchmark's name.
        samples: how many samples an epoch has.
        batches: how many batches.
        nbytes: what the batches of an epoch hold together.
        contenders: in the order in which they take turns.
        bars: the ratios to report.
        count: the number of samples in a batch.
        fingerprint: a number for a batch; the sum over an epoch, modulo 2⁶⁴, does not depend on the order of samples.
        expected: that sum for all samples, each once.
        settings: what else there is to know about the data and the loaders, as JSON values.
    """

    name: str
    samples: int
    batches: int
    nbytes: int
    contenders: tuple[Contender, ...]
    bars: tuple[Bar, ...]
    count: Callable[[Any], int]
    fingerprint: Callable[[Any], int]
    expected: int
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Run:
    """One timed epoch.

    Attributes:
        wall_s: what a clock on the wall says: it decides.
        cpu_s: what all threads of the process spent: it tells a slow contender from a busy machine.
    """

    wall_s: float
    cpu_s: float


@dataclass(frozen=True, slots=True)
class Spread:
    """The middle of some measurements and how far they lie apart."""

    median: float
    lower_quartile: float
    upper_quartile: float
    min: float
    max: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The spread of at least one value; quartiles are interpolated between the values (both ends included)."""
        if not values:
            raise ValueError("values must hold at least one measurement, got none")
        lower, _, upper = quantiles(values, n=4, method="inclusive") if len(values) > 1 else [values[0]] * 3
        return cls(median(values), lower, upper, min(values), max(values))


@dataclass(frozen=True, slots=True)
class Ratio:
    """A bar and what was measured of it, by wall-clock and by processor time."""

    bar: Bar
    spread: Spread
    cpu: Spread

    @property
    def met(self) -> bool | None:
        """Whether the median reaches the bar; None where there is no bar."""
        return None if self.bar.least is None else self.spread.median >= self.bar.least


def verify(case: Case) -> None:
    """Run each contender once and prove that it delivers every sample once, in as many batches as the others.

    Raises:
        RuntimeError: a contender does not; its time would mean nothing.
    """
    for contender in case.contenders:
        batches = samples = total = 0
        for batch in contender.epoch(0):
            batches += 1
            samples += case.count(batch)
            total += case.fingerprint(batch)
        got, wanted = (batches, samples, total & _MASK64), (case.batches, case.samples, case.expected & _MASK64)
        if got != wanted:
            raise RuntimeError(
                f"contender {contender.name!r} must deliver every sample once: expected {wanted[0]} batches, "
                f"{wanted[1]} samples, checksum {wanted[2]:016x}; got {got[0]}, {got[1]}, {got[2]:016x}"
            )


def time_epoch(batches: Iterable[Any]) -> Run:
    """Take one epoch. A batch lives until the next is there, as in a training loop."""
    wall, cpu = time.perf_counter(), time.process_time()
    for _batch in batches:
        pass
    return Run(time.perf_counter() - wall, max(time.process_time() - cpu, _CPU_TICK_S))


def measure(case: Case, repeats: int) -> dict[str, list[Run]]:
    """The runs of each contender, ``repeats`` of them; entry ``i`` of each list is of the same round.

    Garbage is collected before each epoch and not during it: what is measured does not depend on what others left,
    and contenders that make many objects are spared the collections that they would cause.

    Raises:
        ValueError: ``repeats`` is below 1.
    """
    if repeats < 1:
        raise ValueError(f"repeats must be a positive integer, got {repeats}")
    runs: dict[str, list[Run]] = {contender.name: [] for contender in case.contenders}
    was_enabled = gc.isenabled()
    try:
        for number in range(_WARM_UPS + repeats):
            for contender in case.contenders:
                batches = contender.epoch(number + 1)
                gc.collect()
                gc.disable()
                run = time_epoch(batches)
                if number >= _WARM_UPS:
                    runs[contender.name].append(run)
    finally:
        if was_enabled:
            gc.enable()
    return runs


def compare(case: Case, runs: dict[str, list[Run]]) -> list[Ratio]:
    """The ratio of throughputs in each round, for each bar of the case."""
    ratios = []
    for bar in case.bars:
        pairs = list(zip(runs[bar.of], runs[bar.to], strict=True))
        ratios.append(
            Ratio(
                bar,
                spread=Spread.of([other.wall_s / own.wall_s for own, other in pairs]),
                cpu=Spread.of([other.cpu_s / own.cpu_s for own, other in pairs]),
            )
        )
    return ratios
