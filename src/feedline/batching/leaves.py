"""The leaves of a batch being written: arrays and numbers, text, and what a framework or a user stacks.

Guarantee: an array or number is written once, into its place in the batch, and not kept. ``put(i, value)``
either writes place ``i`` or raises and leaves the places before it as they were; ``finish(count)`` gives the
batch of the first ``count``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from feedline.batching.refusals import differing_shapes, differing_types, too_large, unknown_type
from feedline.batching.registry import registered
from feedline.errors import CollateError
from feedline.frameworks import is_masked, is_numeric

if TYPE_CHECKING:
    from collections.abc import Callable

    Array = np.ndarray[Any, Any]
    Allocate = Callable[[tuple[int, ...], Any], Array]
    Stack = Callable[[list[Any]], Any]

__all__ = [
    "ArrayLeaf",
    "ForeignLeaf",
    "ListLeaf",
    "Node",
    "NumberLeaf",
    "Space",
    "StackLeaf",
    "as_array",
    "common_dtype",
]

_INT64, _UINT64 = np.dtype(np.int64), np.dtype(np.uint64)
_NUMBERS = (bool, int, float, complex)


class Node(Protocol):
    """A part of the batch: one leaf, or a container of parts."""

    def put(self, i: int, value: Any, /) -> None:
        """Write the value of sample ``i``."""

    def finish(self, count: int, /) -> Any:
        """The batch of the first ``count`` samples."""


@dataclass(frozen=True, slots=True)
class Space:
    """Where a batch is written: how many samples it has room for, and who gives the memory."""

    size: int
    allocate: Allocate


def as_array(value: object) -> Array | None:
    """An array, NumPy scalar or Python number as an array, masked ones masked; None for anything else.

    Raises:
        OverflowError: an integer that neither int64 nor uint64 holds.
    """
    if is_masked(value):
        return value
    if isinstance(value, np.ndarray | np.generic):
        return np.asarray(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return np.asarray(value, dtype=_INT64 if value < 1 << 63 else _UINT64)
    if isinstance(value, _NUMBERS):
        return np.asarray(value)
    return None


class ArrayLeaf:
    """Arrays of one shape, stacked; dtypes that differ are promoted as ``np.stack`` does."""

    __slots__ = ("batch", "cls", "dtype", "mask", "place", "shape", "space")

    def __init__(self, array: Array, cls: type, space: Space, place: str) -> None:
        if array.dtype.hasobject:
            raise unknown_type(place, 0, array, why=f" and dtype {array.dtype}")
        self.cls: Any = _NoValue if is_masked(array) else cls  # masks go the long way
        self.place = place
        self.space = space
        self.shape: tuple[int, ...] = array.shape
        self.mask: Array | None = None
        self._allocate(np.result_type(array.dtype))  # in native byte order

    def put(self, i: int, value: Any) -> None:
        """Write an array; the test holds for all samples of a data set that is in order."""
        if type(value) is self.cls and value.shape == self.shape:
            dtype = value.dtype
            if dtype is self.dtype or dtype == self.dtype:  # most often the very same object
                self.batch[i] = value
                return
        self.put_other(i, value)

    def put_other(self, i: int, value: Any) -> None:
        """The long way: other dtypes, masks, numbers among arrays, and all that must be refused."""
        try:
            array = None if registered(value) is not None else as_array(value)
        except OverflowError:
            raise too_large(self.place, i, value) from None
        if array is None:
            raise differing_types(self.place, i, self._name(), type(value).__name__)
        if array.shape != self.shape:
            raise differing_shapes(self.place, i, self.shape, array.shape)
        masked = is_masked(array)
        if array.dtype != self.dtype and not (masked and array is np.ma.masked):  # the constant has no dtype of its own
            self._widen(i, array.dtype, value)
        if masked and self.mask is None:
            self.mask = np.zeros((self.space.size, *self.shape), dtype=np.bool_)
            self.cls = _NoValue
        self.batch[i] = np.ma.getdata(array) if masked else array
        if self.mask is not None:
            self.mask[i] = np.ma.getmaskarray(array)

    def finish(self, count: int) -> Any:
        """The array, cut to ``count``; masked if any sample was."""
        batch = self.batch if count == self.space.size else self.batch[:count]
        return batch if self.mask is None else np.ma.MaskedArray(batch, self.mask[:count])

    def _allocate(self, dtype: np.dtype[Any]) -> None:
        self.batch = self.space.allocate((self.space.size, *self.shape), dtype)
        self.dtype = dtype

    def _widen(self, i: int, dtype: np.dtype[Any], value: object) -> None:
        """Make room for ``dtype``: memory of the promoted dtype, with what is written so far."""
        wider = self._common(i, dtype, value)
        if wider != self.dtype:
            written = self.batch[:i]
            self._allocate(wider)
            self.batch[:i] = written

    def _common(self, i: int, dtype: np.dtype[Any], value: object) -> np.dtype[Any]:
        if type(value) is int and {dtype, self.dtype} == {_INT64, _UINT64}:
            # A Python integer has no dtype: uint64 holds both, or nothing does (float64 would round).
            if value < 0 or (self.dtype == _INT64 and (self.batch[:i] < 0).any()):
                raise too_large(self.place, i, value)
            return _UINT64
        common = common_dtype(self.dtype, dtype)
        if common is not None:
            return common
        raise differing_types(self.place, i, self._name(), f"{type(value).__name__} of {dtype}")

    def _name(self) -> str:
        return f"{'ndarray' if self.shape else 'number'} of {self.dtype}"


class NumberLeaf:
    """Python numbers, or NumPy scalars of a type of fixed size, as a one-dimensional array."""

    __slots__ = ("array", "cls")

    def __init__(self, number: Array, cls: type, space: Space, place: str) -> None:
        self.array = ArrayLeaf(number, np.ndarray, space, place)
        self.cls: Any = cls

    def put(self, i: int, value: Any) -> None:
        """Write a number."""
        if type(value) is self.cls:
            try:
                self.array.batch[i] = value
            except OverflowError:  # an integer beyond int64
                self._put_other(i, value)
        else:
            self._put_other(i, value)

    def finish(self, count: int) -> Any:
        """The array, cut to ``count``."""
        return self.array.finish(count)

    def _put_other(self, i: int, value: Any) -> None:
        array = self.array
        array.put_other(i, value)
        if array.mask is not None or array.dtype == _UINT64:
            self.cls = _NoValue  # from now on, look at each value's mask and sign


class ForeignLeaf:
    """Tensors of another library: the arrays in their ``.data`` stacked and handed to their class."""

    __slots__ = ("array", "cls", "place")

    def __init__(self, value: Any, space: Space, place: str) -> None:
        self.cls = type(value)
        self.place = place
        self.array = ArrayLeaf(np.asarray(value.data), np.ndarray, space, place)

    def put(self, i: int, value: Any) -> None:
        """Write a tensor's array."""
        if not isinstance(value, self.cls):
            raise differing_types(self.place, i, self.cls.__name__, type(value).__name__)
        self.array.put(i, value.data)

    def finish(self, count: int) -> Any:
        """A tensor of the stacked array."""
        batch = self.array.finish(count)
        try:
            return self.cls(batch)
        except TypeError as error:
            name = self.cls.__name__
            raise TypeError(
                f"cannot collate {self.place} of type {name}: its constructor takes no array ({error}); "
                f"give collate_fn=, or register_collate({name}, fn)"
            ) from error


