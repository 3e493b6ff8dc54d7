"""One pass after the other, without end: the sequence of an endless loader.

Guarantee: pass p is an order of its own, complete before pass p + 1 begins; together they are one sequence, a pure
function of the passes, in which any position is found by one division. The pass that is being read is kept, and the one
before it; several threads may read.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from feedline.order.listed_pass import ListedPass
from feedline.order.samplers import known_order, seekable
from feedline.order.sequence import check_span, take_spans
from feedline.protocols import length_of
from feedline.seeding import Stream, bulk_words

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from feedline.order.batched import CutOrder
    from feedline.order.sequence import Order

__all__ = ["CycledCuts", "CycledOrder", "Passes", "pass_order"]

_KEPT = 2  # what is read, and what the end of the epoch before is read from meanwhile
_LATER_PASS = 1  # detail of Stream.PASS; 0 is PassesOrder's


@runtime_checkable
class _Filled(Protocol):
    """A sampler whose epochs are longer than a pass, to fill the last batch."""

    def pass_order(self, seed: int, epoch: int) -> Order:
        """The epoch without what fills the last batch."""


def pass_order(sampler: object, seed: int, number: int) -> Order | None:
    """The order of pass ``number``: that of the epoch, without what a sampler adds to fill its last batch.

    A user's own sampler is not read before the order is. None where it has no length.

    Example:
        >>> pass_order([3, 1], seed=0, number=5).take(0, 2)
        array([3, 1])
    """
    if seekable(sampler) is not None and isinstance(sampler, _Filled):
        return sampler.pass_order(seed, number)
    known = known_order(sampler, seed, number)
    length = length_of(sampler) if known is None else None
    return known if length is None else ListedPass(sampler, length, seed, number)


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
        >>> from feedline.order.permutation import PermutedOrder
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


class Passes:
    """The passes of a sampler, keyed by seed and epoch. A copy, or a pickled one, begins with none kept.

    Args:
        sampler: one for which `pass_order` is known.

    Example:
        >>> from feedline.order.samplers import RandomSampler
        >>> passes = Passes(RandomSampler(range(3)))
        >>> sorted(passes.endless(1, 7).take(0, 3).tolist())
        [0, 1, 2]
    """

    def __init__(self, sampler: Any) -> None:
        self._sampler = sampler
        self._kept: tuple[tuple[tuple[int, int], Order], ...] = ()

    def endless(self, seed: int, number: int) -> Order:
        """Pass ``number`` of the one sequence: epoch ``number`` of the sampler."""
        return self._order(seed, number)

    def virtual(self, seed: int, epoch: int, number: int) -> Order:
        """Pass ``number`` of a virtual epoch with an order of its own.

        The first is the sampler's epoch, each later one that of another seed: word ``number`` of a stream of the epoch.
        """
        if number:
            seed = int(bulk_words(seed, epoch, Stream.PASS.word(_LATER_PASS), number, 1)[0])
        return self._order(seed, epoch)

    def _order(self, seed: int, epoch: int) -> Order:
        key = seed, epoch
        kept = self._kept
        for known, order in kept:
            if known == key:
                return order
        found = pass_order(self._sampler, seed, epoch)
        assert found is not None
        self._kept = (*kept, (key, found))[-_KEPT:]  # replaced as one object, for threads that meet here
        return found

    def __reduce__(self) -> tuple[object, ...]:
        return Passes, (self._sampler,)
