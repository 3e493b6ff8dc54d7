"""Checks of what transforms are built with.

Guarantee: what is accepted comes back in its one canonical form, of Python's own types.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from feedline.checks import integer

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["checked_pair", "checked_probability", "checked_range", "is_number", "positive_finite", "store"]


def store(transform: object, **values: object) -> None:
    """Set fields of a frozen dataclass, from its ``__post_init__`` only."""
    for name, value in values.items():
        object.__setattr__(transform, name, value)


def checked_probability(value: Any, name: str) -> float:
    """A float in [0, 1].

    Raises:
        ValueError: it is not.
    """
    if not is_number(value) or not 0 <= value <= 1:
        raise ValueError(f"{name} must be a number from 0 to 1, got {value!r}")
    return float(value)


def checked_pair(value: Any, name: str, *, minimum: int) -> tuple[int, int]:
    """(height, width) from an integer, meant for both, or a pair of integers; none below ``minimum``.

    Raises:
        ValueError: it is neither.
    """
    several = isinstance(value, tuple | list) or (isinstance(value, np.ndarray) and value.ndim > 0)
    pair = value if several else (value, value)
    try:
        height, width = (integer(name, number, least=minimum) for number in pair)
    except ValueError:
        kind = "positive" if minimum else "non-negative"
        raise ValueError(f"{name} must be a {kind} integer or a pair (height, width) of them, got {value!r}") from None
    return height, width


def checked_range(value: Any, name: str, rule: str, accepts: Callable[[Any, Any], bool]) -> tuple[float, float]:
    """(least, greatest), in order, of which ``accepts`` is true; ``rule`` says so in words.

    Raises:
        ValueError: it is no such pair.
    """
    pair = tuple(value) if isinstance(value, tuple | list | np.ndarray) else ()
    if len(pair) != 2 or not all(map(is_number, pair)) or not pair[0] <= pair[1] or not accepts(*pair):
        raise ValueError(f"{name} must be a pair (least, greatest) of {rule}, in order, got {value!r}")
    return float(pair[0]), float(pair[1])


def is_number(value: object) -> bool:
    """Whether it is a real number of Python's or NumPy's."""
    return isinstance(value, int | float | np.integer | np.floating)


def positive_finite(value: Any) -> bool:
    """Whether a number is above zero and below infinity."""
    return bool(value > 0 and math.isfinite(value))
