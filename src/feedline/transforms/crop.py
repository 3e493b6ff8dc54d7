"""Crops: a window of fixed size, at a random place of the padded image or in the middle.

Guarantee: the result holds what a slice of ``numpy.pad(image, ...)`` would, but the padded image is never
made. A window inside the image is a view of it; only one that reaches into the padding is new memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

import numpy as np

from feedline import seeding
from feedline.transforms._arguments import checked_pair, is_number, store
from feedline.transforms._base import FixedTransform, RandomTransform
from feedline.transforms._layout import checked_layout, extent, window

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from feedline.transforms._layout import Layout

__all__ = ["CenterCrop", "RandomCrop"]

PaddingMode = Literal["constant", "reflect", "edge"]


@dataclass(frozen=True, slots=True)
class RandomCrop(RandomTransform[tuple[int, int]]):
    """Cut a window of ``size`` at a random place of the image with a border around it.

    All places at which the window fits are equally likely.

    Takes one image of any dtype, (H, W), (H, W, C) or (C, H, W), and keeps dtype, class and channels. The
    result is a view of the image where the window lies within it, new memory otherwise.

    Args:
        size: the window: an integer for a square, or (height, width).
        padding: the border on each side: an integer, or (rows at the top and the bottom, columns left and
            right). 4 is usual for small images; 0 crops the image itself.
        fill: the value of the border when it is ``"constant"``; it must fit the image's dtype.
        padding_mode: ``"constant"``, ``"reflect"`` or ``"edge"``, as `numpy.pad` has them.
        layout: ``"HW"``, ``"HWC"`` or ``"CHW"``, where the shape does not tell (see `feedline.transforms`).

    Raises:
        ValueError: an argument is none of these; when called, the window is larger than the padded image,
            ``fill`` does not fit, or the layout cannot be told.
        TypeError: ``fill`` is no number.

    Example:
        >>> import numpy as np
        >>> RandomCrop(32, padding=4)(np.zeros((32, 32, 3), np.uint8)).shape
        (32, 32, 3)
    """

    size: int | tuple[int, int]
    padding: int | tuple[int, int] = 4
    fill: float = 0
    padding_mode: PaddingMode = "constant"
    layout: Layout | None = None
    word_count: ClassVar[int] = 2

    def __post_init__(self) -> None:
        store(
            self,
            size=checked_pair(self.size, "size", minimum=1),
            padding=checked_pair(self.padding, "padding", minimum=0),
        )
        if not is_number(self.fill):
            raise TypeError(f"fill must be a number, got {self.fill!r} ({type(self.fill).__name__})")
        if self.padding_mode not in get_args(PaddingMode):
            raise ValueError(f'padding_mode must be "constant", "reflect" or "edge", got {self.padding_mode!r}')
        if self.padding_mode != "constant" and self.fill != 0:
            raise ValueError(
                f'fill applies to padding_mode="constant" alone, got fill={self.fill} with '
                f'"{self.padding_mode}": leave fill out'
            )
        checked_layout(self.layout)

    def draw(self, words: Sequence[int], height: int, width: int) -> tuple[int, int]:
        """The window's top and left, counted from the image's own corner: negative within the border."""
        (rows, columns), (above, beside) = _pair(self.size), _pair(self.padding)
        places = height + 2 * above - rows + 1, width + 2 * beside - columns + 1
        if min(places) < 1:
            padded = height + 2 * above, width + 2 * beside
            raise ValueError(
                f"RandomCrop of size {(rows, columns)} does not fit an image of (height, width) "
                f"{(height, width)}, {padded} when padded: give a larger padding=, or Resize first"
            )
        return seeding.below(words[0], places[0]) - above, seeding.below(words[1], places[1]) - beside

    def apply(self, pixels: NDArray[Any], layout: Layout, drawn: tuple[int, int]) -> NDArray[Any]:
        """The window at ``drawn``."""
        (top, left), (rows, columns) = drawn, _pair(self.size)
        height, width = extent(pixels.shape, layout)
        if self.padding != (0, 0):
            self._check_fill(pixels.dtype)
        if top >= 0 and left >= 0 and top + rows <= height and left + columns <= width:
            return window(pixels, layout, slice(top, top + rows), slice(left, left + columns))
        first = int(layout == "CHW")  # the axis of rows; columns follow
        if self.padding_mode != "constant":
            tall = pixels.take(self._sources(top, rows, height), axis=first)
            return tall.take(self._sources(left, columns, width), axis=first + 1)
        out = np.full((*pixels.shape[:first], rows, columns, *pixels.shape[first + 2 :]), self.fill, pixels.dtype)
        (source_rows, out_rows), (source_columns, out_columns) = (
            _overlap(top, rows, height),
            _overlap(left, columns, width),
        )
        window(out, layout, out_rows, out_columns)[...] = window(pixels, layout, source_rows, source_columns)
        return out

    def _check_fill(self, dtype: np.dtype[Any]) -> None:
        """Refuse a fill that an integer image would round or wrap."""
        if dtype.kind in "iu":
            bounds = np.iinfo(dtype)
            if self.fill % 1 != 0 or not bounds.min <= self.fill <= bounds.max:
                raise ValueError(
                    f"fill must be a whole number from {bounds.min} to {bounds.max} for an image of {dtype}, "
                    f"got {self.fill}"
                )

    def _sources(self, start: int, count: int, length: int) -> NDArray[np.intp]:
        """Where along an axis the window's pixels come from; ``reflect`` does not double the last one."""
        places = np.arange(start, start + count)
        if self.padding_mode == "edge" or length == 1:
            return places.clip(0, length - 1)
        last = length - 1
        folded: NDArray[np.intp] = last - np.abs(places % (2 * last) - last)
        return folded


