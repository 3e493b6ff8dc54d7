"""Whose an array is: torch's, JAX's, another library's.

Guarantee: no framework is imported. Only those that are there already are looked at: no value is of one that
nobody imported.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    Stack = Callable[[list[Any]], Any]

__all__ = ["from_numpy", "is_foreign", "is_jax", "is_torch", "stacking_of"]


def is_torch(value: object) -> bool:
    """Whether ``value`` is a torch tensor."""
    return isinstance(value, getattr(sys.modules.get("torch"), "Tensor", ()))


def is_jax(value: object) -> bool:
    """Whether ``value`` is a JAX array."""
    return isinstance(value, getattr(sys.modules.get("jax"), "Array", ()))


def stacking_of(value: object) -> tuple[type, Stack] | None:
    """For a torch tensor or a JAX array, the class of its kind and its framework's ``stack``; else None."""
    if is_torch(value):
        torch = sys.modules["torch"]
        return torch.Tensor, torch.stack
    if is_jax(value):
        jax = sys.modules["jax"]
        return jax.Array, jax.numpy.stack
    return None


def from_numpy(array: np.ndarray[Any, Any], like: object) -> Any:
    """The array as a torch tensor (of its memory) or a JAX array, if ``like`` is one."""
    if is_torch(like):
        return sys.modules["torch"].from_numpy(array)
    return sys.modules["jax"].numpy.asarray(array) if is_jax(like) else array


def is_foreign(value: object) -> bool:
    """Whether ``value`` is another library's tensor: an array in ``.data``, and no shape that contradicts it.

    (A sparse matrix keeps its non-zeros in ``.data``: its shape tells it apart.)
    """
    data = getattr(value, "data", None)
    return isinstance(data, np.ndarray) and getattr(value, "shape", data.shape) == data.shape
