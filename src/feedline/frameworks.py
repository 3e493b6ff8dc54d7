"""Whose an array is: NumPy's, torch's, JAX's, another library's.

Guarantee: no framework is imported. Only those that are there already are looked at: no value is of one that
nobody imported.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Stack = Callable[[list[Any]], Any]

__all__ = ["from_numpy", "is_array", "is_foreign", "is_jax", "is_masked", "is_numeric", "is_torch", "stacking_of"]


def is_torch(value: object) -> bool:
    """Whether ``value`` is a torch tensor.

    Example:
        >>> is_torch(np.zeros(2))
        False
    """
    return isinstance(value, getattr(sys.modules.get("torch"), "Tensor", ()))


def is_jax(value: object) -> bool:
    """Whether ``value`` is a JAX array, or stands for one in a function that JAX traces.

    Example:
        >>> is_jax(np.zeros(2))
        False
    """
    return isinstance(value, getattr(sys.modules.get("jax"), "Array", ()))


def is_array(value: object) -> bool:
    """Whether ``value`` is an array by itself: NumPy's, torch's, JAX's, by the array API standard's exchange protocol.

    Example:
        >>> is_array(np.zeros(2)), is_array([0, 0])
        (True, False)
    """
    return hasattr(value, "__dlpack__")


def is_foreign(value: object) -> bool:
    """Whether ``value`` is another library's tensor: no array by itself, but with a NumPy array in ``.data``.

    A sparse matrix is none: it keeps what is not zero in ``.data``. A shape that contradicts the array's tells it
    apart, or that it counts its non-zeros.

    Example:
        >>> from types import SimpleNamespace
        >>> is_foreign(SimpleNamespace(data=np.zeros(2))), is_foreign(SimpleNamespace(data=np.zeros(2), shape=(9, 9)))
        (True, False)
    """
    if isinstance(value, np.ndarray) or is_torch(value):  # theirs is a view of the same kind, which takes time to make
        return False
    data = getattr(value, "data", None)
    return (
        isinstance(data, np.ndarray) and getattr(value, "shape", data.shape) == data.shape and not hasattr(value, "nnz")
    )


def is_masked(value: object) -> TypeGuard[NDArray[Any]]:
    """Whether this is a masked array; without importing ``numpy.ma``, which takes 10 ms, when nobody else did.

    Example:
        >>> is_masked(np.ma.array([1, 2])), is_masked(np.array([1, 2]))
        (True, False)
    """
    masked = sys.modules.get("numpy.ma")
    return masked is not None and isinstance(value, masked.MaskedArray)


def is_numeric(dtype: np.dtype[Any]) -> bool:
    """Whether numbers are of the dtype: NumPy's, truth values too, or bfloat16 and its like, which packages add.

    Example:
        >>> is_numeric(np.dtype(bool)), is_numeric(np.dtype("U1")), is_numeric(np.dtype("m8[s]"))
        (True, False, False)
    """
    return dtype.kind in "biufc" or (dtype.kind == "V" and not issubclass(dtype.type, np.void))


def stacking_of(value: object) -> tuple[type, Stack] | None:
    """For a torch tensor or a JAX array, the class of its kind and its framework's ``stack``; else None.

    Example:
        >>> stacking_of(np.zeros(2)) is None
        True
    """
    if is_torch(value):
        torch = sys.modules["torch"]
        return torch.Tensor, torch.stack
    if is_jax(value):
        jax = sys.modules["jax"]
        return jax.Array, jax.numpy.stack
    return None


def from_numpy(array: NDArray[Any], like: object) -> Any:
    """The array as a torch tensor (of its memory) or a JAX array, if ``like`` is one.

    Example:
        >>> from_numpy(np.arange(2), like=[5])
        array([0, 1])
    """
    if is_torch(like):
        return sys.modules["torch"].from_numpy(array)
    return sys.modules["jax"].numpy.asarray(array) if is_jax(like) else array