@dataclass(frozen=True, slots=True)
class CenterCrop(FixedTransform):
    """Cut a window of ``size`` from the middle.

    An odd remainder leaves one pixel more below it, or to its right.

    Takes one image of any dtype, (H, W), (H, W, C) or (C, H, W), and keeps dtype, class and channels. The
    result is a view of the image.

    Args:
        size: the window: an integer for a square, or (height, width).
        layout: ``"HW"``, ``"HWC"`` or ``"CHW"``, where the shape does not tell (see `feedline.transforms`).

    Raises:
        ValueError: an argument is none of these; when called, the window is larger than the image, or the
            layout cannot be told.

    Example:
        >>> import numpy as np
        >>> CenterCrop(2)(np.arange(16).reshape(4, 4))
        array([[ 5,  6],
               [ 9, 10]])
    """

    size: int | tuple[int, int]
    layout: Layout | None = None

    def __post_init__(self) -> None:
        store(self, size=checked_pair(self.size, "size", minimum=1))
        checked_layout(self.layout)

    def apply(self, pixels: NDArray[Any], layout: Layout) -> NDArray[Any]:
        """The window in the middle."""
        (height, width), (rows, columns) = extent(pixels.shape, layout), _pair(self.size)
        if rows > height or columns > width:
            raise ValueError(
                f"CenterCrop of size {(rows, columns)} does not fit an image of (height, width) "
                f"{(height, width)}: Resize first"
            )
        top, left = (height - rows) // 2, (width - columns) // 2
        return window(pixels, layout, slice(top, top + rows), slice(left, left + columns))


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    """A field that ``__post_init__`` made a pair, as such."""
    assert isinstance(value, tuple)
    return value


def _overlap(start: int, count: int, length: int) -> tuple[slice, slice]:
    """What a window shares with the image along one axis: in the image, and in the window.

    Both are empty where they do not meet, beyond a border wider than the window.
    """
    first = min(max(start, 0), length)
    last = max(first, min(start + count, length))
    if first == last:
        return slice(0, 0), slice(0, 0)
    return slice(first, last), slice(first - start, last - start)
