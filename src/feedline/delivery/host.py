"""From a batch in ordinary memory to page-locked memory or a device.

Guarantee: without ``pin_memory`` and ``device`` a batch is handed on untouched, and no framework is imported.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from feedline.extras import require
from feedline.tree import map_leaves

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["deliverer"]


def deliverer(*, pin_memory: bool, pin_memory_device: str = "", device: Any = None) -> Callable[[Any], Any] | None:
    """What is done to each batch before it is handed out; None: nothing.

    Args:
        pin_memory: copy arrays and tensors into page-locked torch tensors, if there is an accelerator.
        pin_memory_device: the kind of accelerator, as torch names it; empty: the one that is there.
        device: a torch device or its name, for torch tensors on it; or a JAX device, for JAX arrays on it.

    Raises:
        ImportError: torch is needed and not installed.
        TypeError: ``device`` is neither.
    """
    if device is not None:
        return _to_device(device)
    if not pin_memory:
        return None
    torch = require("torch", extra="torch", purpose="pin_memory=True")
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if accelerator is None or pin_memory_device not in ("", accelerator.type):
        warnings.warn(
            f"pin_memory=True has no effect: no accelerator of kind {pin_memory_device or 'any'!r} is found",
            stacklevel=4,
        )
        return None

    def pin(leaf: Any) -> Any:
        tensor = torch.from_numpy(_own(leaf)) if _is_numeric(leaf) else leaf
        return tensor.pin_memory() if hasattr(tensor, "pin_memory") else tensor

    return lambda batch: map_leaves(pin, batch)


def _to_device(device: Any) -> Callable[[Any], Any]:
    """Copies to a device; returns when the copy may be used, and the source be overwritten."""
    if type(device).__module__.split(".")[0] in ("jax", "jaxlib"):
        jax = require("jax", extra="jax", purpose="a JAX device")

        def place(leaf: Any) -> Any:
            # device_put may alias aligned NumPy memory on the CPU: the copy keeps the array its own
            return jax.device_put(_own(leaf), device) if _is_numeric(leaf) else leaf

        return lambda batch: map_leaves(place, batch)
    torch = require("torch", extra="torch", purpose=f"device={device!r}")
    try:
        target = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise TypeError(f"device must be a torch device, its name, or a JAX device, got {device!r}: {error}") from error

    def move(leaf: Any) -> Any:
        tensor = torch.from_numpy(_own(leaf)) if _is_numeric(leaf) else leaf
        return tensor.to(target) if isinstance(tensor, torch.Tensor) else tensor

    return lambda batch: map_leaves(move, batch)


def _own(array: Any) -> Any:
    """A copy in native order: a single sample may be the dataset's own memory, of any layout."""
    return np.array(array, dtype=array.dtype.newbyteorder("="), order="C")


def _is_numeric(leaf: Any) -> bool:
    return isinstance(leaf, np.ndarray) and leaf.dtype.kind in "biufc"
