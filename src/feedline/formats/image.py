"""Image files as arrays: whatever Pillow reads, as (H, W, 3) uint8 RGB.

Guarantee: a file that opens gives a whole image or a `FeedlineError` that names it; a truncated file is never
padded, and no image of more than ``max_pixels`` is decoded.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from feedline.errors import CorruptSample, FeedlineError
from feedline.extras import require

if TYPE_CHECKING:
    import os

    from numpy.typing import NDArray

__all__ = ["read_image"]

_MAX_PIXELS = 89_478_485  # Pillow's own limit, above which it warns: 256 MiB of RGB


def read_image(path: str | os.PathLike[str], *, max_pixels: int = _MAX_PIXELS) -> NDArray[np.uint8]:
    """The image in a file.

    Greyscale becomes three equal channels, a palette its colours, an alpha channel is dropped; of 16-bit
    greyscale the high byte is kept. Of an animation it is the first frame. An EXIF rotation is not applied.

    Args:
        path: the file, of any format that Pillow reads; the name does not matter.
        max_pixels: refuse larger images before decoding them. Pillow's own limit,
            ``PIL.Image.MAX_IMAGE_PIXELS``, holds besides: it warns above it, and refuses above its double.

    Returns:
        An array of shape (H, W, 3), uint8, RGB, C-contiguous, writable and the caller's own.

    Raises:
        CorruptSample: the file is no image, is damaged or truncated, or has more than ``max_pixels``.
        FeedlineError: its pixels are 32-bit integers or floats, which have no one meaning in 8 bits.
        ImportError: Pillow is missing.
        OSError: the file cannot be read.
    """
    pillow = require("PIL.Image", extra="image", purpose="read_image")
    with Path(path).open("rb") as file:
        try:
            with pillow.open(file) as image:
                _check_size(image.size, max_pixels, path)
                return _rgb(image, path)
        except (FeedlineError, MemoryError):
            raise
        except Exception as error:
            # Pillow's decoders raise whatever their parsing trips over: SyntaxError, struct.error, IndexError
            # ... An OSError with a number comes from the file system, not from the image.
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise CorruptSample(f"expected an image that Pillow can decode: {error}", path=path) from error


def _check_size(size: tuple[int, int], max_pixels: int, path: str | os.PathLike[str]) -> None:
    width, height = size
    if width * height > max_pixels:
        raise CorruptSample(
            f"expected at most max_pixels={max_pixels} pixels, found {width} x {height}; "
            "raise max_pixels where the file is trusted",
            path=path,
        )


def _rgb(image: Any, path: str | os.PathLike[str]) -> NDArray[np.uint8]:
    if image.mode.startswith("I;16"):
        high_byte = (np.array(image) >> 8).astype(np.uint8)
        return np.repeat(high_byte[:, :, np.newaxis], 3, axis=2)
    if image.mode in {"I", "F"}:
        raise FeedlineError(
            f"{path}: pixels of mode {image.mode} (32 bits) have no one meaning in 8 bits; "
            "convert the file, or read it with your own function"
        )
    if image.mode == "P":  # by way of RGBA: Pillow warns about a palette with transparency otherwise
        image = image.convert("RGBA")
    return np.array(image.convert("RGB"))
