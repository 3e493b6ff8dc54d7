"""The array inside an image of any library, and the way back to that library's class.

Guarantee: no framework is imported; the array is the image's own memory, where that is on the host.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from feedline.frameworks import from_numpy, is_foreign, is_jax, is_torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

__all__ = ["on_array", "unwrap"]


def on_array(image: Any, change: Callable[[NDArray[Any]], NDArray[Any]]) -> Any:
    """``change`` applied to the array in ``image``, as an object of the image's class.

    The image itself comes back where ``change`` returns the array that it was given.
    """
    pixels, wrap = unwrap(image)
    changed = change(pixels)
    return image if changed is pixels else wrap(changed)


def unwrap(image: Any) -> tuple[NDArray[Any], Callable[[NDArray[Any]], Any]]:
    """The array in ``image`` (its own memory, where that is on the host), and what makes its class of one.

    Raises:
        TypeError: there is no array in it.
    """
    if isinstance(image, np.ndarray):
        return image, _same
    if is_torch(image):
        return image.detach().cpu().numpy(), partial(_torch_like, image)
    if is_jax(image):
        return np.asarray(image), partial(from_numpy, like=image)
    if is_foreign(image):
        return image.data, type(image)
    raise TypeError(
        "image must be a NumPy array, a torch tensor, a JAX array or an object with a NumPy array in .data, "
        f"got {type(image).__name__}; numpy.asarray(image) may make an array of it"
    )


def _same(pixels: NDArray[Any]) -> NDArray[Any]:
    return pixels


def _torch_like(like: Any, pixels: NDArray[Any]) -> Any:
    """A tensor of the class and on the device of ``like``.

    torch has no negative strides (a flipped view has) and warns about read-only memory: both are copied.
    """
    torch = sys.modules["torch"]
    if min(pixels.strides, default=0) < 0 or not pixels.flags.writeable:
        pixels = pixels.copy()
    tensor = torch.from_numpy(pixels).to(like.device)
    return tensor if type(like) is torch.Tensor else tensor.as_subclass(type(like))
