"""From a batch in ordinary memory to page-locked memory or a device.

Guarantee: without ``pin_memory`` and ``device`` a batch is handed on untouched, and no framework is imported. What
arrives on a device is in memory of its own, and holds the numbers that were sent: rounded at most, never wrapped.
"""

from __future__ import annotations

import importlib
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from feedline.extras import require
from feedline.frameworks import is_masked, is_numeric, is_torch
from feedline.tree import map_leaves

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

__all__ = ["deliverer"]


def deliverer(*, pin_memory: bool, pin_memory_device: str = "", device: Any = None) -> Callable[[Any], Any] | None:
    """What is done to each batch before it is handed out; None: nothing.

    Args:
        pin_memory: copy arrays and tensors into page-locked torch tensors, if there is an accelerator.
        pin_memory_device: the kind of accelerator, as torch names it; empty: the one that is there.
        device: a torch device or its name, for torch tensors on it; or a JAX device, for JAX arrays on it, in the
            dtypes that JAX has (of 32 bits, unless ``jax_enable_x64`` is on). Numbers of NumPy and of that framework
            are moved there, and those of torch to a JAX device.

    Raises:
        ImportError: torch is needed and not installed.
        TypeError: ``device`` is neither.
    """
    if device is not None:
        return _to_device(device)
    if not pin_memory:
        return None
    torch = _torch_if_installed()
    found = torch is not None and torch.accelerator.is_available()
    if not found or pin_memory_device not in ("", torch.accelerator.current_accelerator().type):
        what = "no accelerator is found" if torch is not None else "torch is not installed"
        wanted = f" of the kind {pin_memory_device!r}" if found else ""
        warnings.warn(f"pin_memory=True has no effect: {what}{wanted}", stacklevel=4)
        return None

    def pin(leaf: Any) -> Any:
        tensor = torch.from_numpy(_own(leaf)) if _is_numeric(leaf) else leaf
        return tensor.pin_memory() if hasattr(tensor, "pin_memory") else tensor

    return lambda batch: map_leaves(pin, batch)


def _to_device(device: Any) -> Callable[[Any], Any]:
    """Copies to a device; returns when the copy may be used, and the source be overwritten."""
    if type(device).__module__.split(".")[0] in ("jax", "jaxlib"):
        return _to_jax(device)
    torch = require("torch", extra="torch", purpose=f"device={device!r}")
    try:
        target = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise TypeError(f"device must be a torch device, its name, or a JAX device, got {device!r}: {error}") from error

    def move(leaf: Any) -> Any:
        tensor = torch.from_numpy(_own(leaf)) if _is_numeric(leaf) else leaf
        return tensor.to(target) if isinstance(tensor, torch.Tensor) else tensor

    return lambda batch: map_leaves(move, batch)


def _to_jax(device: Any) -> Callable[[Any], Any]:
    """Copies to a JAX device, of all that is numbers."""
    jax = require("jax", extra="jax", purpose="a JAX device")

    def place(leaf: Any) -> Any:
        if isinstance(leaf, jax.Array):
            return jax.device_put(leaf, device)
        array = _torch_numbers(leaf, jax.numpy.bfloat16) if is_torch(leaf) else leaf
        if not (isinstance(array, np.ndarray) and is_numeric(array.dtype)):
            return leaf
        dtype = jax.dtypes.canonicalize_dtype(array.dtype.newbyteorder("="))
        # device_put may alias aligned NumPy memory on the CPU: the copy keeps the array its own
        return jax.device_put(_own(array, dtype), device)

    return lambda batch: map_leaves(place, batch)


def _torch_numbers(tensor: Any, bfloat16: Any) -> NDArray[Any]:
    """A torch tensor's numbers; torch hands those of bfloat16, a dtype that NumPy has not, to nobody."""
    if str(tensor.dtype) == "torch.bfloat16":
        exact: NDArray[Any] = tensor.float().numpy(force=True)
        return exact.astype(bfloat16)
    array: NDArray[Any] = tensor.numpy(force=True)
    return array


def _own(array: NDArray[Any], dtype: np.dtype[Any] | None = None) -> NDArray[Any]:
    """A copy in native order: a single sample may be the dataset's own memory, of any layout.

    Raises:
        TypeError: it has a mask, which no device keeps.
        ValueError: ``dtype`` is narrower and does not hold a number: an integer, or a float that becomes infinite.
    """
    if is_masked(array):
        raise TypeError("a batch for a device must be without masks, got a masked array; fill it in collate_fn=")
    native = array.dtype.newbyteorder("=")
    if dtype is None or dtype == native:
        return np.array(array, dtype=native, order="C")
    with np.errstate(over="ignore"):  # what does not fit is an error below
        narrow = np.array(array, dtype=dtype, order="C")
    lost = narrow != array if dtype.kind in "iu" else np.isinf(narrow) & ~np.isinf(array)
    if lost.any():
        raise ValueError(
            f"JAX makes {dtype} of {array.dtype}, which does not hold {array[lost][0]}; "
            "turn on jax_enable_x64, or make the numbers smaller"
        )
    return narrow


def _is_numeric(leaf: Any) -> bool:
    """Whether torch makes a tensor of it (of bfloat16, which packages add to NumPy, it does not)."""
    return isinstance(leaf, np.ndarray) and leaf.dtype.kind in "biufc"


def _torch_if_installed() -> Any:
    try:
        return importlib.import_module("torch")
    except ImportError:
        return None
