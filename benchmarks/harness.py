"""Contenders side by side: run in turn, timed in pairs, compared with their spread.

Guarantee: what is timed is one epoch as a training loop takes it, from ``iter()`` to the last batch, each batch held
until the next is there. Whatever comes before (data, loaders, a given order) and the proof that a contender delivers
every sample are outside. Contenders take turns (A B C, A B C, ...), and a ratio is formed within each round, so that
what slows the machine for a while slows both sides of it.
"""

from __future__ import annotations

import gc
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median, quantiles
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

__all__ = [
    "Bar",
    "Case",
    "Contender",
    "Outcome",
    "Run",
    "Spread",
    "by_turns",
    "compare",
    "measure",
    "nothing",
    "time_epoch",
    "verify",
]

_MASK64 = (1 << 64) - 1
_CPU_TICK_S = time.get_clock_info("process_time").resolution  # a coarse clock sees nothing of a short run
Taken = TypeVar("Taken")
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
    """What is reported of one contender, and what it should reach, if anything.

    Attributes:
        of: the contender.
        to: the one that it is compared with; None: the quantity itself is reported, in its base unit.
        least: the bar, where more is better.
        most: the bar, where less is better.
        quantity: what is compared. Of throughputs the contender's stands above, of all else (times, bytes: less is
            better) the other's: a ratio of 2 always means twice as good.
    """

    of: str
    to: str | None = None
    least: float | None = None
    most: float | None = None
    quantity: str = "throughput"


def nothing() -> None:
    """Ends what needs no end."""


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
        label: tells the cases of one benchmark apart.
        close: ends what the contenders hold, such as workers.
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
    label: str = ""
    close: Callable[[], None] = nothing


@dataclass(frozen=True, slots=True)
class Run:
    """One timed epoch.

    Attributes:
        wall_s: what a clock on the wall says: it decides.
        cpu_s: what all threads of this process spent, its workers' processes not: it tells a slow contender from a busy
            machine where there are none, and else what the training process itself pays.
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
class Outcome:
    """A bar and what was measured of it; for throughputs also by processor time."""

    bar: Bar
    spread: Spread
    cpu: Spread | None = None

    @property
    def met(self) -> bool | None:
        """Whether the median reaches the bar; None where there is no bar."""
        least, most, middle = self.bar.least, self.bar.most, self.spread.median
        if least is None and most is None:
            return None
        return (least is None or middle >= least) and (most is None or middle <= most)


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


@contextmanager
def _no_collection() -> Iterator[None]:
    """Collect garbage before and not during: nobody pays for what others left, or for many objects of their own."""
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def by_turns(
    turns: Sequence[tuple[str, Callable[[int], Taken]]], repeats: int, *, warm_ups: int, tell: Callable[[str], None]
) -> dict[str, list[Taken]]:
    """What each of the named ones gives, ``repeats`` times; entry ``i`` of each list is of the same round.

    Rounds are numbered from 1. ``tell`` is told what is going on.

    Raises:
        ValueError: ``repeats`` is below 1.
    """
    if repeats < 1:
        raise ValueError(f"repeats must be a positive integer, got {repeats}")
    taken: dict[str, list[Taken]] = {name: [] for name, _ in turns}
    for number in range(warm_ups + repeats):
        for name, take in turns:
            tell(f"{'warm-up' if number < warm_ups else f'round {number - warm_ups + 1} of {repeats}'}: {name}")
            one = take(number + 1)
            if number >= warm_ups:
                taken[name].append(one)
    return taken


def measure(case: Case, repeats: int, tell: Callable[[str], None] = lambda _text: None) -> dict[str, list[Run]]:
    """The timed epochs of each contender, after a warm-up round.

    Raises:
        ValueError: ``repeats`` is below 1.
    """

    def timed(contender: Contender) -> Callable[[int], Run]:
        def take(number: int) -> Run:
            batches = contender.epoch(number)
            with _no_collection():
                return time_epoch(batches)

        return take

    turns = [(contender.name, timed(contender)) for contender in case.contenders]
    return by_turns(turns, repeats, warm_ups=_WARM_UPS, tell=tell)


def compare(case: Case, runs: dict[str, list[Run]]) -> list[Outcome]:
    """The ratio of throughputs in each round, for each bar of the case."""
    outcomes = []
    for bar in case.bars:
        assert bar.to is not None, "a throughput is told as a ratio"
        pairs = list(zip(runs[bar.of], runs[bar.to], strict=True))
        outcomes.append(
            Outcome(
                bar,
                spread=Spread.of([other.wall_s / own.wall_s for own, other in pairs]),
                cpu=Spread.of([other.cpu_s / own.cpu_s for own, other in pairs]),
            )
        )
    return outcomes
