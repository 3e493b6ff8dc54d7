"""Checks of arguments that several parts of the package take.

Guarantee: what is accepted comes back as plain Python; what is refused is named with its rule and its value.
"""

from __future__ import annotations

import operator
from typing import Any

__all__ = ["integer"]

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
