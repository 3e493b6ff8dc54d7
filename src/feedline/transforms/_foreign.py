"""The array inside an image of any library, and the way back to that library's class.

Guarantee: nothing is imported. A framework is recognised by the module of the object's class, and taken from
``sys.modules``, where it must be since the object exists.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

__all__ = ["on_array", "unwrap"]

_FRAMEWORKS = {"torch": "torch", "jax": "jax", "jaxlib": "jax"}


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
    framework = _framework_of(type(image))
    if framework == "torch" and hasattr(image, "numpy"):
        return image.detach().cpu().numpy(), partial(_torch_like, image)
    if framework == "jax" and hasattr(image, "__array__"):
        return np.asarray(image), sys.modules["jax"].numpy.asarray
    data = getattr(image, "data", None)
    if isinstance(data, np.ndarray):
        return data, type(image)
    raise TypeError(
        "image must be a NumPy array, a torch tensor, a JAX array or an object with a NumPy array in .data, "
        f"got {type(image).__name__}; numpy.asarray(image) may make an array of it"
    )


def _same(pixels: NDArray[Any]) -> NDArray[Any]:
    return pixels


def _framework_of(cls: type) -> str | None:
    """The framework that a class, or one that it inherits from, comes from."""
    roots = (base.__module__.partition(".")[0] for base in cls.__mro__)
    return next((_FRAMEWORKS[root] for root in roots if root in _FRAMEWORKS), None)


def _torch_like(like: Any, pixels: NDArray[Any]) -> Any:
    """A tensor of the class and on the device of ``like``.

    torch has no negative strides (a flipped view has) and warns about read-only memory: both are copied.
    """
    torch = sys.modules["torch"]
    if min(pixels.strides, default=0) < 0 or not pixels.flags.writeable:
        pixels = pixels.copy()
    tensor = torch.from_numpy(pixels).to(like.device)
    return tensor if type(like) is torch.Tensor else tensor.as_subclass(type(like))
