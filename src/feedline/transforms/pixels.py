"""Pixel values and their axes: integers to floats, normalisation, channels first.

Guarantee: nothing is drawn, and the image that is handed in is left as it is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from feedline.transforms._arguments import is_number, positive_finite, store
from feedline.transforms._base import FixedTransform
from feedline.transforms._foreign import on_array
from feedline.transforms._layout import checked_layout

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from feedline.transforms._layout import Layout

__all__ = ["Normalize", "ToChannelsFirst", "ToFloat"]

_GREATEST = {np.dtype(bool): 1, np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535}


@dataclass(frozen=True, slots=True)
class ToFloat:
    """Divide by ``scale`` and give float32 (a float64 image stays float64).

    Takes an array of any shape, also within a foreign tensor, whose class comes back. The result is new
    memory, or the image itself where nothing changes.

    Args:
        scale: what becomes 1.0. None takes the greatest value of the image's dtype (bool: 1, uint8: 255,
            uint16: 65535) and leaves the values of a floating image as they are.

    Raises:
        ValueError: ``scale`` is not positive and finite; when called, ``scale`` is None and the image is of
            another integer type, whose greatest value says nothing about its scale.
        TypeError: when called: the image is neither boolean, integer nor floating.

    Example:
        >>> import numpy as np
        >>> ToFloat()(np.array([[0, 51, 255]], np.uint8))
        array([[0. , 0.2, 1. ]], dtype=float32)
    """

    scale: float | None = None

    thread_safe: ClassVar[bool] = True
    uses_global_rng: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.scale is None:
            return
        if not is_number(self.scale) or not positive_finite(self.scale):
            raise ValueError(f"scale must be a positive finite number or None, got {self.scale!r}")
        store(self, scale=float(self.scale))

    def __call__(self, image: Any) -> Any:
        """Convert one image; its class comes back."""
        return on_array(image, self._apply)

    def _apply(self, pixels: NDArray[Any]) -> NDArray[Any]:
        floating = pixels.dtype.kind == "f"
        if not floating and pixels.dtype.kind not in "biu":
            raise TypeError(f"ToFloat takes a boolean, integer or floating image, got {pixels.dtype}")
        scale = self.scale
        if scale is None:
            scale = 1.0 if floating else _GREATEST.get(pixels.dtype)
        if scale is None:
            raise ValueError(
                f"ToFloat cannot tell the scale of an image of {pixels.dtype}: give scale=, as in scale=255"
            )
        target = _float_type(pixels.dtype)
        if scale == 1.0:
            return pixels.astype(target, copy=False)
        out = pixels.astype(target)
        np.divide(out, target(scale), out=out)
        return out


@dataclass(frozen=True, slots=True)
class Normalize(FixedTransform):
    """Subtract ``mean`` and divide by ``std``, channel by channel.

    Takes one floating image, (H, W), (H, W, C) or (C, H, W). The result is new memory, float32 (float64 for a
    float64 image), of the same shape and class.

    Args:
        mean: a number for each channel, or one for all.
        std: a positive number for each channel, or one for all.
        layout: ``"HW"``, ``"HWC"`` or ``"CHW"``, where the shape does not tell (see `feedline.transforms`).

    Raises:
        ValueError: ``mean`` is not finite, ``std`` not positive and finite, or their lengths differ; when
            called, the image has another number of channels, or its layout cannot be told.
        TypeError: when called: the image is not floating.

    Example:
        >>> import numpy as np
        >>> Normalize(mean=0.5, std=0.25)(np.array([[0.0, 0.5, 1.0]], np.float32))
        array([[-2.,  0.,  2.]], dtype=float32)
    """

    mean: float | Sequence[float]
    std: float | Sequence[float]
    layout: Layout | None = None

    def __post_init__(self) -> None:
        mean, std = _numbers(self.mean, "mean"), _numbers(self.std, "std")
        if not all(map(math.isfinite, mean)):
            raise ValueError(f"mean must be finite, got {self.mean!r}")
        if not all(map(positive_finite, std)):
            raise ValueError(
                f"std must be positive and finite, got {self.std!r}: a channel without any spread needs std 1"
            )
        if len(mean) != len(std) and 1 not in (len(mean), len(std)):
            raise ValueError(
                "mean and std must each have a number for every channel, or one for all, "
                f"got {len(mean)} and {len(std)}"
            )
        store(self, mean=mean, std=std)
        checked_layout(self.layout)

    def apply(self, pixels: NDArray[Any], layout: Layout) -> NDArray[Any]:
        """The normalised image."""
        if pixels.dtype.kind != "f":
            raise TypeError(f"Normalize takes a floating image, got {pixels.dtype}: put ToFloat() before it")
        assert isinstance(self.mean, tuple)  # both made so by __post_init__
        assert isinstance(self.std, tuple)
        channels = {"HW": 1, "HWC": pixels.shape[-1], "CHW": pixels.shape[0]}[layout]
        wanted = max(len(self.mean), len(self.std))
        if wanted not in (1, channels):
            raise ValueError(
                f"Normalize has statistics for {wanted} channels, "
                f"but the {layout} image of shape {pixels.shape} has {channels}"
            )
        target = _float_type(pixels.dtype)
        per_channel = (-1, 1, 1) if layout == "CHW" else (-1,)
        out = pixels.astype(target)
        np.subtract(out, np.array(self.mean, target).reshape(per_channel), out=out)
        np.divide(out, np.array(self.std, target).reshape(per_channel), out=out)
        return out


@dataclass(frozen=True, slots=True)
class ToChannelsFirst(FixedTransform):
    """(H, W, C) to (C, H, W), and (H, W) to (1, H, W); a (C, H, W) image stays as it is.

    Takes one image of any dtype and keeps dtype and class. The result is the image itself or a view of it.

    Args:
        layout: ``"HW"``, ``"HWC"`` or ``"CHW"``, where the shape does not tell (see `feedline.transforms`).

    Raises:
        ValueError: ``layout`` is none of these; when called, the layout cannot be told.

    Example:
        >>> import numpy as np
        >>> ToChannelsFirst()(np.zeros((28, 32, 3))).shape, ToChannelsFirst()(np.zeros((28, 32))).shape
        ((3, 28, 32), (1, 28, 32))
    """

    layout: Layout | None = None

    def __post_init__(self) -> None:
        checked_layout(self.layout)

    def apply(self, pixels: NDArray[Any], layout: Layout) -> NDArray[Any]:
        """The view with channels first."""
        if layout == "CHW":
            return pixels
        return pixels[None] if layout == "HW" else pixels.transpose(2, 0, 1)


def _float_type(dtype: np.dtype[Any]) -> type[np.float32 | np.float64]:
    """The type in which an image of ``dtype`` is computed and returned."""
    return np.float64 if dtype.kind == "f" and dtype.itemsize >= 8 else np.float32


def _numbers(value: Any, name: str) -> tuple[float, ...]:
    """Floats from one number or a one-dimensional sequence of them."""
    values = tuple(value) if isinstance(value, Iterable) and not isinstance(value, str) else (value,)
    if not values or not all(is_number(number) for number in values):
        raise ValueError(f"{name} must be a number or a sequence of one number for each channel, got {value!r}")
    return tuple(float(number) for number in values)
