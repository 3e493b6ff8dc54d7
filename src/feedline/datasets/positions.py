"""Indices against a length: whoever takes an index checks it here, so that all say the same when it is wrong.

Guarantee: what comes back lies in ``[0, size)``; negative indices count from the end; none is clipped.
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["position", "positions"]


def position(index: Any, size: int) -> int:
    """One index as a position from 0 to ``size - 1``.

    Raises:
        IndexError: it lies outside.
        TypeError: it is no integer.

    Example:
        >>> position(-1, 10)
        9
    """
    try:
        place = operator.index(index)
    except TypeError:
        raise TypeError(f"index must be an integer, got {index!r} ({type(index).__name__})") from None
    if place < 0:
        place += size
    if not 0 <= place < size:
        raise _out_of_range(index, size)
    return place


def positions(indices: Any, size: int) -> NDArray[np.int64]:
    """Many indices as positions from 0 to ``size - 1``: the same array if nothing has to change.

    Args:
        indices: a one-dimensional array or sequence of integers.
        size: the dataset's length.

    Raises:
        IndexError: one of them lies outside; the message names the first.
        TypeError: they are no integers (a mask of booleans included).
        ValueError: they are not one-dimensional.

    Example:
        >>> positions([0, -1], 10)
        array([0, 9])
    """
    given = np.asarray(indices)
    if given.dtype == np.int64 and given.ndim == 1 and given.size and np.maximum.reduce(given.view(np.uint64)) < size:
        return given  # the common case by one reduction: seen as unsigned, negative numbers are the largest
    if given.ndim != 1:
        raise ValueError(f"indices must be one-dimensional, got shape {given.shape}")
    if not given.size:
        return np.empty(0, dtype=np.int64)
    if given.dtype.kind not in "iu":
        remedy = "; use np.flatnonzero(mask)" if given.dtype.kind == "b" else ""
        raise TypeError(f"indices must be integers, got an array of {given.dtype}{remedy}")
    lowest, highest = int(given.min()), int(given.max())
    if lowest < -size or highest >= size:
        wrong = (given < -size) | (given >= size)
        raise _out_of_range(given[wrong.argmax()], size)
    found = given.astype(np.int64, copy=False)
    return found if lowest >= 0 else np.where(found < 0, found + size, found)


def _out_of_range(index: Any, size: int) -> IndexError:
    return IndexError(f"Index {index} out of range for dataset of size {size}")
