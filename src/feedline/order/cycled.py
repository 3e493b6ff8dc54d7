"""One pass after the other: the sequence of an endless loader, and of more indices than there are samples.

Guarantee: pass p is an order of its own, complete before pass p + 1 begins; together they are one sequence, a pure
function of the passes, in which any position is found by one division.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from feedline.order.permutation import PermutedOrder
from feedline.order.sequence import check_span, take_spans
from feedline.seeding import Stream, bulk_words

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from feedline.order.sequence import CutOrder, Order

__all__ = ["CycledCuts", "CycledOrder", "Permutations"]


@dataclass(frozen=True, slots=True, eq=False)
class CycledOrder:
    """Pass 0, pass 1, pass 2, … end to end.

    Args:
        passes: gives the order of a pass by its number.
        period: how many positions each pass has; None: pass 0 has no end.
        length: where the sequence is cut off; None: nowhere.

    Raises:
        ValueError: ``period`` is 0.

    Example:
        >>> order = CycledOrder(lambda number: PermutedOrder(5, seed=1, epoch=number), period=5)
        >>> sorted(order.take(10, 15).tolist()), len(order.take(1_000_003, 1_000_011))
        ([0, 1, 2, 3, 4], 8)
    """

    passes: Callable[[int], Order] = field(repr=False)
    period: int | None
    length: int | None = None

    def __post_init__(self) -> None:
        if self.period is not None and self.period < 1:
            raise ValueError(f"period must be a positive integer, or None for a pass without end, got {self.period}")

    def take(self, start: int, stop: int) -> NDArray[np.int64]:
        """See `Order.take`; fresh, or read-only.

        Raises:
            ValueError: a pass has not ``period`` positions.
        """
        check_span(start, stop, self.length)
        if self.period is None:
            return self.passes(0).take(start, stop)
        parts: list[NDArray[np.int64]] = []
        while start < stop or not parts:
            number, first = divmod(start, self.period)
            last = min(first + stop - start, self.period)
            parts.append(self._pass(number).take(first, last))
            start += last - first
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def take_spans(self, start: int, size: int, stride: int, count: int) -> NDArray[np.int64]:
        """See `feedline.order.sequence.take_spans`."""
        last = start + (count - 1) * stride + size
        number, first = (0, start) if self.period is None else divmod(start, self.period)
        if self.period is None or first + last - start <= self.period:  # within a pass
            check_span(start, last, self.length)
            return take_spans(self._pass(number), first, size, stride, count)
        begins = range(start, start + count * stride, stride)
        return np.concatenate([self.take(begin, begin + size) for begin in begins])

    def _pass(self, number: int) -> Order:
        order = self.passes(number)
        if order.length != self.period:
            raise ValueError(
                f"all passes must have the same length to be laid end to end: pass {number} has {order.length} "
                f"positions, others {self.period}; use a DataLoader, whose epochs may differ"
            )
        return order


@dataclass(frozen=True, slots=True, eq=False)
class CycledCuts:
    """Passes that are made of whole batches, end to end: a `CutOrder`.

    Args:
        passes: gives the order of a pass by its number.
        period: how many samples each pass has.
        batches_a_pass: how many batches each pass has.
        batches: how many batches there are; None: without end.
    """

    passes: Callable[[int], CutOrder] = field(repr=False)
    period: int
    batches_a_pass: int
    batches: int | None

    @property
    def length(self) -> int | None:
        """How many samples these batches have."""
        return None if self.batches is None else self.bounds(self.batches)[0]

    def take(self, start: int, stop: int) -> NDArray[np.int64]:
        """See `Order.take`; fresh, or read-only."""
        return CycledOrder(self.passes, self.period).take(start, stop)

    def bounds(self, batch: int) -> tuple[int, int]:
        """The position of a batch's first sample, and that after its last."""
        lap, number = divmod(batch, self.batches_a_pass)
        begin, end = self.passes(lap).bounds(number)
        return lap * self.period + begin, lap * self.period + end

    def alike(self, index: int) -> NDArray[np.int64]:
        """See `CutOrder.alike`: the same in each pass."""
        return self.passes(0).alike(index)


@dataclass(frozen=True, slots=True)
class Permutations:
    """Passes over ``population`` samples within one epoch: pass p is the permutation of another seed.

    That seed is word p of the epoch's stream of passes. The last pass is kept.

    Example:
        >>> order = CycledOrder(Permutations(population=3, seed=1, epoch=0), period=3, length=8)
        >>> sorted(order.take(0, 3).tolist()), sorted(order.take(3, 6).tolist()), len(order.take(6, 8))
        ([0, 1, 2], [0, 1, 2], 2)
    """

    population: int
    seed: int
    epoch: int
    _current: tuple[int, PermutedOrder] | None = field(init=False, repr=False, compare=False, default=None)

    def __call__(self, number: int) -> PermutedOrder:
        """The permutation of a pass."""
        kept = self._current
        if kept is not None and kept[0] == number:
            return kept[1]
        seed = int(bulk_words(self.seed, self.epoch, Stream.PASS.word(), number, 1)[0])
        order = PermutedOrder(self.population, seed, self.epoch)
        object.__setattr__(self, "_current", (number, order))  # replaced as one object, for threads that meet here
        return order
