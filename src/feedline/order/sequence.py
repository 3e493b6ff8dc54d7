"""What an order is, and the simple ones: sequential, listed, with replacement, strided, mapped.

Guarantee (contract 1): an order is one epoch's sequence of sample indices, a pure function of its arguments.
It knows neither batch size nor world; batches are consecutive cuts of it. It opens nothing, starts nothing,
and neither reads nor changes a global random state. Any split of ``take`` gives the same indices:
``take(a, c)`` is ``take(a, b)`` followed by ``take(b, c)``. Orders may be read by several threads at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from feedline import seeding

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "CutOrder",
    "ListedOrder",
    "MappedOrder",
    "Order",
    "ReplacementOrder",
    "SequentialOrder",
    "StridedOrder",
    "check_count",
    "check_span",
    "take_spans",
]

_MAX_COUNT = (1 << 63) - 1  # indices are int64
_STRIDED_SPAN = 1 << 16  # how many positions of the inner order a strided one looks at in a go: 512 KiB


class Order(Protocol):
    """One epoch's sequence of sample indices."""

    @property
    def length(self) -> int | None:
        """How many positions the epoch has; None where it is endless."""

    def take(self, start: int, stop: int) -> NDArray[np.int64]:
        """The indices at positions ``start`` up to, not including, ``stop``.

        Args:
            start: at least 0.
            stop: from ``start`` to ``length``.

        Returns:
            An array of shape ``(stop - start,)``: fresh, or read-only, never a shared writable one.

        Raises:
            IndexError: the positions are not within the epoch.
        """


class CutOrder(Protocol):
    """An `Order` that says where each of its batches begins and ends."""

    @property
    def length(self) -> int | None:
        """How many samples the epoch has; None where it is endless."""

    @property
    def batches(self) -> int | None:
        """How many batches."""

    def take(self, start: int, stop: int) -> NDArray[np.int64]:
        """See `Order.take`."""

    def bounds(self, batch: int) -> tuple[int, int]:
        """The position of a batch's first sample, and that after its last."""

    def alike(self, index: int) -> NDArray[np.int64]:
        """Samples that a batch may have in the place of this one, which is among them."""


def check_span(start: int, stop: int, length: int | None) -> None:
    """Refuse positions outside an epoch.

    Raises:
        IndexError: not ``0 <= start <= stop <= length``.

    Example:
        >>> check_span(0, 11, 10)
        Traceback (most recent call last):
        ...
        IndexError: positions must satisfy 0 <= start <= stop <= 10 (the epoch's length), got start=0, stop=11
    """
    if 0 <= start <= stop and (length is None or stop <= length):
        return
    bound = "" if length is None else f" <= {length} (the epoch's length)"
    raise IndexError(f"positions must satisfy 0 <= start <= stop{bound}, got start={start}, stop={stop}")


def check_count(value: int, name: str, least: int = 0) -> None:
    """Refuse a number of samples that is below ``least`` or that int64 cannot index.

    Raises:
        ValueError: not ``least <= value < 2**63``.
    """
    if not least <= value <= _MAX_COUNT:
        raise ValueError(f"{name} must be from {least} to 2**63 - 1, got {value}")


@runtime_checkable
class _TakesSpans(Protocol):
    """An order that is read at many places for the price of one."""

    def take_spans(self, start: int, size: int, stride: int, count: int) -> NDArray[np.int64]:
        """See the function."""


def take_spans(order: Order, start: int, size: int, stride: int, count: int) -> NDArray[np.int64]:
    """``count`` spans of ``size`` indices each, end to end, the next ``stride`` positions after the one before.

    These are one rank's batches: an order that computes its indices in blocks shall not make those of the other ranks
    for each of them.

    Example:
        >>> take_spans(SequentialOrder(100), start=10, size=2, stride=50, count=2)
        array([10, 11, 60, 61])
    """
    if stride == size or count == 1:
        return order.take(start, start + (count - 1) * stride + size)
    if isinstance(order, _TakesSpans):
        return order.take_spans(start, size, stride, count)
    begins = range(start, start + count * stride, stride)
    return np.concatenate([order.take(begin, begin + size) for begin in begins])


