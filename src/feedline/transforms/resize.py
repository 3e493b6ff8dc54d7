"""Resizing by OpenCV, of the whole image or of a random part of it (extra ``image``).

Guarantee: the pixels are those of ``cv2.resize`` on the (H, W, C) image, whatever its layout; dtype, class
and channel axis stay. OpenCV is imported at the first call.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from feedline import seeding
from feedline.extras import require
from feedline.transforms._arguments import checked_pair, checked_range, store
from feedline.transforms._base import FixedTransform, RandomTransform
from feedline.transforms._layout import checked_layout, extent, window

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from feedline.transforms._layout import Layout

__all__ = ["RandomResizedCrop", "Resize"]

Interpolation = Literal["nearest", "bilinear", "bicubic", "area", "lanczos"]

_FLAGS = {
    "nearest": "INTER_NEAREST",
    "bilinear": "INTER_LINEAR",
    "bicubic": "INTER_CUBIC",
    "area": "INTER_AREA",
    "lanczos": "INTER_LANCZOS4",
}
_DTYPES = tuple(np.dtype(name) for name in ("uint8", "uint16", "int16", "float32", "float64"))
_CHANNELS_AT_ONCE = 4  # cv2.resize refuses more with "area", and more than 128 with any
_ATTEMPTS = 10
_WORDS_PER_ATTEMPT = 4


@dataclass(frozen=True, slots=True)
class Resize(FixedTransform):
    """Scale an image to ``size``.

    Takes one image of uint8, uint16, int16, float32 or float64, (H, W), (H, W, C) or (C, H, W), and keeps
    dtype, class and channels. The result is new memory, or the image itself where it has that size already.

    Args:
        size: (height, width), or an integer for the shorter side; the longer one then keeps the image's
            proportions, rounded down, so that images of different shapes stay different (``CenterCrop`` may
            follow).
        interpolation: ``"nearest"``, ``"bilinear"``, ``"bicubic"``, ``"area"`` or ``"lanczos"``. ``"area"``
            averages and is the one to shrink with; the others do not smooth before they sample.
        layout: ``"HW"``, ``"HWC"`` or ``"CHW"``, where the shape does not tell (see `feedline.transforms`).

    Raises:
        ValueError: an argument is none of these; when called, the layout cannot be told.
        TypeError: when called: the image's dtype is none of these.
        ImportError: when called: OpenCV is not installed.

    Example:
        >>> import numpy as np
        >>> image = np.zeros((48, 64, 3), np.uint8)
        >>> Resize((32, 32))(image).shape, Resize(24)(image).shape
        ((32, 32, 3), (24, 32, 3))
    """

    size: int | tuple[int, int]
    interpolation: Interpolation = "bilinear"
    layout: Layout | None = None

    def __post_init__(self) -> None:
        pair = checked_pair(self.size, "size", minimum=1)
        store(self, size=pair if isinstance(self.size, tuple | list | np.ndarray) else pair[0])
        _check_interpolation(self.interpolation)
        checked_layout(self.layout)

    def apply(self, pixels: NDArray[Any], layout: Layout) -> NDArray[Any]:
        """The whole image, scaled."""
        return _resized(pixels, layout, self._target(*extent(pixels.shape, layout)), self.interpolation)

    def _target(self, height: int, width: int) -> tuple[int, int]:
        if isinstance(self.size, tuple):
            return self.size
        shorter = min(height, width)
        return self.size * height // shorter, self.size * width // shorter


@dataclass(frozen=True, slots=True)
class RandomResizedCrop(RandomTransform[tuple[int, int, int, int]]):
    """Cut a window of random area and proportions at a random place, and scale it to ``size``.

    The window's area, as a share of the image's, is uniform over ``scale``; the logarithm of its width /
    height is uniform over the logarithms of ``ratio``; its place is uniform. Where ten such windows do not
    fit, it is the largest one in the middle whose proportions are within ``ratio``. (Szegedy et al., "Going
    deeper with convolutions", 2015, section 6, with torchvision's limit of ten.)

    Takes one image of uint8, uint16, int16, float32 or float64, (H, W), (H, W, C) or (C, H, W), and keeps
    dtype, class and channels. The result is new memory, or a view of the image where the window has the
    wanted size already.

    Args:
        size: the result: an integer for a square, or (height, width).
        scale: the least and the greatest share of the image's area, from 0 to 1.
        ratio: the least and the greatest width / height, positive.
        interpolation: as for `Resize`.
        layout: ``"HW"``, ``"HWC"`` or ``"CHW"``, where the shape does not tell (see `feedline.transforms`).

    Raises:
        ValueError: an argument is none of these; when called, the layout cannot be told.
        TypeError: when called: the image's dtype is none of these.
        ImportError: when called: OpenCV is not installed.

    Example:
        >>> import numpy as np
        >>> RandomResizedCrop(224)(np.zeros((480, 640, 3), np.uint8)).shape
        (224, 224, 3)
    """

    size: int | tuple[int, int]
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    interpolation: Interpolation = "bilinear"
    layout: Layout | None = None
    word_count: ClassVar[int] = _ATTEMPTS * _WORDS_PER_ATTEMPT

    def __post_init__(self) -> None:
        store(
            self,
            size=checked_pair(self.size, "size", minimum=1),
            scale=checked_range(
                self.scale,
                "scale",
                "numbers from 0 to 1, the greatest above 0",
                lambda least, greatest: least >= 0 and 0 < greatest <= 1,
            ),
            ratio=checked_range(
                self.ratio,
                "ratio",
                "positive finite numbers",
                lambda least, greatest: least > 0 and greatest < math.inf,
            ),
        )
        _check_interpolation(self.interpolation)
        checked_layout(self.layout)

    def draw(self, words: Sequence[int], height: int, width: int) -> tuple[int, int, int, int]:
        """The window: top, left, height and width."""
        slimmest, widest = math.log(self.ratio[0]), math.log(self.ratio[1])
        for start in range(0, self.word_count, _WORDS_PER_ATTEMPT):
            for_area, for_ratio, for_top, for_left = words[start : start + _WORDS_PER_ATTEMPT]
            least, greatest = self.scale
            area = height * width * (least + (greatest - least) * seeding.uniform(for_area))
            ratio = math.exp(slimmest + (widest - slimmest) * seeding.uniform(for_ratio))
            rows, columns = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
            if 0 < rows <= height and 0 < columns <= width:
                top = seeding.below(for_top, height - rows + 1)
                return top, seeding.below(for_left, width - columns + 1), rows, columns
        rows = max(1, round(min(height, width / self.ratio[0])))
        columns = max(1, round(min(width, height * self.ratio[1])))
        return (height - rows) // 2, (width - columns) // 2, rows, columns

    def apply(self, pixels: NDArray[Any], layout: Layout, drawn: tuple[int, int, int, int]) -> NDArray[Any]:
        """The window at ``drawn``, scaled."""
        assert isinstance(self.size, tuple)  # made so by __post_init__
        top, left, rows, columns = drawn
        part = window(pixels, layout, slice(top, top + rows), slice(left, left + columns))
        return _resized(part, layout, self.size, self.interpolation)


def _check_interpolation(interpolation: object) -> None:
    if interpolation not in tuple(_FLAGS):  # a list is no key, but a value to name all the same
        names = ", ".join(f'"{name}"' for name in _FLAGS)
        raise ValueError(f"interpolation must be one of {names}, got {interpolation!r}")


def _resized(pixels: NDArray[Any], layout: Layout, size: tuple[int, int], interpolation: Interpolation) -> NDArray[Any]:
    """The image scaled to (height, width), in its layout."""
    cv2 = require("cv2", extra="image", purpose="Resize and RandomResizedCrop")
    if pixels.dtype not in _DTYPES:
        raise TypeError(
            f"image must be uint8, uint16, int16, float32 or float64 to be resized, got {pixels.dtype}: "
            "convert it first, for example by astype"
        )
    if extent(pixels.shape, layout) == size:
        return pixels
    flag = getattr(cv2, _FLAGS[interpolation])
    if layout == "HW":
        scaled: NDArray[Any] = cv2.resize(np.ascontiguousarray(pixels), size[::-1], interpolation=flag)
        return scaled
    channels_last = pixels.transpose(1, 2, 0) if layout == "CHW" else pixels
    out = np.empty((*size, channels_last.shape[2]), pixels.dtype)
    for start in range(0, channels_last.shape[2], _CHANNELS_AT_ONCE):
        channels = slice(start, start + _CHANNELS_AT_ONCE)
        part = cv2.resize(np.ascontiguousarray(channels_last[..., channels]), size[::-1], interpolation=flag)
        out[..., channels] = part.reshape(*size, -1)  # cv2 drops the axis of a single channel
    return out.transpose(2, 0, 1) if layout == "CHW" else out
