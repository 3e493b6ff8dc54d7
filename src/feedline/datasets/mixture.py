"""Which of several sources comes next, when each is to have its share: Tijdeman's rule, in exact integers.

Guarantee: after any number n of positions, a source whose share of the weights is s was chosen less than
``s * n + 1`` and more than ``s * n - 1`` times: exactly, for the weights as they are given (a float is the fraction
that it is). With k sources of positive weight the distance is at most ``1 - 1 / (2k - 2)``, which no other rule can
better for all weights. The choice at a position is a function of the weights and the position alone.

Seeking: the rule goes from position to position. So the choices are held once they were made, from 0 to the farthest
that was asked for: one byte each (two for more than 256 sources), and with them, every 1,024 positions, how often each
source had come. Making them takes 0.4 to 1 µs a position, reading any of them O(1). Whole numbers as weights, such as
7 and 3 instead of 0.7 and 0.3, repeat after their sum (10): no more than the 1,024 positions that hold that are made.
"""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush, heapreplace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from feedline.checks import integer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from fractions import Fraction

    from numpy.typing import NDArray

__all__ = ["Mixture"]

_BLOCK_BITS = 10  # 1,024 positions: looked through in 1 µs, and the counts of up to 128 sources cost a byte a position
_ROWS = 256  # positions looked up in one go, each with its block: 256 KiB
_MOST_POSITIONS = 1 << 32  # 4 GiB of choices and half an hour to make them: whoever asks for more meant another thing
_MOST_INT64 = (1 << 63) - 1


class _Table(NamedTuple):
    """The choices made so far; extended by making another one, so that threads may meet here."""

    sources: NDArray[Any]  # (blocks, positions a block)
    before: NDArray[np.int64]  # (blocks + 1, sources): how often each had come before the block


