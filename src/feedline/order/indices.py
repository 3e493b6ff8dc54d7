"""Indices that a user lists: checked, and kept as int64.

Guarantee: what comes back is a fresh array, or read from one that is never written to; an index is refused rather than
rounded or wrapped around.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = ["checked_indices", "checksum", "listed_indices"]


def checked_indices(indices: ArrayLike) -> NDArray[np.int64]:
    """The indices as a fresh array, shape (N,).

    Raises:
        ValueError: they are not one-dimensional, no integers, or beyond int64.

    Example:
        >>> checked_indices(range(3, 6))
        array([3, 4, 5])
    """
    values = np.asarray(indices)
    if values.ndim != 1 or (values.size and values.dtype.kind not in "iu"):
        raise ValueError(
            f"indices must be a one-dimensional sequence of integers, got dtype {values.dtype} and shape "
            f"{values.shape}; turn a mask into indices by numpy.flatnonzero(mask)"
        )
    return _as_int64(values)


def listed_indices(sampler: object) -> NDArray[np.int64] | None:
    """The indices of a list, tuple, range or array of integers; None for anything else.

    Raises:
        TypeError: it is a mask of booleans.
        ValueError: an index is beyond int64.

    Example:
        >>> listed_indices((2, 0))
        array([2, 0])
        >>> listed_indices("20") is None
        True
    """
    if type(sampler) not in {list, tuple, range, np.ndarray}:  # a subclass may iterate in its own way
        return None
    try:
        values = np.asarray(sampler)
    except ValueError:  # lists of different lengths
        return None
    if values.dtype.kind == "b" and values.size:
        raise TypeError("sampler must yield indices, got a mask of booleans; use numpy.flatnonzero(mask)")
    if values.ndim == 1 and (values.dtype.kind in "iu" or not values.size):
        return _as_int64(values)
    return None


def checksum(values: NDArray[Any]) -> str:
    """What tells an array's content apart in the name of a sampler.

    Example:
        >>> checksum(np.array([1, 2, 3], dtype=np.uint8))
        'crc32=55bc801d'
        >>> checksum(np.array([]))
        'empty'
    """
    return f"crc32={zlib.crc32(np.ascontiguousarray(values).data.cast('B')):08x}" if values.size else "empty"


def _as_int64(values: NDArray[Any]) -> NDArray[np.int64]:
    """Indices as they are kept; those beyond int64 are refused, not wrapped around."""
    if values.dtype.kind == "u" and values.size and values.max() > np.iinfo(np.int64).max:
        raise ValueError(f"indices must be below 2**63, got {values.max()}")
    return values.astype(np.int64)
