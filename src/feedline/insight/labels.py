"""Labels in the order in which a loader delivers them: whether each class comes in one block.

Guarantee: few labels are looked at, however long the dataset; samples are read only where the labels are kept nowhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from math import lgamma, log
from typing import TYPE_CHECKING, Any

import numpy as np

from feedline.frameworks import is_array
from feedline.protocols import length_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from feedline.order.sequence import Order

__all__ = ["come_in_blocks", "kept_labels", "label_of", "spread_indices"]

_WHOLE = 4096  # labels that are all looked at; of more, neighbours at evenly spread places
_BY_CHANCE = log(1e-3)  # how likely a random order may be to look like blocks, at most
_KEYS = ("label", "labels", "target", "targets", "class", "y")


def spread_indices(order: Order, length: int, pairs: int) -> NDArray[np.int64]:
    """Indices of an epoch at places spread over it, two neighbours at each; all of them where that is no more.

    Neighbours tell classes in blocks (equal, mostly) from labels that merely grow.
    """
    if length <= max(2 * pairs, 2):
        return order.take(0, length)
    starts = np.linspace(0, length - 2, pairs).astype(np.int64).tolist()
    return np.concatenate([order.take(start, start + 2) for start in starts])


def kept_labels(dataset: Any, order: Order, length: int) -> NDArray[Any] | None:
    """Labels in the order of the epoch, from where the dataset keeps them; None where it keeps none.

    They are looked for in attributes ``targets`` and ``labels``, as the last array of a `TensorDataset`, and in what a
    subset or another dataset around one of these reads.
    """
    indices = spread_indices(order, length, _WHOLE // 8 if length > _WHOLE else _WHOLE)
    with suppress(Exception):  # attributes of these names may be anything
        return _labels_at(dataset, indices)
    return None


def _labels_at(dataset: Any, indices: NDArray[np.int64]) -> NDArray[Any] | None:
    inner = getattr(dataset, "dataset", None)
    chosen = getattr(dataset, "indices", None)
    if inner is not None and chosen is not None:
        return _labels_at(inner, np.asarray(chosen)[indices])
    size = length_of(dataset)
    for name in ("targets", "labels"):
        column = getattr(dataset, name, None)
        if column is not None and length_of(column) == size:
            return _classes(_taken(column, indices))
    tensors = getattr(dataset, "tensors", None)
    if isinstance(tensors, tuple) and len(tensors) > 1:
        return _classes(_taken(tensors[-1], indices))
    if inner is not None and length_of(inner) == size:  # mapped, cached: the order of the classes is the same
        return _labels_at(inner, indices)
    return None


def _taken(column: Any, indices: NDArray[np.int64]) -> NDArray[Any]:
    return np.asarray(column)[indices] if is_array(column) else np.asarray([column[place] for place in indices])


def _classes(values: NDArray[Any]) -> NDArray[Any] | None:
    """The values, if they are such as name classes: one integer, boolean or string each."""
    return values if values.ndim == 1 and values.dtype.kind in "biuUS" else None


def label_of(sample: Any) -> Any:
    """The label in a sample: the second element of a tuple or list, or that of a key such as ``"label"``; else None.

    Example:
        >>> label_of((np.zeros(3), 7)), label_of({"image": 0, "label": 7}), label_of(np.zeros(3))
        (7, 7, None)
    """
    if isinstance(sample, Mapping):
        label = next((sample[key] for key in _KEYS if key in sample), None)
    else:
        label = sample[1] if isinstance(sample, tuple | list) and len(sample) > 1 else None
    if label is None or isinstance(label, str | bytes | int):
        return label
    with suppress(Exception):  # arrays of no dimension, of whatever library
        if _classes(np.asarray(label).reshape(1)) is not None:
            return label.item()
    return None


def come_in_blocks(labels: Any) -> bool:
    """Whether each class comes in one block, and a random order of these labels would hardly look so.

    Of the n! orders of n labels of k classes, with c of each, k! times the product of all c! have each class in one
    block.

    Example:
        >>> come_in_blocks([0] * 10 + [1] * 10), come_in_blocks([0, 1] * 10), come_in_blocks([0, 1])
        (True, False, False)
    """
    _, codes, counts = np.unique(np.asarray(labels), return_inverse=True, return_counts=True)
    blocks = 1 + int(np.count_nonzero(codes[1:] != codes[:-1]))
    if blocks != len(counts) or len(counts) < 2:
        return False
    chance = lgamma(len(counts) + 1) + sum(lgamma(count + 1) for count in counts.tolist()) - lgamma(len(codes) + 1)
    return chance < _BY_CHANCE
