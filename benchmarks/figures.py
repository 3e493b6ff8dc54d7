"""Numbers that are no throughput: milliseconds to the first batch, bytes, shares of time.

Guarantee: as of epochs, contenders take turns, and what is compared is compared within a round.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from benchmarks.harness import Bar, Outcome, Spread, by_turns, nothing

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Figures", "Probe", "Quantity", "judge", "take"]


@dataclass(frozen=True, slots=True)
class Quantity:
    """Something measured, of which less is better.

    Attributes:
        name: as it stands in the table.
        unit: for people.
        scale: that many units make one of the base unit (seconds, bytes, 1) in which values are kept.
        digits: after the point, for people.
    """

    name: str
    unit: str
    scale: float
    digits: int = 1

    def shown(self, value: float) -> str:
        """A value in base units as it is printed, without the unit."""
        return f"{value * self.scale:,.{self.digits}f}"


@dataclass(frozen=True, slots=True)
class Probe:
    """A contender that measures itself.

    Attributes:
        name: as it stands in the table.
        take: given the round's number, measures; the values, in base units, by the quantities' names. What it cannot
            measure is left out.
    """

    name: str
    take: Callable[[int], Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class Figures:
    """What is measured, of whom, and what it should be.

    Attributes:
        name: the benchmark's name.
        quantities: the columns of the table.
        probes: in the order in which they take turns.
        bars: what to report; each names its quantity.
        settings: what else there is to know, as JSON values.
        label: tells the cases of one benchmark apart.
        warm_ups: rounds that are not kept.
        close: ends what the probes hold.
    """

    name: str
    quantities: tuple[Quantity, ...]
    probes: tuple[Probe, ...]
    bars: tuple[Bar, ...]
    settings: dict[str, Any] = field(default_factory=dict)
    label: str = ""
    warm_ups: int = 1
    close: Callable[[], None] = nothing


def take(
    figures: Figures, repeats: int, tell: Callable[[str], None] = lambda _text: None
) -> dict[str, list[Mapping[str, float]]]:
    """What each probe measured in each round.

    Raises:
        ValueError: ``repeats`` is below 1.
    """
    return by_turns(
        [(probe.name, probe.take) for probe in figures.probes], repeats, warm_ups=figures.warm_ups, tell=tell
    )


def judge(figures: Figures, taken: dict[str, list[Mapping[str, float]]]) -> list[Outcome]:
    """What came of each bar: of a comparison the ratio in each round, the other's value over the contender's."""
    outcomes = []
    for bar in figures.bars:
        values = [one[bar.quantity] for one in taken[bar.of]]
        if bar.to is not None:
            others = [one[bar.quantity] for one in taken[bar.to]]
            values = [other / own for own, other in zip(values, others, strict=True)]
        outcomes.append(Outcome(bar, Spread.of(values)))
    return outcomes
