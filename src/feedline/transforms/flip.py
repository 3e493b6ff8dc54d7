"""Flips: an image mirrored with a given probability.

Guarantee: no pixel is copied; the result is the image itself or a view of it (for torch, which has no
negative strides, a copy).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from feedline import seeding
from feedline.transforms._arguments import checked_probability, store
from feedline.transforms._base import RandomTransform
from feedline.transforms._layout import checked_layout, window

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from feedline.transforms._layout import Layout

__all__ = ["RandomHorizontalFlip", "RandomVerticalFlip"]

_ALL = slice(None)
_REVERSED = slice(None, None, -1)


@dataclass(frozen=True, slots=True)
class _RandomFlip(RandomTransform[bool]):
    """What both flips share: the probability and the draw."""

    p: float = 0.5
    layout: Layout | None = None
    word_count: ClassVar[int] = 1

    def __post_init__(self) -> None:
        store(self, p=checked_probability(self.p, "p"))
        checked_layout(self.layout)

    def draw(self, words: Sequence[int], height: int, width: int) -> bool:  # noqa: ARG002 -- the seam's signature
        """Whether to flip, from one word."""
        return seeding.uniform(words[0]) < self.p


@dataclass(frozen=True, slots=True)
class RandomHorizontalFlip(_RandomFlip):
    """Mirror an image left to right with probability ``p``.

    Takes one image of any dtype, (H, W), (H, W, C) or (C, H, W), and keeps shape, dtype and class. The result
    is the image itself or a view of it.

    Args:
        p: the probability, from 0 to 1.
        layout: ``"HW"``, ``"HWC"`` or ``"CHW"``, where the shape does not tell (see `feedline.transforms`).

    Raises:
        ValueError: ``p`` or ``layout`` is none of these; when called, the layout cannot be told.

    Example:
        >>> import numpy as np
        >>> RandomHorizontalFlip(p=1)(np.array([[1, 2], [3, 4]]))
        array([[2, 1],
               [4, 3]])
    """

    def apply(self, pixels: NDArray[Any], layout: Layout, drawn: bool) -> NDArray[Any]:  # noqa: FBT001 -- the seam's
        """The columns in reverse order, if so drawn."""
        return window(pixels, layout, _ALL, _REVERSED) if drawn else pixels


@dataclass(frozen=True, slots=True)
class RandomVerticalFlip(_RandomFlip):
    """Mirror an image top to bottom with probability ``p``.

    Takes one image of any dtype, (H, W), (H, W, C) or (C, H, W), and keeps shape, dtype and class. The result
    is the image itself or a view of it.

    Args:
        p: the probability, from 0 to 1.
        layout: ``"HW"``, ``"HWC"`` or ``"CHW"``, where the shape does not tell (see `feedline.transforms`).

    Raises:
        ValueError: ``p`` or ``layout`` is none of these; when called, the layout cannot be told.

    Example:
        >>> import numpy as np
        >>> RandomVerticalFlip(p=1)(np.array([[1, 2], [3, 4]]))
        array([[3, 4],
               [1, 2]])
    """

    def apply(self, pixels: NDArray[Any], layout: Layout, drawn: bool) -> NDArray[Any]:  # noqa: FBT001 -- the seam's
        """The rows in reverse order, if so drawn."""
        return window(pixels, layout, _REVERSED, _ALL) if drawn else pixels
