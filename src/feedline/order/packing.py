"""Sequences of different lengths packed into rows of a fixed length, and what attention kernels need to know of it.

Guarantee (`pack_sequences`): every sequence is in exactly one row, whole, unless it is longer than a row and ``split``
is given; no row is overfull; there are at most twice as many rows as the filled positions need, plus one. The packing
is a function of the arguments alone: the same on every machine, and with or without numba (extra ``kernels``), which
makes it faster.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from feedline.checks import column, integer
from feedline.order.packing_kernels import KERNELS, compiled

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = ["Packing", "pack_sequences"]

_LONGEST_ROW = 2**31 - 1  # positions and cumulative lengths are int32, as attention kernels take them
# Plain Python packs so many in 0.1 to 0.5 s; to import numba and load what it compiled before takes 0.4 s.
_COMPILED_FROM = 1 << 17


@dataclass(frozen=True, slots=True, eq=False)
class Packing:
    """Rows of pieces, a piece being a sequence or, where sequences were split, a part of one.

    Row r holds the pieces ``offsets[r]`` to ``offsets[r + 1]``, from its first position on, without gaps; the rest of
    it is padding. In a row the pieces stand in the order in which they were placed: longest first, those of equal
    length by sequence. All arrays are read-only and may be shared by threads.

    Attributes:
        row_length: positions a row.
        sequences: the index of each piece's sequence, int64, shape (pieces,).
        starts: where in its sequence each piece begins, int64, shape (pieces,): 0 for a whole sequence.
        lengths: the length of each piece, int64, shape (pieces,).
        offsets: int64, shape (num_rows + 1,).

    Example:
        >>> packing = pack_sequences([3, 2, 5, 4], 8)
        >>> packing.num_rows, packing.waste, packing.sequences, packing.offsets
        (2, 0.125, array([2, 0, 3, 1]), array([0, 2, 4]))
        >>> packing.segment_ids(1), packing.positions(1)
        (array([1, 1, 1, 1, 2, 2, 0, 0], dtype=int32), array([0, 1, 2, 3, 0, 1, 0, 0], dtype=int32))
        >>> packing.cu_seqlens(1), packing.max_seqlen(1)
        (array([0, 4, 6], dtype=int32), 4)
    """

    row_length: int
    sequences: NDArray[np.int64]
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]
    offsets: NDArray[np.int64]

    @property
    def num_rows(self) -> int:
        """The number of rows."""
        return len(self.offsets) - 1

    @property
    def waste(self) -> float:
        """The share of all positions that is padding; 0.0 where there is no row."""
        positions = self.num_rows * self.row_length
        return (positions - int(self.lengths.sum())) / positions if positions else 0.0

    def segment_ids(self, row: int) -> NDArray[np.int32]:
        """The piece at each position of a row, counted from 1, and 0 for padding; int32, shape (row_length,).

        Raises:
            IndexError: there is no such row.
        """
        lengths = self._lengths_of(row)
        ids = np.zeros(self.row_length, dtype=np.int32)
        ids[: lengths.sum()] = np.repeat(np.arange(1, len(lengths) + 1, dtype=np.int32), lengths)
        return ids

    def positions(self, row: int) -> NDArray[np.int32]:
        """Each position of a row as counted from the begin of its piece, 0 for padding; int32, shape (row_length,).

        In a sequence that was split, add the ``starts`` of its pieces to count from the begin of the sequence.

        Raises:
            IndexError: there is no such row.
        """
        lengths = self._lengths_of(row)
        ends = np.cumsum(lengths)
        positions = np.zeros(self.row_length, dtype=np.int32)
        positions[: ends[-1]] = np.arange(ends[-1]) - np.repeat(ends - lengths, lengths)
        return positions

    def cu_seqlens(self, row: int) -> NDArray[np.int32]:
        """Where in a row each piece begins, and the last ends; int32, shape (pieces in the row + 1,).

        These are the cumulative lengths that kernels for sequences of variable length take, beside `max_seqlen`.
        Padding is in no piece: hand over the row's first ``cu_seqlens(row)[-1]`` positions.

        Raises:
            IndexError: there is no such row.
        """
        lengths = self._lengths_of(row)
        bounds = np.zeros(len(lengths) + 1, dtype=np.int32)
        np.cumsum(lengths, out=bounds[1:])
        return bounds

    def max_seqlen(self, row: int) -> int:
        """The length of the longest piece in a row.

        Raises:
            IndexError: there is no such row.
        """
        return int(self._lengths_of(row).max())

    def _lengths_of(self, row: int) -> NDArray[np.int64]:
        if isinstance(row, bool) or not hasattr(row, "__index__"):
            raise TypeError(f"row must be an integer, got {row!r} ({type(row).__name__})")
        number = operator.index(row)
        if not 0 <= number < self.num_rows:
            raise IndexError(f"row must satisfy 0 <= row < {self.num_rows} (num_rows), got {number}")
        return self.lengths[self.offsets[number] : self.offsets[number + 1]]


def pack_sequences(
    lengths: ArrayLike,
    row_length: int,
    *,
    strategy: Literal["best-fit", "first-fit"] = "best-fit",
    split: bool = False,
) -> Packing:
    """Rows of ``row_length`` positions that hold sequences of these lengths.

    Sequences are placed by descending length, those of equal length by index (D. S. Johnson, "Near-optimal bin packing
    algorithms", 1973), and a row is opened where a sequence fits in no open one: at most 11/9 times as many rows as
    any packing needs, plus one (Dósa, 2007, for first fit). Rows come in the order in which they were opened, so
    those of long sequences first: draw rows at random in training. O(n log n) time; memory about 100 bytes a sequence,
    and for best fit 10 to 12 bytes a position of one row. The GIL is released where numba compiles (from 131,072
    sequences on, if it is installed).

    Args:
        lengths: one positive integer a sequence, shape (N,); N may be 0.
        row_length: from 1 to 2**31 - 1.
        strategy: a sequence goes to the fullest row that has room for it (``"best-fit"``; of equally full ones, to
            the last to become so) or to the first (``"first-fit"``).
        split: cut a sequence that is longer than a row into pieces of ``row_length`` and a rest, each a piece of its
            own. No other sequence is cut.

    Raises:
        ValueError: an argument is not that, or a sequence is longer than a row and ``split`` is not given.

    Example:
        >>> packing = pack_sequences([19, 3], 8, split=True)
        >>> packing.sequences, packing.starts, packing.lengths, packing.offsets
        (array([0, 0, 0, 1]), array([ 0,  8, 16,  0]), array([8, 8, 3, 3]), array([0, 1, 2, 4]))
        >>> pack_sequences([19, 3], 8)
        Traceback (most recent call last):
        ...
        ValueError: lengths must be at most row_length (8), got 19 at index 0: truncate it, drop it or pass split=True
    """
    row_length = integer("row_length", row_length, least=1)
    if row_length > _LONGEST_ROW:
        raise ValueError(f"row_length must be at most {_LONGEST_ROW} (positions are int32), got {row_length}")
    if strategy not in tuple(KERNELS):  # a list has no hash
        raise ValueError(f'strategy must be "best-fit" or "first-fit", got {strategy!r}')
    if not isinstance(split, bool):
        raise ValueError(f"split must be True or False, got {split!r}")  # noqa: TRY004 -- as drop_last
    whole = _checked_lengths(lengths)
    if not split and whole.size and whole.max() > row_length:
        index = int(np.argmax(whole > row_length))
        raise ValueError(
            f"lengths must be at most row_length ({row_length}), got {whole[index]} at index {index}: "
            f"truncate it, drop it or pass split=True"
        )
    sequences, starts, pieces = _cut(whole, row_length)
    # Ascending keys of the least width: NumPy sorts 16 bits by radix.
    keys = (row_length - pieces).astype(np.min_scalar_type(row_length), copy=False)
    descending = np.argsort(keys, kind="stable")
    rows, num_rows = _rows(pieces[descending], row_length, strategy)
    order = descending[np.argsort(rows, kind="stable")]
    offsets = np.zeros(num_rows + 1, dtype=np.int64)
    np.cumsum(np.bincount(rows, minlength=num_rows), out=offsets[1:])
    arrays = (sequences[order], starts[order], pieces[order], offsets)
    for array in arrays:
        array.flags.writeable = False
    return Packing(row_length, *arrays)


def _checked_lengths(lengths: ArrayLike) -> NDArray[np.int64]:
    array = column("lengths", lengths, "one a sequence")
    if array.ndim != 1:
        raise ValueError(f"lengths must be one-dimensional, one a sequence, got shape {array.shape}")
    if not array.size:
        return np.empty(0, dtype=np.int64)
    if array.dtype.kind not in "iu":
        raise ValueError(f"lengths must be integers, got dtype {array.dtype}")
    checked = array.astype(np.int64, copy=False)  # what int64 cannot hold becomes negative
    if checked.min() < 1:
        index = int(np.argmax(checked < 1))
        raise ValueError(f"lengths must be from 1 to 2**63 - 1, got {array[index]} at index {index}")
    return checked


def _cut(lengths: NDArray[np.int64], row_length: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """The sequence, start and length of each piece, by sequence and start."""
    counts = (lengths - 1) // row_length + 1
    sequences = np.repeat(np.arange(len(lengths)), counts)
    starts = (np.arange(len(sequences)) - np.repeat(np.cumsum(counts) - counts, counts)) * row_length
    return sequences, starts, np.minimum(lengths[sequences] - starts, row_length)


def _rows(lengths: NDArray[np.int64], row_length: int, strategy: str) -> tuple[NDArray[np.int64], int]:
    """The row of each piece, of descending lengths, and the number of rows."""
    rows = np.zeros(len(lengths), dtype=np.int64)
    if not len(lengths):
        return rows, 0
    kernel, make_buffers = KERNELS[strategy]
    buffers = make_buffers(lengths, row_length)
    if len(lengths) >= _COMPILED_FROM:
        try:
            fast = compiled(strategy)
        except ImportError:
            pass  # the same rows, later
        else:
            return rows, int(fast(lengths, rows, *buffers))
    placed = rows.tolist()
    num_rows = kernel(lengths.tolist(), placed, *(buffer.tolist() for buffer in buffers))
    return np.array(placed, dtype=np.int64), num_rows
