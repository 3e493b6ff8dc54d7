"""Classes interleaved so that every stretch of an epoch holds each of them, in proportion.

Guarantee, for groups of g positions and a least number m a class (`StratifiedOrder`):

- any g consecutive positions, wherever they begin, hold at least m samples of each class;
- a group holds floor or ceil of g * r samples of a class of rate r, and the epoch those of length * r;
- rates are proportional to the classes' sizes, except that none is below m / g;
- every sample comes at least once; a class that runs out begins again, in another order; `repeats` counts it.

The order is a function of (labels, g, m, seed, epoch): batches cut from it may have any size.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

import numpy as np

from feedline import seeding
from feedline.order.sequence import check_span

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = ["Strata", "StratifiedOrder"]

# Details of the stream Stream.PERMUTATION; 0 and 1 are PermutedOrder's.
_MEMBERS, _SLOTS, _PATTERN, _PHASE = 2, 3, 4, 5
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2**64 divided by the golden ratio


@dataclass(frozen=True, slots=True, eq=False)
class Strata:
    """The samples of each class: made once, in O(N log N), and shared by all epochs.

    Attributes:
        members: sample indices class after class, ascending in each, shape (N,).
        counts: the number of samples of each class, in the sorted order of the labels, shape (C,).

    Example:
        >>> Strata.of(["dog", "cat", "dog"])
        Strata(members=array([1, 0, 2]), counts=array([1, 2]))
    """

    members: NDArray[np.int64]
    counts: NDArray[np.int64]

    @classmethod
    def of(cls, labels: ArrayLike) -> Self:
        """The strata of one label a sample: integers, strings, booleans, or whatever NumPy sorts.

        Raises:
            ValueError: the labels are not one-dimensional, or there is none.
        """
        array = np.asarray(labels)
        if array.ndim != 1:
            raise ValueError(f"labels must be one-dimensional, one a sample, got shape {array.shape}")
        if not array.size:
            raise ValueError("labels must hold at least one label, got none")
        _, numbers, counts = np.unique(array, return_inverse=True, return_counts=True)
        members = np.argsort(numbers, kind="stable")
        return cls(members.astype(np.int64, copy=False), counts.astype(np.int64, copy=False))


@dataclass(frozen=True, slots=True)
class _Quota:
    """How a group's positions are shared: class c has ``(whole + remainder / denominator)[c]`` of them.

    The remainders sum to ``spare * denominator``: so many positions of each group go to one class or another.
    """

    whole: NDArray[np.int64]
    remainder: NDArray[np.int64]
    denominator: int
    spare: int
    groups: int

    @classmethod
    def of(cls, counts: NDArray[np.int64], group_size: int, least: int) -> Self:
        """Classes whose share is below ``least`` get just that; the others share the rest in proportion."""
        raised = np.zeros(len(counts), dtype=np.bool_)
        while True:
            left = group_size - least * int(np.count_nonzero(raised))
            denominator = int(counts[~raised].sum())
            below = ~raised & (counts * left < least * denominator)
            if not below.any():
                break
            raised |= below
        whole, remainder = np.divmod(counts * left, denominator)
        whole[raised], remainder[raised] = least, 0
        spare = int(remainder.sum()) // denominator
        # A class of n gets its n / (n * left / denominator) groups' worth; a raised one is through before.
        return cls(whole, remainder, denominator, spare, groups=-(-denominator // left))


@dataclass(frozen=True, slots=True, eq=False)
class StratifiedOrder:
    """An epoch of classes interleaved in groups of ``group_size``, as the module's head guarantees.

    One O(N) pass at the first take, then ``length`` integers are held. `length` and `repeats` need no pass.

    Args:
        strata: the samples of each class.
        group_size: positions a group, at least ``min_per_class`` times the number of classes.
        min_per_class: the least number of each class in any ``group_size`` consecutive positions.
        seed: from 0 to 2**64 - 1.
        epoch: from 0 to 2**64 - 1.

    Raises:
        ValueError: an argument is not that.

    Example:
        >>> labels = np.repeat([0, 1], [1_000, 10])
        >>> order = StratifiedOrder(Strata.of(labels), group_size=32, min_per_class=1, seed=1, epoch=0)
        >>> order.length, order.repeats
        (1056, 46)
        >>> np.bincount(labels[order.take(500, 532)])
        array([31,  1])
    """

    strata: Strata
    group_size: int
    min_per_class: int
    seed: int
    epoch: int
    _quota: _Quota = field(init=False, repr=False)
    _indices: NDArray[np.int64] | None = field(init=False, repr=False, default=None)

    def __post_init__(self) -> None:
        _check_integer(self.group_size, "group_size", least=1)
        _check_integer(self.min_per_class, "min_per_class", least=0)
        counts = self.strata.counts
        group, least = int(self.group_size), int(self.min_per_class)
        if group < least * len(counts):
            raise ValueError(
                f"group_size must be at least min_per_class * number of classes "
                f"({least} * {len(counts)} = {least * len(counts)}), got {group}"
            )
        object.__setattr__(self, "_quota", _Quota.of(counts, group, least))

    @property
    def length(self) -> int:
        """Positions in the epoch: the fewest whole groups that visit every sample."""
        return self._quota.groups * int(self.group_size)

    @property
    def repeats(self) -> int:
        """How many of the positions visit a sample that was visited before."""
        return self.length - len(self.strata.members)

    def take(self, start: int, stop: int) -> NDArray[np.int64]:
        """See `Order.take`; a read-only array."""
        check_span(start, stop, self.length)
        if self._indices is None:
            indices = self._dealt(self._classes())
            indices.flags.writeable = False
            object.__setattr__(self, "_indices", indices)
        assert self._indices is not None
        return self._indices[start:stop]

    def _words(self, detail: int, count: int) -> NDArray[np.uint64]:
        return seeding.bulk_words(self.seed, self.epoch, seeding.Stream.PERMUTATION.word(detail), 0, count)

    def _classes(self) -> NDArray[np.int64]:
        """The class of each position, shape (length,).

        Each class has ``min_per_class`` places that are the same in every group, so that they recur at a
        distance of exactly ``group_size``. The other places of a group hold the rest of its share, shuffled
        in each group.
        """
        quota, classes = self._quota, np.arange(len(self.strata.counts), dtype=np.int64)
        reserved = np.repeat(classes, self.min_per_class)
        rest = np.repeat(classes, quota.whole - self.min_per_class)
        places = np.argsort(self._words(_PATTERN, self.group_size), kind="stable")
        groups = np.empty((quota.groups, self.group_size), dtype=np.int64)
        groups[:, places[: len(reserved)]] = reserved
        shuffled = np.empty((quota.groups, len(rest) + quota.spare), dtype=np.int64)
        shuffled[:, : len(rest)] = rest
        shuffled[:, len(rest) :] = self._spare()
        words = self._words(_SLOTS, shuffled.size).reshape(shuffled.shape)
        by_word = np.argsort(words, axis=1, kind="stable")
        groups[:, places[len(reserved) :]] = np.take_along_axis(shuffled, by_word, axis=1)
        return groups.reshape(-1)

    def _spare(self) -> NDArray[np.int64]:
        """The classes that get the spare places of each group, each once at most; shape (groups, spare).

        Systematic sampling (Madow, 1949): lay the classes' remainders end to end on a line of length
        ``spare`` and take those at u, u + 1, u + 2, ...: each remainder is below 1. With u running over (i +
        1/2) / groups, all points of the epoch are equally spaced, hence the epoch's counts exact to within
        one. u takes them in the order of the multiples of the golden ratio, which spread evenly over any
        stretch of groups, from a start drawn for the epoch.
        """
        quota = self._quota
        number = np.arange(quota.groups, dtype=np.uint64)
        rank = np.argsort(np.argsort(number * _GOLDEN, kind="stable"), kind="stable").astype(np.int64)
        start = int(seeding.below(int(self._words(_PHASE, 1)[0]), quota.groups))
        offset = (2 * ((rank + start) % quota.groups) + 1) * quota.denominator // (2 * quota.groups)
        points = offset[:, None] + np.arange(quota.spare, dtype=np.int64) * quota.denominator
        return np.searchsorted(np.cumsum(quota.remainder), points, side="right")

    def _dealt(self, classes: NDArray[np.int64]) -> NDArray[np.int64]:
        """The sample at each position, given its class, which deals its members, shuffled each time round."""
        counts = self.strata.counts
        dealt = np.bincount(classes, minlength=len(counts))
        # A deck is all members of a class once: class c needs rounds[c] of them.
        rounds = -(-dealt // counts)
        owner = np.repeat(np.arange(len(counts)), rounds)
        deck = np.repeat(np.arange(len(owner)), counts[owner])
        first_member = np.cumsum(counts) - counts
        deck_begin = np.cumsum(counts[owner]) - counts[owner]
        cards = self.strata.members[np.arange(len(deck)) + (first_member[owner] - deck_begin)[deck]]
        cards = cards[np.lexsort((self._words(_MEMBERS, len(deck)), deck))]
        # Cards are now class after class: the first of each are dealt, in the order of the class's positions.
        class_begin = np.cumsum(rounds * counts) - rounds * counts
        skipped = class_begin - (np.cumsum(dealt) - dealt)
        positions = np.argsort(classes, kind="stable")
        indices = np.empty(len(classes), dtype=np.int64)
        indices[positions] = cards[np.arange(len(classes)) + np.repeat(skipped, dealt)]
        return indices


def _check_integer(value: object, name: str, least: int) -> None:
    kind = "positive" if least else "non-negative"
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ValueError(f"{name} must be a {kind} integer, got {value!r}")