@dataclass(frozen=True, slots=True)
class Mixture:
    """The endless sequence of choices among ``len(weights)`` sources, as the module's head guarantees.

    The rule (R. Tijdeman, "The chairman assignment problem", Discrete Mathematics 32, 1980), for shares s that sum to
    1, with D = 2k - 2: source i, chosen x times before, may be chosen at the n-th position if ``s[i] * n - x >= 1/D``;
    of those that may, the one is chosen for which ``(x + 1 - 1/D) / s[i]``, the time until which it can wait, is
    least; of equal ones the first.

    May be read by several threads at once.

    Args:
        weights: one a source, at least one: integers, floats or fractions, finite, not negative, not all zero.
            A source of weight zero is never chosen.

    Attributes:
        weights: as given, as a tuple of Python's numbers.
        shares: the least integers in the same proportions.

    Raises:
        ValueError: they are not that.
        TypeError: one is no number.

    Example:
        >>> mixture = Mixture([2, 1, 1])
        >>> mixture.sources(0, 8)
        array([0, 1, 2, 0, 0, 1, 2, 0])
        >>> mixture.counts(1_000_000_001)
        array([500000001, 250000000, 250000000])
    """

    weights: Sequence[float | Fraction]
    shares: tuple[int, ...] = field(init=False, repr=False, compare=False)
    _table: _Table = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        plain, shares = _whole(self.weights)
        count = len(shares)
        size = 1 << max(_BLOCK_BITS, count.bit_length() + 3)
        empty = np.empty((0, size), dtype=np.min_scalar_type(count - 1))
        object.__setattr__(self, "weights", plain)
        object.__setattr__(self, "shares", shares)
        object.__setattr__(self, "_table", _Table(empty, np.zeros((1, count), dtype=np.int64)))

    @property
    def period(self) -> int:
        """After so many positions the sequence begins again; ``shares[i]`` of them are source i's."""
        return sum(self.shares)

    def sources(self, start: int, stop: int) -> NDArray[np.int64]:
        """The sources chosen at positions ``start`` to ``stop``; a fresh array.

        Raises:
            ValueError: ``start`` is negative or above ``stop``, or the position is too far to make all before it.
        """
        start = integer("start", start, least=0)
        stop = integer("stop", stop, least=start)
        return self.look_up(np.arange(start, stop, dtype=np.int64), counted=False)[0]

    def counts(self, n: int) -> NDArray[np.int64]:
        """How many of the first ``n`` positions each source has; shape (sources,).

        Raises:
            ValueError: ``n`` is negative, or too far to make all positions before it.
        """
        laps, rest = divmod(integer("n", n, least=0), self.period)
        table = self._made_to(rest)
        block, offset = divmod(rest, table.sources.shape[1])
        counts: NDArray[np.int64] = table.before[block].copy()
        if offset:
            counts += np.bincount(table.sources[block, :offset], minlength=len(counts))
        if laps:  # else a share may be too large an integer
            counts += laps * np.array(self.shares, dtype=np.int64)
        return counts

    def look_up(self, positions: NDArray[np.int64], *, counted: bool = True) -> tuple[NDArray[np.int64], ...]:
        """The source at each position, and how often it had come before that.

        Args:
            positions: shape (B,), none negative, in any order.
            counted: whether to count.

        Returns:
            Two arrays of shape (B,): sources and counts; the first alone if not ``counted``.

        Raises:
            ValueError: a position is too far to make all before it.
        """
        period = self.period
        laps, rest = (0, positions) if period > _MOST_INT64 else np.divmod(positions, period)
        table = self._made_to(int(rest.max(initial=-1)) + 1)
        blocks, offsets = np.divmod(rest, table.sources.shape[1])
        chosen = table.sources[blocks, offsets]
        sources = chosen.astype(np.int64)
        if not counted:
            return (sources,)
        counts = table.before[blocks, sources]
        if period <= _MOST_INT64:
            counts += laps * np.array(self.shares, dtype=np.int64)[sources]
        within = np.arange(table.sources.shape[1])
        for begin in range(0, len(rest), _ROWS):
            part = slice(begin, begin + _ROWS)
            same = table.sources[blocks[part]] == chosen[part, None]
            same &= within < offsets[part, None]
            counts[part] += np.count_nonzero(same, axis=1)
        return sources, counts

    def at(self, position: int) -> tuple[int, int]:
        """What `look_up` gives for one position; quicker for a single one."""
        laps, rest = divmod(position, self.period)
        table = self._made_to(rest + 1)
        block, offset = divmod(rest, table.sources.shape[1])
        row = table.sources[block]
        source = int(row[offset])
        within = int(np.count_nonzero(row[:offset] == row[offset]))
        return source, laps * self.shares[source] + int(table.before[block, source]) + within

    def bounds(self, source: int, occurrence: int) -> tuple[int, int]:
        """The first and the last position at which a source may come for the (``occurrence`` + 1)-th time.

        That is by the guarantee alone, without making any choice. The source's weight must not be zero.
        """
        share, period, distance = self.shares[source], self.period, self._distance
        first = -(-period * (distance * occurrence + 1) // (distance * share)) - 1
        return first, period * (distance * (occurrence + 1) - 1) // (distance * share)

    def place(self, source: int, occurrence: int) -> int:
        """The position at which a source comes for the (``occurrence`` + 1)-th time; its weight must not be zero.

        Raises:
            ValueError: that is too far to make all positions before it.

        Example:
            >>> Mixture([2, 1, 1]).place(0, 2)
            4
        """
        laps, rest = divmod(occurrence, self.shares[source])
        table = self._made_to(min(self.bounds(source, rest)[1] + 1, self.period))
        before = table.before[:, source]
        block = int(np.searchsorted(before, rest, side="right")) - 1
        offset = int(np.flatnonzero(table.sources[block] == source)[rest - before[block]])
        return int(laps * self.period + block * table.sources.shape[1] + offset)

    @property
    def _distance(self) -> int:
        """2k - 2 for k sources of positive weight; a single one is always chosen, whatever this is."""
        return max(2 * sum(share > 0 for share in self.shares) - 2, 2)

    def _made_to(self, stop: int) -> _Table:
        """The table, with at least ``stop`` positions."""
        table = self._table
        made = table.sources.size
        if stop <= made:
            return table
        if stop > _MOST_POSITIONS:
            raise ValueError(
                f"positions of a mixture must be at most 2**32 = {_MOST_POSITIONS} where its weights do not repeat "
                f"before, got {stop} with the weights {list(self.weights)}; give small whole numbers as weights"
            )
        size = table.sources.shape[1]
        blocks = -(-max(stop, made + made // 4) // size) - len(table.sources)  # in steps that grow: no O(N**2) copying
        fresh = self._choose(made, blocks * size, table.before[-1].tolist()).reshape(blocks, size)
        added = np.stack([np.bincount(row, minlength=len(self.shares)) for row in fresh]).cumsum(axis=0)
        table = _Table(np.concatenate([table.sources, fresh]), np.concatenate([table.before, table.before[-1] + added]))
        object.__setattr__(self, "_table", table)
        return table

    def _choose(self, start: int, count: int, seen: list[int]) -> NDArray[Any]:
        """The choices at ``start`` and ``count - 1`` positions more, when each source was ``seen`` so often before.

        A source that was chosen x times may come from the time ``period * (D * x + 1) / (D * share)`` on, rounded up.
        It can wait until ``period * (D * x + D - 1) / (D * share)``. Those times are compared without the period, and
        times the least common multiple of the shares: as integers.
        """
        distance, period, shares = self._distance, self.period, self.shares
        multiple = math.lcm(*filter(None, shares))
        ends = [multiple // share if share else 0 for share in shares]
        # (The first time at which it may come, source)
        waiting = [(self.bounds(at, seen[at])[0] + 1, at) for at, share in enumerate(shares) if share]
        heapify(waiting)
        ready: list[tuple[int, int]] = []  # (until when it can wait, source)
        chosen = []
        for now in range(start + 1, start + count + 1):
            while waiting and waiting[0][0] <= now:
                source = heappop(waiting)[1]
                heappush(ready, ((distance * (seen[source] + 1) - 1) * ends[source], source))
            source = ready[0][1]  # there always is one: if none had 1/D, all k together, who have 1, had less than k/D
            chosen.append(source)
            seen[source] = times = seen[source] + 1
            may = -(-period * (distance * times + 1) // (distance * shares[source]))
            if may <= now + 1:
                heapreplace(ready, ((distance * (times + 1) - 1) * ends[source], source))
            else:
                heappop(ready)
                heappush(waiting, (may, source))
        return np.array(chosen, dtype=self._table.sources.dtype)


def _whole(weights: Sequence[float | Fraction]) -> tuple[tuple[float | Fraction, ...], tuple[int, ...]]:
    """The weights as plain numbers, and as the least integers in the same proportions."""
    plain, ratios = [], []
    for place, given in enumerate(weights):
        weight: Any = given.item() if hasattr(given, "item") else given  # of an array or a tensor
        try:
            good = math.isfinite(weight) and weight >= 0
            number = weight if hasattr(weight, "as_integer_ratio") else operator.index(weight)
        except TypeError:
            raise TypeError(f"weights must be numbers, got {given!r} at index {place}") from None
        if not good:
            raise ValueError(f"weights must be finite and not negative, got {weight} at index {place}")
        plain.append(number)
        ratios.append(number.as_integer_ratio())
    if not plain:
        raise ValueError("weights must hold at least one weight, got none")
    multiple = math.lcm(*(below for _, below in ratios))
    whole = [above * (multiple // below) for above, below in ratios]
    if not any(whole):
        raise ValueError(f"weights must not all be zero, got {len(whole)} zeros")
    divisor = math.gcd(*whole)
    return tuple(plain), tuple(number // divisor for number in whole)
