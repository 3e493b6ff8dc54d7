"""Samples of different lengths as one batch: `pad_collate`.

Guarantee: what is returned has the same structure for every batch, whatever the lengths in it.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from feedline.batching.collate import checked_batch
from feedline.batching.nodes import Layout, collate_values
from feedline.batching.padding import Padding, pad_arrays, pad_numbers, pad_tensors
from feedline.batching.refusals import differing_types
from feedline.batching.registry import registered
from feedline.frameworks import from_numpy, is_foreign, is_jax, is_torch
from feedline.tree import kind_of

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

__all__ = ["pad_collate"]

_NUMBERS = (int, float, complex, np.number)


def pad_collate(
    batch: Iterable[Any],
    *,
    value: Any = 0,
    multiple_of: int = 1,
    max_length: int | None = None,
    extra: Literal["lengths", "mask"] | None = None,
    only: Hashable | tuple[Hashable, ...] | None = None,
) -> Any:
    """The batch of samples whose arrays differ in length: each is padded along its first axis to the longest.

    Every array of at least one dimension is padded, anywhere in the samples, as long as its other axes agree;
    everything else is collated as by `default_collate`. A list of numbers, such as token ids, is an array of
    one dimension. torch tensors give torch tensors (autograd and device are kept), JAX arrays JAX arrays,
    other libraries' tensors their class.

    Args:
        batch: the samples.
        value: the padding, or a mapping from an element of the sample (its key, field or position) to it, as
            ``{"ids": 0, "labels": -100}``, 0 where it has none. In arrays of text 0 means "".
        multiple_of: the padded length is the next multiple of it, also when all lengths are equal.
        max_length: longer arrays lose their end; a multiple of ``multiple_of``. Both equal: a fixed length.
        extra: ``"lengths"`` or ``"mask"`` replaces each padded array by a named tuple, `WithLengths` (data,
            lengths) or `WithMask` (data, mask), both of torch, of JAX, or else the second of NumPy. Lengths
            are those after the cut.
        only: the element, or a tuple of elements, of the sample that is padded; others are collated as they
            are, such as an image beside a caption. None: all.

    Returns:
        The batch, in new memory.

    Raises:
        ValueError: an argument breaks its rule; no sample; a value that an array's dtype does not hold.
        CollateError: the other axes, or the structure of samples, differ.
        TypeError: values of which no batch is made, as in `default_collate`.
        KeyError: ``only`` names an element that the samples do not have.

    Example:
        >>> pad_collate([[1, 2, 3], [4]])
        array([[1, 2, 3],
               [4, 0, 0]])
        >>> from functools import partial
        >>> collate_fn = partial(pad_collate, extra="mask", only="ids")
        >>> collate_fn([{"ids": [5, 6], "label": 0}, {"ids": [7], "label": 1}])["ids"].mask
        array([[ True,  True],
               [ True, False]])
    """
    samples = list(checked_batch(batch))
    padding = Padding(value, multiple_of, max_length, extra)
    if only is None and not isinstance(value, Mapping):
        return _pad(samples, padding, "sample")
    return _pad_elements(samples, padding, only)


def _pad_elements(samples: list[Any], padding: Padding, only: Any) -> Any:
    """What `pad_collate` does where elements of the samples are named, by ``only`` or by the value."""
    if kind_of(samples[0]) is None:
        raise TypeError(f"only= and a value by element need samples with elements, got {type(samples[0]).__name__}")
    layout = Layout(samples[0], "sample")
    chosen = set(layout.keys if only is None else only if isinstance(only, tuple) else (only,))
    unknown = (chosen | set(padding.value if isinstance(padding.value, Mapping) else ())) - set(layout.keys)
    if unknown:
        raise KeyError(f"only and value must name elements of the samples, which have no {min(map(repr, unknown))}")
    parts = zip(layout.keys, layout.child_places(), _columns(samples, layout), strict=True)
    return layout.rebuild(
        [
            _pad(column, padding.of(key), place) if key in chosen else collate_values(column, place)
            for key, place, column in parts
        ]
    )


def _columns(samples: list[Any], layout: Layout) -> list[list[Any]]:
    """The elements of samples by key: one list of values for each."""
    rows = [layout.elements(i, sample) for i, sample in enumerate(samples)]
    return [list(column) for column in zip(*rows, strict=True)]


def _pad(values: list[Any], padding: Padding, place: str) -> Any:
    first = values[0]
    if registered(first) is None:
        if all(map(_is_numbers, values)):
            return pad_numbers(values, padding, place)
        if kind_of(first) is not None:
            layout = Layout(first, place)
            columns = zip(_columns(values, layout), layout.child_places(), strict=True)
            return layout.rebuild([_pad(column, padding, at) for column, at in columns])
        if getattr(first, "ndim", 0) or is_foreign(first):
            return _pad_leaf(values, padding, place)
    return collate_values(values, place)


def _pad_leaf(values: list[Any], padding: Padding, place: str) -> Any:
    first = values[0]
    if is_torch(first):
        return pad_tensors(values, padding, place)
    if isinstance(first, np.ndarray):
        return pad_arrays(values, padding, place)
    if is_jax(first):
        arrays = [np.asarray(value) for value in _alike(values, sys.modules["jax"].Array, place)]
        padded = pad_arrays(arrays, padding, place)
        return _rejoined(padded, [from_numpy(part, like=first) for part in _parts(padded)])
    if is_foreign(first) and first.data.ndim:
        arrays = [value.data for value in _alike(values, type(first), place)]
        padded = pad_arrays(arrays, padding, place)
        data, *extra = _parts(padded)
        return _rejoined(padded, [type(first)(data), *extra])  # lengths and masks stay NumPy's
    return collate_values(values, place)


def _parts(padded: Any) -> tuple[Any, ...]:
    """The padded array, and its lengths or mask if it has such."""
    return padded if isinstance(padded, tuple) else (padded,)


def _rejoined(padded: Any, parts: list[Any]) -> Any:
    return type(padded)(*parts) if isinstance(padded, tuple) else parts[0]


def _alike(values: list[Any], cls: type, place: str) -> list[Any]:
    for i, value in enumerate(values):
        if not isinstance(value, cls):
            raise differing_types(place, i, cls.__name__, type(value).__name__)
    return values


def _is_numbers(value: object) -> bool:
    return type(value) is list and all(issubclass(cls, _NUMBERS) for cls in set(map(type, value)))
