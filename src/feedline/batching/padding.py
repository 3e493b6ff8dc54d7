"""Arrays of different lengths written into one: what `pad_collate` does at a leaf, for NumPy, torch and JAX.

Guarantee: arrays are padded behind their end, along the first axis only; every element is written once.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from feedline.batching.leaves import common_dtype
from feedline.batching.refusals import differing_shapes, differing_types, unknown_type
from feedline.checks import integer
from feedline.errors import CollateError
from feedline.frameworks import is_masked

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    Array = np.ndarray[Any, Any]

__all__ = ["Padding", "WithLengths", "WithMask", "pad_arrays", "pad_numbers", "pad_tensors"]


class WithLengths(NamedTuple):
    """A padded array (B, T, ...) and the lengths (B,), int64, of what is not padding.

    Example:
        >>> from feedline import pad_collate
        >>> pad_collate([[1, 2, 3], [4]], extra="lengths").lengths
        array([3, 1])
    """

    data: Any
    lengths: Any


class WithMask(NamedTuple):
    """A padded array (B, T, ...) and a mask (B, T), bool, True where there is no padding.

    Example:
        >>> from feedline import pad_collate
        >>> pad_collate([[1, 2], [4]], extra="mask").mask
        array([[ True,  True],
               [ True, False]])
    """

    data: Any
    mask: Any


@dataclass(frozen=True, slots=True)
class Padding:
    """How arrays are padded: the arguments of `pad_collate` of these names, checked."""

    value: Any
    multiple_of: int
    max_length: int | None
    extra: Literal["lengths", "mask"] | None

    def __post_init__(self) -> None:
        object.__setattr__(self, "multiple_of", integer("multiple_of", self.multiple_of, least=1))
        if self.max_length is not None:
            object.__setattr__(self, "max_length", integer("max_length", self.max_length, least=1))
        if self.max_length is not None and self.max_length % self.multiple_of:
            raise ValueError(f"max_length must be a multiple of multiple_of={self.multiple_of}, got {self.max_length}")
        if self.extra not in {None, "lengths", "mask"}:
            raise ValueError(f"extra must be None, 'lengths' or 'mask', got {self.extra!r}")

    def of(self, key: Hashable) -> Padding:
        """The padding of the element ``key`` of a sample, where the value is given by element."""
        return replace(self, value=self.value.get(key, 0)) if isinstance(self.value, Mapping) else self

    def lengths(self, arrays: Sequence[Any]) -> list[int]:
        """How much of each array is kept."""
        lengths = [int(array.shape[0]) for array in arrays]
        return lengths if self.max_length is None else [min(n, self.max_length) for n in lengths]

    def width(self, lengths: list[int]) -> int:
        """The length that all are padded to."""
        return -(-max(lengths) // self.multiple_of) * self.multiple_of


def pad_numbers(values: list[list[Any]], padding: Padding, place: str) -> Any:
    """Lists of Python numbers, one for each sample, as (B, T); int64 if all are empty.

    Raises:
        CollateError: integers that share no dtype.
    """
    flat = [number for value in values for number in value]
    together = np.asarray(flat) if flat else np.empty(0, dtype=np.int64)
    if together.dtype.kind in "fO" and set(map(type, flat)) <= {int, bool}:  # integers beyond int64, rounded
        if min(flat) < 0 or max(flat) >= 1 << 64:
            raise CollateError(f"cannot stack {place}: no integer dtype holds all its numbers; make them floats")
        together = np.asarray(flat, dtype=np.uint64)
    ends = np.cumsum([len(value) for value in values])
    return pad_arrays(np.split(together, ends[:-1]), padding, place)


def pad_arrays(arrays: Sequence[Any], padding: Padding, place: str) -> Any:
    """NumPy arrays of shape (T, ...), one for each sample, as (B, T, ...); dtypes are promoted.

    Raises:
        CollateError: other axes differ, something is no array, or has a mask, which padding would lose.
        TypeError: arrays of objects.
        ValueError: the dtype does not hold the padding value.
    """
    dtype: np.dtype[Any] = np.result_type(arrays[0].dtype)
    if dtype.hasobject:
        raise unknown_type(place, 0, arrays[0], why=f" and dtype {dtype}")
    for i, array in enumerate(arrays):
        if not isinstance(array, np.ndarray) or is_masked(array):
            raise differing_types(place, i, "ndarray", type(array).__name__)
        _check_axes(place, i, arrays[0].shape, array.shape)
        common = common_dtype(dtype, array.dtype)
        if common is None:
            raise differing_types(place, i, f"ndarray of {dtype}", f"ndarray of {array.dtype}")
        dtype = common
    lengths = padding.lengths(arrays)
    shape = len(arrays), padding.width(lengths), *arrays[0].shape[1:]
    out = np.full(shape, _fill(padding.value, dtype, place), dtype)
    for row, array, length in zip(out, arrays, lengths, strict=True):
        row[:length] = array[:length]
    if padding.extra is None:
        return out
    counts = np.asarray(lengths, dtype=np.int64)
    if padding.extra == "lengths":
        return WithLengths(out, counts)
    return WithMask(out, np.arange(shape[1]) < counts[:, None])


def pad_tensors(tensors: Sequence[Any], padding: Padding, place: str) -> Any:
    """Tensors of torch, of shape (T, ...), one for each sample, as (B, T, ...), on the first one's device.

    Autograd reaches each tensor. Raises as `pad_arrays`.
    """
    torch = sys.modules["torch"]
    first, dtype = tensors[0], tensors[0].dtype
    for i, tensor in enumerate(tensors):
        if not isinstance(tensor, torch.Tensor):
            raise differing_types(place, i, "Tensor", type(tensor).__name__)
        _check_axes(place, i, tuple(first.shape), tuple(tensor.shape))
        dtype = torch.promote_types(dtype, tensor.dtype)
    lengths = padding.lengths(tensors)
    shape = len(tensors), padding.width(lengths), *first.shape[1:]
    try:
        out = first.new_full(shape, padding.value, dtype=dtype)
        exact = dtype.is_floating_point or dtype.is_complex or first.new_full((), padding.value, dtype=dtype)
    except (OverflowError, RuntimeError, TypeError) as error:
        raise _does_not_hold(padding.value, dtype, place) from error
    if exact is not True and exact.item() != padding.value:
        raise _does_not_hold(padding.value, dtype, place)
    for i, (tensor, length) in enumerate(zip(tensors, lengths, strict=True)):
        out[i, :length] = tensor[:length]
    if padding.extra is None:
        return out
    counts = torch.tensor(lengths, device=out.device)
    if padding.extra == "lengths":
        return WithLengths(out, counts)
    return WithMask(out, torch.arange(shape[1], device=out.device) < counts[:, None])


def _check_axes(place: str, index: int, first: tuple[int, ...], shape: tuple[int, ...]) -> None:
    if len(shape) != len(first) or shape[1:] != first[1:]:
        remedy = "only first axes may differ: resize the others"
        raise differing_shapes(place, index, first, shape, earlier=0, remedy=remedy)


def _fill(value: Any, dtype: np.dtype[Any], place: str) -> Any:
    """The padding value as the dtype holds it: exactly, or rounded among floats."""
    if isinstance(value, int) and value == 0:
        return np.zeros((), dtype)  # of any dtype: "" in text, the epoch among dates
    try:
        fill = np.asarray(value, dtype=dtype)
    except (OverflowError, TypeError, ValueError) as error:
        raise _does_not_hold(value, dtype, place) from error
    if fill.ndim or (dtype.kind in "biuSU" and fill != value):
        raise _does_not_hold(value, dtype, place)
    return fill


def _does_not_hold(value: Any, dtype: Any, place: str) -> ValueError:
    return ValueError(f"value must be a number that {place} of dtype {dtype} can hold, got {value!r}")
