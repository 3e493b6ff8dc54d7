"""Which row each sequence goes to: first fit and best fit, in O(log n) a sequence or better.

Guarantee: one text, two builds. Each function is plain Python over integers, flags and indexable buffers. It runs
as it is, on lists, and compiled by numba, on arrays (`compiled`): integers only, hence the same rows from both.

A function takes sequences sorted by descending length, at least one, each from 1 to the length of a row. It writes the
row of each to ``rows`` and returns the number of rows. A run of equal lengths fills a row in one go: the row that has
just been chosen is the one that would be chosen again for as long as it has room.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np

from feedline.extras import require

if TYPE_CHECKING:
    from collections.abc import Callable, MutableSequence, Sequence

    from numpy.typing import NDArray

__all__ = ["KERNELS", "best_fit", "best_fit_buffers", "compiled", "first_fit", "first_fit_buffers"]


def first_fit(lengths: Sequence[int], rows: MutableSequence[int], rooms: MutableSequence[int]) -> int:
    """Each sequence to the first row with room for it.

    ``rooms`` is a segment tree: leaf ``leaves + r`` holds the room left in row r (a row that is not open yet is an
    empty one), an inner node the larger of its children ``2 * node`` and ``2 * node + 1``. The root is node 1.

    Args:
        lengths: descending, shape (n,).
        rows: written, shape (n,).
        rooms: as `first_fit_buffers` makes it; used up.

    Returns:
        The number of rows.
    """
    leaves = len(rooms) // 2
    opened = 0
    placed = 0
    while placed < len(lengths):
        length = lengths[placed]
        node = 1
        while node < leaves:
            node *= 2
            if rooms[node] < length:
                node += 1
        row = node - leaves
        opened = max(opened, row + 1)
        room = rooms[node]
        while placed < len(lengths) and lengths[placed] == length and room >= length:
            rows[placed] = row
            room -= length
            placed += 1
        rooms[node] = room
        while node > 1:
            node //= 2
            larger = max(rooms[2 * node], rooms[2 * node + 1])
            if rooms[node] == larger:
                break
            rooms[node] = larger
    return opened


def first_fit_buffers(lengths: NDArray[np.int64], row_length: int) -> tuple[NDArray[Any], ...]:
    """The tree ``rooms`` of empty rows, as many as can be needed."""
    leaves = _power_of_two(_most_rows(lengths, row_length))
    return (np.full(2 * leaves, row_length, dtype=np.int64),)


def best_fit(
    lengths: Sequence[int],
    rows: MutableSequence[int],
    top: MutableSequence[int],
    below: MutableSequence[int],
    occupied: MutableSequence[int],
) -> int:
    """Each sequence to the row with the least room that is enough for it; of equal ones, to the last to get that room.

    Open rows stand in stacks, one for each amount of room: ``top[room]`` is a row or -1, ``below[row]`` the one under
    it or -1. ``occupied`` is a tree, laid out as in `first_fit`, whose leaf ``leaves + room`` is 1 where that stack
    holds a row, and whose inner nodes are 1 where one of their children is. A row too full for the shortest sequence
    is in no stack. The leaf of an empty row is always 1: there is always another. It bounds every search.

    Args:
        lengths: descending, shape (n,).
        rows: written, shape (n,).
        top: one entry for each room from 0 to that of an empty row, as `best_fit_buffers` makes it; used up, like the
            next two.
        below: one entry a row.
        occupied: twice a power of two that is at least ``len(top)``.

    Returns:
        The number of rows.
    """
    leaves = len(occupied) // 2
    empty = len(top) - 1
    shortest = lengths[len(lengths) - 1]
    opened = 0
    placed = 0
    while placed < len(lengths):
        length = lengths[placed]
        # From the leaf before: up to the first subtree on the right that is occupied, down to its leftmost leaf.
        node = leaves + length - 1
        while node % 2 == 1 or not occupied[node + 1]:
            node //= 2
        node += 1
        while node < leaves:
            node = 2 * node + 1 - occupied[2 * node]
        room = node - leaves
        if room == empty:
            row = opened
            opened += 1
        else:
            row = top[room]
            top[room] = below[row]
            if top[room] < 0:
                occupied[node] = 0
                while not occupied[node ^ 1]:
                    node //= 2
                    occupied[node] = 0
        while placed < len(lengths) and lengths[placed] == length and room >= length:
            rows[placed] = row
            room -= length
            placed += 1
        if room >= shortest:
            below[row] = top[room]
            top[room] = row
            node = leaves + room
            while not occupied[node]:
                occupied[node] = 1
                node //= 2
    return opened


def best_fit_buffers(lengths: NDArray[np.int64], row_length: int) -> tuple[NDArray[Any], ...]:
    """Empty stacks: ``top``, ``below`` and ``occupied``."""
    top = np.full(row_length + 1, -1, dtype=np.int64)
    below = np.full(_most_rows(lengths, row_length), -1, dtype=np.int64)
    occupied = np.zeros(2 * _power_of_two(row_length + 1), dtype=np.uint8)
    node = len(occupied) // 2 + row_length
    while node:
        occupied[node] = 1
        node //= 2
    return top, below, occupied


KERNELS: dict[str, tuple[Callable[..., int], Callable[..., tuple[NDArray[Any], ...]]]] = {
    "best-fit": (best_fit, best_fit_buffers),
    "first-fit": (first_fit, first_fit_buffers),
}


@functools.cache
def compiled(strategy: str) -> Callable[..., int]:
    """The kernel of a strategy as numba builds it, which lets go of the GIL; kept on disk between processes.

    Raises:
        ImportError: numba is not installed, or does not work with this NumPy.
    """
    numba = require("numba", extra="kernels", purpose="compiled packing")
    return _build(numba, KERNELS[strategy][0])


def _build(numba: Any, function: Callable[..., int]) -> Callable[..., int]:
    try:
        built: Callable[..., int] = numba.njit(nogil=True, cache=True)(function)
    except RuntimeError:  # neither this folder nor the user's can be written: compiled anew in each process
        built = numba.njit(nogil=True)(function)
    return built


def _most_rows(lengths: NDArray[np.int64], row_length: int) -> int:
    """No less than either strategy opens.

    A row is opened for a sequence that fits no open row; so of any two rows the contents exceed ``row_length``. Summed
    over each row and the next, round the circle: 2 * sum(lengths) > rows * row_length, if there are two rows or more.
    """
    return min(len(lengths), 2 * int(lengths.sum()) // row_length + 1)


def _power_of_two(least: int) -> int:
    return int(1 << (least - 1).bit_length())
