"""Which axis of an image is which: the rule that guesses a layout, and windows of rows and columns.

Guarantee: a layout is guessed only where one reading alone is possible; otherwise the error asks for
``layout=``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Layout", "checked_layout", "extent", "layout_of", "window"]

Layout = Literal["HW", "HWC", "CHW"]

_LAYOUTS = get_args(Layout)
_CHANNEL_COUNTS = (1, 3, 4)  # grey, RGB, RGBA


def checked_layout(layout: object) -> None:
    """Refuse what is neither a layout nor None."""
    if layout is not None and layout not in _LAYOUTS:
        raise ValueError(f'layout must be "HW", "HWC", "CHW" or None, got {layout!r}')


def layout_of(shape: tuple[int, ...], declared: Layout | None) -> Layout:
    """The layout of an image of this shape: the declared one, or the only one possible.

    Two axes are HW. Three axes are HWC if the last has length 1, 3 or 4, and CHW if the first has; if both
    have, as in (3, 32, 3), or neither, as in (32, 32, 2), the shape does not tell.

    Raises:
        ValueError: the image has one axis or more than three, is empty, does not have the axes declared, or
            its layout cannot be told.
    """
    if len(shape) not in (2, 3):
        raise ValueError(f"image must have the axes (H, W), (H, W, C) or (C, H, W), got shape {shape}")
    if 0 in shape:
        raise ValueError(f"image must not be empty, got shape {shape}")
    if declared is not None:
        if len(declared) != len(shape):
            raise ValueError(f'layout "{declared}" needs an image of {len(declared)} axes, got shape {shape}')
        return declared
    if len(shape) == 2:
        return "HW"
    first, last = shape[0] in _CHANNEL_COUNTS, shape[-1] in _CHANNEL_COUNTS
    if first == last:
        raise ValueError(f'the layout of an image of shape {shape} cannot be told: give layout="HWC" or layout="CHW"')
    return "CHW" if first else "HWC"


def extent(shape: tuple[int, ...], layout: Layout) -> tuple[int, int]:
    """Height and width."""
    return (shape[1], shape[2]) if layout == "CHW" else (shape[0], shape[1])


def window(pixels: NDArray[Any], layout: Layout, rows: slice, columns: slice) -> NDArray[Any]:
    """A view of the rows and columns, with all channels."""
    return pixels[:, rows, columns] if layout == "CHW" else pixels[rows, columns]
