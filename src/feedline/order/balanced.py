"""Weights by which each class of a labelled set is drawn equally often.

Guarantee: each sample weighs 1 / (samples of its class), so that the weights of every class sum to 1, within rounding.
Which class a label is of is decided by equality alone: the weights depend neither on the order in which classes come
nor on how labels sort.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from feedline.checks import column

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["class_weights"]

_NAN = float("nan")


def class_weights(labels: Any) -> NDArray[np.float64]:
    """1 / (samples of the class) for each sample, shape (N,).

    Args:
        labels: a one-dimensional array, or a sequence of hashable labels (numbers, strings, tuples, None, mixed). Equal
            labels are one class, as are all NaNs; scalar tensors stand for their numbers.

    Raises:
        ValueError: the labels are no sequence, not one-dimensional, not hashable, or there is none.

    Example:
        >>> class_weights(["dog", "cat", "dog", "dog", "dog"])
        array([0.25, 1.  , 0.25, 0.25, 0.25])
    """
    is_array = hasattr(labels, "__array__")  # tensors, columns and series too
    is_sequence = hasattr(labels, "__len__") and hasattr(labels, "__getitem__") and not isinstance(labels, Mapping)
    if not is_array and not is_sequence:
        raise ValueError(
            "labels must be a one-dimensional sequence or array, one label a sample, "
            f"got {type(labels).__name__}: give a list of them in the order of the samples"
        )
    numbers = _array_numbers(column("labels", labels, "one a sample")) if is_array else _numbers(list(labels))
    if not numbers.size:
        raise ValueError("labels must hold at least one label, got none")
    weights: NDArray[np.float64] = (1.0 / np.bincount(numbers))[numbers]
    return weights


def _array_numbers(labels: NDArray[Any]) -> NDArray[np.int64]:
    """The number of each label's class, from 0 on without gaps."""
    if labels.ndim != 1:
        raise ValueError(f"labels must be one-dimensional, one a sample, got shape {labels.shape}")
    if labels.dtype.hasobject:  # these need not sort
        return _numbers(labels.tolist())
    return np.unique(labels, return_inverse=True)[1].astype(np.int64, copy=False)


def _numbers(labels: list[Any]) -> NDArray[np.int64]:
    """As `_array_numbers`, of labels that are only hashable; classes are numbered as they come."""
    kinds = set(map(type, labels))
    if any(hasattr(kind, "ndim") and not issubclass(kind, np.generic) for kind in kinds):
        labels = [_scalar(label, index) for index, label in enumerate(labels)]
        kinds = set(map(type, labels))
    if any(issubclass(kind, float | np.floating) for kind in kinds):
        labels = [_NAN if _is_nan(label) else label for label in labels]
    found: dict[Any, int] = {}
    numbers = []
    for index, label in enumerate(labels):
        try:
            numbers.append(found.setdefault(label, len(found)))
        except TypeError as error:
            raise ValueError(
                "labels must be one-dimensional, one hashable label a sample, "
                f"got a {type(label).__name__} at index {index}: a tuple may stand for several labels of a sample"
            ) from error
    return np.array(numbers, dtype=np.int64)


def _scalar(label: Any, index: int) -> Any:
    """The number in a tensor without dimensions: tensors hash by identity, each would be a class of its own."""
    if not hasattr(label, "ndim") or isinstance(label, np.generic):
        return label
    if label.ndim:
        raise ValueError(
            f"labels must be one-dimensional, one a sample, got a label of shape {tuple(label.shape)} at index {index}"
        )
    return label.item()


def _is_nan(label: Any) -> bool:
    """Whether it is one of the NaNs, no two of which are equal."""
    return isinstance(label, float | np.floating) and bool(label != label)  # noqa: PLR0124 -- what defines a NaN