@dataclass(frozen=True, slots=True)
class SequentialOrder:
    """0, 1, 2, … up to ``length``; None goes on for ever.

    Example:
        >>> SequentialOrder(10).take(3, 6)
        array([3, 4, 5])
    """

    length: int | None

    def __post_init__(self) -> None:
        if self.length is not None:
            check_count(self.length, "length")

    def take(self, start: int, stop: int) -> NDArray[np.int64]:
        """See `Order.take`; a fresh array."""
        check_span(start, stop, self.length)
        return np.arange(start, stop, dtype=np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class ListedOrder:
    """The indices that are listed, in the order of the list. The array is held, not copied.

    Example:
        >>> ListedOrder(np.array([7, 3, 3])).take(1, 3)
        array([3, 3])
    """

    values: NDArray[np.int64]

    @property
    def length(self) -> int:
        """How many are listed."""
        return len(self.values)

    def take(self, start: int, stop: int) -> NDArray[np.int64]:
        """See `Order.take`; a fresh array."""
        check_span(start, stop, self.length)
        return self.values[start:stop].astype(np.int64)


@dataclass(frozen=True, slots=True)
class ReplacementOrder:
    """``length`` draws from ``population`` samples, each uniform and independent of the others; O(1) to seek.

    The index at position p is ``word * population >> 64``, exactly, of word p of the stream ``Stream.DRAW``.

    Example:
        >>> ReplacementOrder(population=10, length=1_000, seed=1, epoch=0).take(997, 1_000).shape
        (3,)
    """

    population: int
    length: int
    seed: int
    epoch: int

    def __post_init__(self) -> None:
        check_count(self.population, "population", least=1)
        check_count(self.length, "length")

    def take(self, start: int, stop: int) -> NDArray[np.int64]:
        """See `Order.take`; a fresh array."""
        check_span(start, stop, self.length)
        words = seeding.bulk_words(self.seed, self.epoch, seeding.Stream.DRAW.word(), start, stop - start)
        return seeding.below(words, self.population).view(np.int64)


@dataclass(frozen=True, slots=True)
class StridedOrder:
    """Every ``stride``-th position of another order, from ``offset`` on, up to ``total``: one rank's share.

    Positions from ``inner.length`` on wrap to the beginning, as often as it takes: an epoch padded to
    ``total``.

    Example:
        >>> StridedOrder(SequentialOrder(5), total=6, offset=1, stride=2).take(0, 3)
        array([1, 3, 0])
    """

    inner: Order
    total: int
    offset: int
    stride: int

    def __post_init__(self) -> None:
        check_count(self.total, "total")
        check_count(self.offset, "offset")
        check_count(self.stride, "stride", least=1)
        if self.inner.length == 0 and self.total:
            raise ValueError(f"total must be 0 for an inner order without positions, got {self.total}")

    @property
    def length(self) -> int:
        """How many of the positions below ``total`` are its own."""
        return max(0, -((self.offset - self.total) // self.stride))

    def take(self, start: int, stop: int) -> NDArray[np.int64]:
        """See `Order.take`; a fresh array. Temporary memory is bounded, whatever the stride."""
        check_span(start, stop, self.length)
        taken = np.empty(stop - start, dtype=np.int64)
        step = max(1, _STRIDED_SPAN // self.stride)
        for done in range(0, len(taken), step):
            count = min(step, len(taken) - done)
            first = self.offset + (start + done) * self.stride
            span = (count - 1) * self.stride + 1
            taken[done : done + count] = self._window(first, span)[:: self.stride]
        return taken

    def _window(self, first: int, span: int) -> NDArray[np.int64]:
        """``span`` consecutive indices of the inner order, repeated for ever, from position ``first`` on."""
        length = self.inner.length
        if length is None or first + span <= length:
            return self.inner.take(first, first + span)
        first %= length
        if span >= length:  # the whole epoch is no longer than a window: read it once
            return self.inner.take(0, length)[(first + np.arange(span)) % length]
        if first + span <= length:
            return self.inner.take(first, first + span)
        return np.concatenate([self.inner.take(first, length), self.inner.take(0, first + span - length)])


@dataclass(frozen=True, slots=True, eq=False)
class MappedOrder:
    """``values`` in another order: the index at position p is ``values[inner[p]]``.

    The array is held, not copied.

    Example:
        >>> MappedOrder(np.array([50, 60, 70]), SequentialOrder(3)).take(1, 3)
        array([60, 70])
    """

    values: NDArray[np.int64]
    inner: Order

    @property
    def length(self) -> int | None:
        """The inner order's length."""
        return self.inner.length

    def take(self, start: int, stop: int) -> NDArray[np.int64]:
        """See `Order.take`; a fresh array."""
        return self.values[self.inner.take(start, stop)].astype(np.int64, copy=False)

    def take_spans(self, start: int, size: int, stride: int, count: int) -> NDArray[np.int64]:
        """See the function."""
        return self.values[take_spans(self.inner, start, size, stride, count)].astype(np.int64, copy=False)