class ListLeaf:
    """Values kept as references: text for a list, values of registered types for their function."""

    __slots__ = ("_make", "cls", "place", "values")

    def __init__(self, cls: type, space: Space, place: str, make: Callable[[list[Any]], Any] | None) -> None:
        self.cls: Any = cls
        self.place = place
        self.values: list[Any] = [None] * space.size
        self._make = make

    def put(self, i: int, value: Any) -> None:
        """Keep a value of the same type, or of the same registration."""
        if type(value) is not self.cls and not (
            isinstance(value, self.cls) if self._make is None else registered(value) is self._make
        ):
            raise differing_types(self.place, i, self.cls.__name__, type(value).__name__)
        self.values[i] = value

    def finish(self, count: int) -> Any:
        """The list, or what the registered function makes of it."""
        values = self.values[:count]
        return values if self._make is None else self._make(values)


class StackLeaf:
    """Tensors that their own framework stacks, once, from references: torch (with its autograd) and JAX."""

    __slots__ = ("_stack", "cls", "place", "shape", "values")

    def __init__(self, value: Any, stacking: tuple[type, Stack], space: Space, place: str) -> None:
        self.cls: Any = stacking[0]
        self.place = place
        self.shape = value.shape
        self.values: list[Any] = [None] * space.size
        self._stack = stacking[1]

    def put(self, i: int, value: Any) -> None:
        """Keep a tensor of the same shape."""
        if not isinstance(value, self.cls):
            raise differing_types(self.place, i, self.cls.__name__, type(value).__name__)
        if value.shape != self.shape:
            raise differing_shapes(self.place, i, tuple(self.shape), tuple(value.shape))
        self.values[i] = value

    def finish(self, count: int) -> Any:
        """The stacked tensor."""
        try:
            return self._stack(self.values[:count])
        except Exception as error:  # of the framework: devices or layouts that do not go together
            raise CollateError(f"cannot stack {self.place}: {error}") from error


class _NoValue:
    """The type of no value: what a leaf expects once the short way is closed."""


def common_dtype(one: np.dtype[Any], other: np.dtype[Any]) -> np.dtype[Any] | None:
    """The dtype that ``np.stack`` promotes both to; None where numbers would become text."""
    if one.hasobject or other.hasobject or _family(one) != _family(other):
        return None
    try:
        return np.result_type(one, other)
    except TypeError:  # NumPy promotes, for one, bfloat16 and int64 to nothing
        return None


def _family(dtype: np.dtype[Any]) -> str:
    return "number" if is_numeric(dtype) else dtype.kind
