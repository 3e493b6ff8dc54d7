"""Checks of arguments that several parts of the package take.

Guarantee: what is accepted comes back as plain Python; what is refused is named with its rule and its value.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["column", "integer"]

_RULES = {0: "a non-negative integer", 1: "a positive integer"}


def integer(name: str, value: Any, *, least: int) -> int:
    """``value`` as a Python int.

    Args:
        name: what the argument is called.
        value: an integer: Python's, NumPy's or an array of no dimensions; no truth value, no float, even a whole one.
        least: the smallest that will do.

    Raises:
        ValueError: it is anything else.

    Example:
        >>> integer("batch_size", 32, least=1)
        32
        >>> integer("batch_size", 0, least=1)
        Traceback (most recent call last):
        ...
        ValueError: batch_size must be a positive integer, got 0
    """
    dimensions: Any = getattr(value, "ndim", 0)
    # torch's truth values, and its tensors of one element, would pass as an index.
    if not (isinstance(value, bool) or dimensions or "bool" in str(getattr(value, "dtype", ""))):
        try:
            number = operator.index(value)
        except TypeError:
            pass
        else:
            if number >= least:
                return number
    raise ValueError(f"{name} must be {_RULES.get(least, f'an integer of at least {least}')}, got {value!r}")


def column(name: str, values: Any, each: str) -> NDArray[Any]:
    """``values`` as an array, of whatever shape and dtype they have; a view of theirs where they are one.

    A tensor that NumPy cannot read (on a device, in need of a gradient, of a type that NumPy has not) is read by its
    ``tolist()``.

    Args:
        name: what the argument is called.
        values: an array of any library, or a list, tuple, range or another sequence.
        each: what one of them stands for, as in ``"one a sample"``.

    Raises:
        ValueError: they have no order, or come only once, or they are sequences of different lengths.

    Example:
        >>> column("lengths", (3, 1), "one a sample")
        array([3, 1])
        >>> column("lengths", {3, 1}, "one a sample")
        Traceback (most recent call last):
        ...
        ValueError: lengths must be a one-dimensional sequence or array, one a sample, got set: give a list of them
    """
    is_sequence = hasattr(values, "__len__") and hasattr(values, "__getitem__") and not isinstance(values, Mapping)
    if hasattr(values, "__iter__") and not (is_sequence or hasattr(values, "__array__")):
        raise ValueError(
            f"{name} must be a one-dimensional sequence or array, {each}, got {type(values).__name__}: "
            f"give a list of them"
        )
    try:
        return np.asarray(values)
    except ValueError as error:
        raise ValueError(f"{name} must be one-dimensional, {each}, got sequences of different lengths") from error
    except (TypeError, RuntimeError):  # as torch has it
        if not hasattr(values, "tolist"):
            raise
        return np.asarray(values.tolist())
