"""A list of samples as one batch, and one sample as it is handed out.

Guarantee: what arrays and structure the samples have, the batch has, with the samples along a new first axis.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sized
from typing import Any

import numpy as np

from feedline.batching.writer import BatchWriter
from feedline.tree import map_leaves

__all__ = ["EmptyBatchError", "checked_batch", "default_collate", "default_convert"]


class EmptyBatchError(ValueError):
    """There is no sample to collate. A loader whose user's ``collate_fn`` lets it pass goes on with the next batch."""


def default_collate(batch: Iterable[Any]) -> Any:
    """The batch of a sequence of samples that are alike, sample ``i`` at index ``i`` of every array.

    ====================================================  ==================================================
    in the samples                                        in the batch
    ====================================================  ==================================================
    array of shape S (also memory maps, masked arrays)    array of shape ``(B, *S)``; masks kept
    NumPy scalar; bool, int, float, complex               array (B,); bool, int64, float64 or complex128
    torch tensor, JAX array                               the same, stacked (autograd is kept)
    another library's tensor (an array in ``.data``)      its class, of the stacked array
    str, bytes                                            list
    mapping, named tuple, tuple, dataclass, list          the same type, of batches
    a type given to `register_collate`                    what its function makes of the list of values
    ====================================================  ==================================================

    dtypes that differ between samples are promoted as ``np.stack`` does; Python integers beyond int64 give
    uint64 if all fit. The arrays are new memory in native byte order, and nothing in the batch shares memory
    with the samples (registered types excepted).

    Args:
        batch: the samples; an iterable without length is read into a list first.

    Returns:
        The batch; it belongs to the caller.

    Raises:
        ValueError: there is no sample. CollateError: samples that do not stack; the message names the place
            in the sample and the indices in the batch, ``position`` is the latter of them.
        TypeError: a value of another type, None included, or an array of objects; or ``batch`` is no
            sequence.

    Example:
        >>> default_collate([{"x": np.zeros(2), "name": "a"}, {"x": np.ones(2), "name": "b"}])
        {'x': array([[0., 0.],
               [1., 1.]]), 'name': ['a', 'b']}
    """
    samples = checked_batch(batch)
    writer = BatchWriter(len(samples))
    for sample in samples:
        writer.add(sample)
    return writer.finish()


def checked_batch(batch: Iterable[Any]) -> Any:
    """The samples as a sized iterable of at least one."""
    if isinstance(batch, str | bytes | Mapping) or not isinstance(batch, Iterable):
        raise TypeError(f"batch must be a sequence of samples, got {type(batch).__name__}; put one in a list")
    samples = batch if isinstance(batch, Sized) else list(batch)
    if len(samples) == 0:
        raise EmptyBatchError("cannot collate an empty batch")
    return samples


def default_convert(sample: Any) -> Any:
    """One sample that is not batched: NumPy scalars become arrays of no dimensions, all else stays as it is.

    Containers are rebuilt with their type; arrays, tensors, numbers, strings and unknown objects are the
    sample's own, not copies.

    Example:
        >>> default_convert({"x": np.float32(2), "label": 3})
        {'x': array(2., dtype=float32), 'label': 3}
    """
    return map_leaves(_converted, sample)


def _converted(leaf: Any) -> Any:
    return np.asarray(leaf) if isinstance(leaf, np.generic) else leaf
