"""Orders in which samples of like length are neighbours: an epoch's one pass over the lengths.

Guarantee: every sample once. An order is a pure function of the lengths, the sizes of its buckets, seed and epoch. It
is computed at the first take, O(N), and held; `BucketedOrder` knows nothing of the batch size.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

import numpy as np

from feedline import seeding
from feedline.checks import column
from feedline.order.permutation import PermutedOrder
from feedline.order.sequence import check_span

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = ["BucketedOrder", "TokenBuckets", "TokenOrder", "checked_lengths", "filled_in_turn", "padded_share"]

# A permutation takes the details 0 and 1 of its stream; these follow.
_RUNS, _MEMBERS, _PLACE, _BATCHES = 2, 3, 4, 5
_LEAST_BATCHES = 4  # in a bucket: of one batch's samples alone the same would meet in every epoch


def checked_lengths(lengths: ArrayLike) -> NDArray[np.int64]:
    """The lengths as a fresh, read-only array, shape (N,).

    Raises:
        ValueError: they are not one-dimensional, no integers, negative or beyond int64, or there are none.

    Example:
        >>> checked_lengths([3, 0, 2])
        array([3, 0, 2])
    """
    values = column("lengths", lengths, "one a sample")
    if values.ndim != 1 or not values.size:
        raise ValueError(f"lengths must be one-dimensional, one a sample, and at least one, got shape {values.shape}")
    if values.dtype.kind not in "iu":
        raise ValueError(f"lengths must be integers, got dtype {values.dtype}; count tokens, frames or bytes")
    checked = values.astype(np.int64)  # what int64 cannot hold becomes negative
    if checked.min() < 0:
        index = int(np.argmax(checked < 0))
        raise ValueError(f"lengths must be from 0 to 2**63 - 1, got {values[index]} at index {index}")
    checked.flags.writeable = False
    return checked


def padded_share(lengths: NDArray[np.int64], starts: NDArray[np.int64]) -> float:
    """The share of positions that is padding where each batch is padded to its longest sample.

    Args:
        lengths: of the samples in their order, int64, shape (N,).
        starts: where in it each batch begins, increasing from 0, int64, shape (batches,).

    Example:
        >>> padded_share(np.array([4, 2, 3, 3]), np.array([0, 2]))
        0.14285714285714285
    """
    if not len(starts):
        return 0.0
    sizes = np.diff(starts, append=len(lengths))
    positions = float(np.maximum.reduceat(lengths, starts).astype(np.float64) @ sizes)
    return (positions - float(lengths.sum(dtype=np.float64))) / positions if positions else 0.0


def filled_in_turn(lengths: NDArray[np.int64], max_tokens: int) -> NDArray[np.int64]:
    """Where each batch begins that takes samples as they come, as many as ``longest * samples <= max_tokens`` allows.

    A length of 0 counts as 1.

    Example:
        >>> filled_in_turn(np.array([4, 2, 1, 2, 2, 2]), 8)
        array([0, 2])
    """
    starts = []
    start, span = 0, 16
    while start < len(lengths):
        longest = np.maximum.accumulate(lengths[start : start + span].clip(min=1))
        fits = longest <= max_tokens // np.arange(1, len(longest) + 1)
        if fits[-1] and start + span < len(lengths):  # perhaps more would
            span *= 2
            continue
        starts.append(start)
        size = len(fits) if fits[-1] else int(fits.argmin())
        start += size
        span = 2 * size
    return np.array(starts)


def _descending(lengths: NDArray[np.int64]) -> NDArray[np.unsignedinteger]:
    """Keys that sort the longest first: of the smallest type, since NumPy sorts up to 16 bits in linear time."""
    shorter = lengths.max() - lengths
    keys: NDArray[np.unsignedinteger] = shorter.astype(np.min_scalar_type(shorter.max()))
    return keys


@dataclass(frozen=True, slots=True, eq=False)
class BucketedOrder:
    """Samples in buckets of like length: every stretch within a bucket holds samples that pad each other little.

    All samples are permuted; each group of ``buckets * bucket_size`` that follow one another is sorted by length and
    cut into buckets of ``bucket_size``. Then buckets change places, all over the epoch, and so do samples within a
    bucket. What is left over is a bucket, too: it comes last, and is taken from anywhere in the last group, so that
    who leaves out the end of an epoch leaves out no particular lengths.

    Not shuffled, the samples keep their order but that each group is sorted, the longest first: equal ones as they are.

    Attributes:
        lengths: of each sample, at least 0; held, not copied.
        bucket_size: samples in a bucket.
        buckets: buckets in a group.
        shuffle: whether anything is shuffled.
        seed: from 0 to 2**64 - 1.
        epoch: from 0 to 2**64 - 1.

    Example:
        >>> order = BucketedOrder(np.array([9, 1, 8, 2]), 2, 2, shuffle=True, seed=1, epoch=0)
        >>> order.take(0, 4)
        array([3, 1, 0, 2])
    """

    lengths: NDArray[np.int64]
    bucket_size: int
    buckets: int
    shuffle: bool = field(kw_only=True)
    seed: int
    epoch: int
    _made: NDArray[np.int64] | None = field(init=False, repr=False, default=None)

    @property
    def length(self) -> int:
        """How many samples there are."""
        return len(self.lengths)

    def take(self, start: int, stop: int) -> NDArray[np.int64]:
        """See `Order.take`; a read-only array."""
        check_span(start, stop, self.length)
        made = self._made
        if made is None:  # threads that meet here make the same
            made = self._shuffled() if self.shuffle else self._grouped(np.arange(self.length))
            made.flags.writeable = False
            object.__setattr__(self, "_made", made)
        return made[start:stop]

    def _words(self, detail: int, count: int) -> NDArray[np.uint64]:
        return seeding.bulk_words(self.seed, self.epoch, seeding.Stream.PERMUTATION.word(detail), 0, count)

    def _grouped(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """The indices, each group sorted by length."""
        keys = _descending(self.lengths)[indices]
        group = min(self.bucket_size * self.buckets, self.length)
        whole = self.length // group * group
        rows = np.argsort(keys[:whole].reshape(-1, group), axis=1, kind="stable")
        rows += np.arange(0, whole, group)[:, None]
        rest = whole + np.argsort(keys[whole:], kind="stable")
        grouped: NDArray[np.int64] = indices[np.concatenate([rows.ravel(), rest])]
        return grouped

    def _shuffled(self) -> NDArray[np.int64]:
        grouped = self._grouped(PermutedOrder(self.length, self.seed, self.epoch).take(0, self.length))
        size = min(self.bucket_size, self.length)
        whole = self.length // size * size
        left_over = self.length - whole
        if left_over:
            last_group = self.length % (self.bucket_size * self.buckets)
            place = seeding.below(int(self._words(_PLACE, 1)[0]), last_group // size + 1)
            at = self.length - last_group + place * size
            grouped[at:] = np.roll(grouped[at:], -left_over)
        full = grouped[:whole].reshape(-1, size)
        full = full[np.argsort(self._words(_RUNS, len(full)), kind="stable")]
        # A place and a random number above it in one word: distinct, so that any way of sorting gives the same.
        places = np.uint64((1 << (size - 1).bit_length()) - 1)
        words = self._words(_MEMBERS, self.length) & ~places
        words[:whole] |= np.tile(np.arange(size, dtype=np.uint64), len(full))
        words[whole:] |= np.arange(left_over, dtype=np.uint64)
        rows = (np.sort(words[:whole].reshape(-1, size), axis=1) & places).view(np.int64)
        last = (np.sort(words[whole:]) & places).view(np.int64)
        return np.concatenate([np.take_along_axis(full, rows, axis=1).ravel(), grouped[whole:][last]])


@dataclass(frozen=True, slots=True, eq=False)
class TokenBuckets:
    """Which samples may share a batch of at most ``max_tokens`` positions, and how large the batches are.

    Sorted by length, the longest first, samples are cut into buckets, so that a bucket's shortest is at most the share
    ``slack`` shorter than its longest, or it fills 4 batches. All batches of a bucket hold as many samples as its
    longest allows, whichever they are; only the very last may hold fewer. So an epoch has the same batch sizes,
    however the samples of a bucket are shuffled.

    Attributes:
        members: samples from the longest to the shortest, equal ones by index; int64, shape (N,).
        bucket: the number of each sample's bucket; an unsigned integer, shape (N,).
        starts: where in ``members`` each batch begins, and where the last ends: int64, shape (batches + 1,).

    Example:
        >>> table = TokenBuckets.of(np.array([2, 4, 4, 1, 2]), max_tokens=8, slack=0.0, least_batches=1)
        >>> table.members, table.bucket, table.starts
        (array([1, 2, 0, 4, 3]), array([1, 0, 0, 1, 1], dtype=uint8), array([0, 2, 5]))
    """

    members: NDArray[np.int64]
    bucket: NDArray[np.unsignedinteger]
    starts: NDArray[np.int64]

    @classmethod
    def of(cls, lengths: NDArray[np.int64], max_tokens: int, slack: float, least_batches: int = _LEAST_BATCHES) -> Self:
        """The buckets of samples of these lengths, none of them above ``max_tokens``."""
        members = np.argsort(_descending(lengths), kind="stable")
        ascending = lengths[members[::-1]]
        begins, sizes, counts = [], [], []
        begin, length = 0, len(lengths)
        while begin < length:  # at most twice a distinct length
            longest = int(ascending[length - 1 - begin])
            size = min(max_tokens // max(longest, 1), length)
            like = length - int(ascending.searchsorted(longest - int(longest * slack))) - begin
            count = max(like // size, least_batches)
            begins.append(begin)
            sizes.append(size)
            counts.append(min(count, -(-(length - begin) // size)))
            begin += count * size
        bucket = np.empty(length, dtype=np.min_scalar_type(len(begins)))
        bucket[members] = np.repeat(np.arange(len(begins), dtype=bucket.dtype), np.diff(begins, append=length))
        ends = np.cumsum(np.repeat(sizes, counts))
        ends[-1] = length
        return cls(members, bucket, np.concatenate([[0], ends]))


@dataclass(frozen=True, slots=True, eq=False)
class TokenOrder:
    """The batches of `TokenBuckets` laid end to end: samples shuffled within each bucket, then all batches.

    Not shuffled, the longest come first.

    Attributes:
        table: the buckets; held, not copied.
        shuffle: whether anything is shuffled.
        seed: from 0 to 2**64 - 1.
        epoch: from 0 to 2**64 - 1.

    Example:
        >>> table = TokenBuckets.of(np.array([2, 4, 4, 1, 2]), max_tokens=8, slack=0.0)
        >>> order = TokenOrder(table, shuffle=False, seed=1, epoch=0)
        >>> [order.take(*order.bounds(batch)).tolist() for batch in range(order.batches)]
        [[1, 2], [0, 4], [3]]
    """

    table: TokenBuckets
    shuffle: bool = field(kw_only=True)
    seed: int
    epoch: int
    _made: tuple[NDArray[np.int64], NDArray[np.int64]] | None = field(init=False, repr=False, default=None)

    @property
    def length(self) -> int:
        """How many samples there are."""
        return len(self.table.members)

    @property
    def batches(self) -> int:
        """How many batches."""
        return len(self.table.starts) - 1

    def take(self, start: int, stop: int) -> NDArray[np.int64]:
        """See `Order.take`; a read-only array."""
        check_span(start, stop, self.length)
        return self._pass()[0][start:stop]

    def bounds(self, batch: int) -> tuple[int, int]:
        """The position of a batch's first sample, and that after its last."""
        check_span(batch, batch + 1, self.batches)
        start, stop = self.starts[batch : batch + 2].tolist()
        return start, stop

    def alike(self, index: int) -> NDArray[np.int64]:
        """The samples of its bucket: batches of them have room for the longest."""
        return np.flatnonzero(self.table.bucket == self.table.bucket[index])

    @property
    def starts(self) -> NDArray[np.int64]:
        """The position of each batch's first sample, and that after the last batch: int64, shape (batches + 1,)."""
        return self._pass()[1]

    def _pass(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The samples, and where each batch begins."""
        made = self._made
        if made is None:  # threads that meet here make the same
            made = self._shuffled() if self.shuffle else (self.table.members, self.table.starts)
            made[0].flags.writeable = False
            object.__setattr__(self, "_made", made)
        return made

    def _shuffled(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        table, length = self.table, self.length
        permuted = PermutedOrder(length, self.seed, self.epoch).take(0, length)
        members = permuted[np.argsort(table.bucket[permuted], kind="stable")]
        words = seeding.bulk_words(self.seed, self.epoch, seeding.Stream.PERMUTATION.word(_BATCHES), 0, self.batches)
        turn = np.argsort(words, kind="stable")
        sizes = np.diff(table.starts)[turn]
        starts = np.concatenate([[0], np.cumsum(sizes)])
        return members[np.repeat(table.starts[:-1][turn] - starts[:-1], sizes) + np.arange(length)], starts
