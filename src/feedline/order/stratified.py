"""Classes interleaved so that every stretch of an epoch holds each of them, in proportion.

Guarantee, for groups of g positions and a least number m a class (`StratifiedOrder`):

- any g consecutive positions, wherever they begin, hold at least m samples of each class;
- a group holds floor or ceil of g * r samples of a class of rate r, the epoch those of length * r, and the places of
  each class are spread evenly, so that any stretch of w positions is within a few of w * r;
- rates are proportional to the classes' sizes, except that none is below m / g;
- every sample comes at least once; a class that runs out begins again, in another order; `repeats` counts it.

The order is a function of (labels, g, m, seed, epoch): batches cut from it may have any size. A `multiple` to which
the epoch is rounded up makes it longer, and changes nothing before.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

import numpy as np

from feedline import seeding
from feedline.checks import column, integer
from feedline.order.sequence import check_span

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = ["Strata", "StratifiedOrder"]

# Details of the stream Stream.PERMUTATION; 0 and 1 are PermutedOrder's.
_MEMBERS, _ROUNDS, _PATTERN, _PHASE = 2, 3, 4, 5
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2**64 divided by the golden ratio
_HALF = np.uint64(1 << 63)


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
        array = column("labels", labels, "one a sample")
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

    @property
    def rate(self) -> NDArray[np.float64]:
        """How many positions of a group each class has, on average."""
        return self.whole + self.remainder / self.denominator

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

    One pass at the first take, then ``length`` integers are held. `length` and `repeats` need no pass.

    Args:
        strata: the samples of each class.
        group_size: positions a group, at least ``min_per_class`` times the number of classes.
        min_per_class: the least number of each class in any ``group_size`` consecutive positions.
        seed: from 0 to 2**64 - 1.
        epoch: from 0 to 2**64 - 1.
        multiple: the epoch goes on, without a change to what comes before, until ``length`` is a multiple of this.

    Raises:
        ValueError: an argument is not that.

    Example:
        >>> labels = np.repeat([0, 1], [1_000, 10])
        >>> order = StratifiedOrder(Strata.of(labels), group_size=32, min_per_class=1, seed=1, epoch=0)
        >>> order.length, order.repeats
        (1056, 46)
        >>> np.bincount(labels[order.take(500, 532)])
        array([31,  1])
        >>> StratifiedOrder(Strata.of(labels), group_size=32, min_per_class=1, seed=1, epoch=0, multiple=50).length
        1100
    """

    strata: Strata
    group_size: int
    min_per_class: int
    seed: int
    epoch: int
    multiple: int = 1
    _quota: _Quota = field(init=False, repr=False)
    _indices: NDArray[np.int64] | None = field(init=False, repr=False, default=None)

    def __post_init__(self) -> None:
        integer("group_size", self.group_size, least=1)
        integer("min_per_class", self.min_per_class, least=0)
        integer("multiple", self.multiple, least=1)
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
        """Positions in the epoch: the fewest whole groups that visit every sample, rounded up to the multiple."""
        multiple = int(self.multiple)
        return -(-self._quota.groups * int(self.group_size) // multiple) * multiple

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

    def _classes(self) -> NDArray[np.integer]:
        """The class of each position, shape (length,): every group has the same pattern, but for its spare places."""
        pattern, line = self._pattern()
        groups = np.tile(pattern, (-(-self.length // len(pattern)), 1))
        groups[:, pattern < 0] = self._spare(line, len(groups))[:, -1 - pattern[pattern < 0]]
        return groups.reshape(-1)[: self.length]

    def _pattern(self) -> tuple[NDArray[np.integer], NDArray[np.int64]]:
        """What each position of a group holds, shape (group_size,), and the classes in the order of their spare places.

        A group is a circle of circumference 1. A class of rate r has its whole places at distances of 1 / r; in the
        middle of the gap that is left, it would like to have its spare place. The circles of the classes are turned
        against each other by multiples of the golden ratio, so that their places mix. The places are then numbered as
        they lie on the circle, from one that is drawn. So they recur at a distance of exactly ``group_size``.

        Returns:
            The pattern, a class's number or ``-1 - k`` for the spare place number k; and a permutation of the classes.
        """
        quota, rate = self._quota, self._quota.rate
        spacing = 1 / np.where(rate > 0, rate, 1)
        turn = np.empty(len(rate), dtype=np.float64)
        turn[np.lexsort((self._words(_PATTERN, len(rate)), rate))] = _golden(len(rate))
        owner = np.repeat(np.arange(len(rate)), quota.whole)
        nth = np.arange(len(owner)) - np.repeat(np.cumsum(quota.whole) - quota.whole, quota.whole)
        places = (turn[owner] + nth * spacing[owner]) % 1
        wanted = (turn + (np.maximum(quota.whole - 1, 0) * spacing + 1) / 2) % 1
        line = np.argsort(wanted, kind="stable")
        # The spare place number k takes the middle of the classes that may have it.
        middles = np.arange(quota.spare) * quota.denominator + quota.denominator // 2
        spare_places = wanted[line[np.searchsorted(np.cumsum(quota.remainder[line]), middles, side="right")]]
        small = np.int16 if len(rate) < 1 << 15 and quota.spare < 1 << 15 else np.int64  # sorted by radix
        holders = np.concatenate([owner, -1 - np.arange(quota.spare)]).astype(small)
        around = holders[np.argsort(np.concatenate([places, spare_places]), kind="stable")]
        return np.roll(around, seeding.below(int(self._words(_PHASE, 2)[1]), len(around))), line

    def _spare(self, line: NDArray[np.int64], groups: int) -> NDArray[np.int64]:
        """The classes that get the spare places of each group, each once at most; shape (groups, spare).

        Systematic sampling (Madow, 1949): lay the classes' remainders end to end, in the order ``line``, on a
        line of length ``spare`` and take those at u, u + 1, u + 2, ...: each remainder is below 1. With u running
        over (i + 1/2) / groups, all points of the epoch are equally spaced, hence the epoch's counts exact to
        within one. u takes them in the order of the multiples of the golden ratio, which spread evenly over any
        stretch of groups, from a start drawn for the epoch. Groups beyond those that visit every sample begin again,
        with another fraction than 1/2 each time round, so that their counts are in proportion, too.
        """
        quota = self._quota
        rank = np.argsort(np.argsort(_golden(quota.groups), kind="stable"), kind="stable")
        start = int(seeding.below(int(self._words(_PHASE, 1)[0]), quota.groups))
        lap, number = np.divmod(np.arange(groups), quota.groups)
        fraction = seeding.below(lap.astype(np.uint64) * _GOLDEN + _HALF, quota.denominator).view(np.int64)
        offset = ((rank + start)[number] % quota.groups * quota.denominator + fraction) // quota.groups
        points = offset[:, None] + np.arange(quota.spare, dtype=np.int64) * quota.denominator
        return line[np.searchsorted(np.cumsum(quota.remainder[line]), points, side="right")]

    def _dealt(self, classes: NDArray[np.integer]) -> NDArray[np.int64]:
        """The sample at each position, given its class, which deals its members, shuffled each time round.

        A class's members are sorted, in round t, by ``member's word * (round's word | 1)`` modulo 2**64
        (Dietzfelbinger et al., "A reliable randomized algorithm for the closest-pair problem", 1997): for each round
        independent uniform keys, which do not depend on how many rounds there are.
        """
        counts = self.strata.counts
        dealt = np.bincount(classes, minlength=len(counts))
        # A deck is all members of a class once: class c needs rounds[c] of them.
        rounds = -(-dealt // counts)
        owner = np.repeat(np.arange(len(counts)), rounds)
        turn = np.arange(len(owner)) - np.repeat(np.cumsum(rounds) - rounds, rounds)
        deck = np.repeat(np.arange(len(owner)), counts[owner])
        first_member = np.cumsum(counts) - counts
        deck_begin = np.cumsum(counts[owner]) - counts[owner]
        cards = np.arange(len(deck)) + (first_member[owner] - deck_begin)[deck]
        odd = self._words(_ROUNDS, int(rounds.max())) | np.uint64(1)
        keys = self._words(_MEMBERS, len(self.strata.members))[cards] * odd[turn][deck]
        cards = self.strata.members[cards[np.lexsort((keys, deck))]]
        # Cards are now class after class: the first of each are dealt, in the order of the class's positions.
        class_begin = np.cumsum(rounds * counts) - rounds * counts
        skipped = class_begin - (np.cumsum(dealt) - dealt)
        positions = np.argsort(classes, kind="stable")
        indices = np.empty(len(classes), dtype=np.int64)
        indices[positions] = cards[np.arange(len(classes)) + np.repeat(skipped, dealt)]
        return indices


def _golden(count: int) -> NDArray[np.float64]:
    """The fractional parts of the first multiples of the golden ratio: evenly spread, however many are taken."""
    return seeding.uniform(np.arange(count, dtype=np.uint64) * _GOLDEN)
