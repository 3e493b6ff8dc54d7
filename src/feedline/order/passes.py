"""More random indices than there are samples: one permutation after the other.

Guarantee: each pass over the samples is complete before the next begins, and has an order of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from feedline.order.permutation import PermutedOrder
from feedline.order.sequence import check_span
from feedline.seeding import Stream, bulk_words

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["PassesOrder"]


@dataclass(frozen=True, slots=True)
class PassesOrder:
    """``length`` indices below ``population``: as many permutations as are needed, the last cut short.

    Pass p is the permutation whose seed is word p of the epoch's stream of passes.

    Example:
        >>> order = PassesOrder(population=3, length=8, seed=1, epoch=0)
        >>> sorted(order.take(0, 3).tolist()), sorted(order.take(3, 6).tolist()), len(order.take(6, 8))
        ([0, 1, 2], [0, 1, 2], 2)
    """

    population: int
    length: int
    seed: int
    epoch: int
    _current: tuple[int, PermutedOrder] | None = field(init=False, repr=False, compare=False, default=None)

    def take(self, start: int, stop: int) -> NDArray[np.int64]:
        """The indices at positions ``start`` to ``stop``; a fresh array."""
        check_span(start, stop, self.length)
        parts = []
        while start < stop:
            number, first = divmod(start, self.population)
            last = min(first + stop - start, self.population)
            parts.append(self._pass(number).take(first, last))
            start += last - first
        return np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)

    def position(self, index: int, start: int) -> int | None:
        """The first position of an index from ``start`` on, as if passes went on for ever; None where it is none.

        Example:
            >>> order = PassesOrder(population=3, length=8, seed=1, epoch=0)
            >>> order.take(order.position(2, 4), 7)[0]
            np.int64(2)
        """
        if not 0 <= index < self.population:
            return None
        for number in (start // self.population, start // self.population + 1):
            place = self._pass(number).position(index)
            assert place is not None
            position = number * self.population + place
            if position >= start:
                break
        return position

    def _pass(self, number: int) -> PermutedOrder:
        """The permutation of a pass; the last one used is kept, replaced as one tuple for threads that meet here."""
        kept = self._current
        if kept is not None and kept[0] == number:
            return kept[1]
        seed = int(bulk_words(self.seed, self.epoch, Stream.PASS.word(), number, 1)[0])
        order = PermutedOrder(self.population, seed, self.epoch)
        object.__setattr__(self, "_current", (number, order))
        return order
