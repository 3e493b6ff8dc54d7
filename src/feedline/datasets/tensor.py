"""Arrays as a dataset: the sample at ``i`` is the tuple of row ``i`` of each array.

Guarantee: arrays are held as they were given, never copied or converted; a whole batch is read in one pass,
straight into its place (`TensorDataset.gather`); what comes back is of the kind that went in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from feedline.datasets.base import Dataset
from feedline.datasets.positions import position, positions
from feedline.frameworks import is_array, is_foreign, is_masked, is_torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

__all__ = ["TensorDataset"]


class TensorDataset(Dataset[tuple[Any, ...]]):
    """Samples from arrays of equal length: ``dataset[i]`` is ``(first[i], second[i], ...)``.

    Args:
        *tensors: NumPy arrays, memory maps, torch tensors, JAX arrays, or objects of another library that
            hold a NumPy array in ``.data`` and whose class can be called with an array. At least one; each
            with the samples along its first dimension.

    ``dataset.tensors`` is the tuple of them. It may be assigned anew; the length is read from the arrays each
    time. Rows of NumPy arrays are views of the array, as ``array[i]`` is. Safe to read from several threads.

    Raises:
        TypeError: an argument is no array (a list, say).
        ValueError: there are none, one has no dimension, or their lengths differ.

    Example:
        >>> import numpy as np
        >>> from feedline import TensorDataset
        >>> dataset = TensorDataset(np.array([[1.0, 0.5], [2.0, 1.0], [0.5, 2.0]]), np.array([0, 1, 1]))
        >>> len(dataset), dataset[-1]
        (3, (array([0.5, 2. ]), np.int64(1)))
        >>> dataset.gather([2, 0])
        (array([[0.5, 2. ],
               [1. , 0.5]]), array([1, 0]))
    """

    thread_safe = True
    uses_global_rng = False

    def __init__(self, *tensors: Any) -> None:
        self.tensors = tensors

    @property
    def tensors(self) -> tuple[Any, ...]:
        """The arrays; assigning others checks them as the constructor does."""
        return self._tensors

    @tensors.setter
    def tensors(self, tensors: tuple[Any, ...]) -> None:
        tensors = tuple(tensors)
        if not tensors:
            raise ValueError("TensorDataset needs at least one array, got none")
        for place, tensor in enumerate(tensors):
            _check_column(tensor, place)
        _common_length(tensors)
        self._tensors = tensors
        self._plain = all(type(tensor) is np.ndarray for tensor in tensors)

    def __len__(self) -> int:
        if self._plain:  # the common case, once more a batch, pays for nothing else
            size: int = self._tensors[0].shape[0]
            for tensor in self._tensors:
                if tensor.shape[0] != size:
                    break
            else:
                return size
        return _common_length(self._tensors)

    def __getitem__(self, index: Any) -> tuple[Any, ...]:
        """The sample at an integer; for a slice or a list of integers the tuple of those rows of each array.

        Raises:
            IndexError: the index is outside the dataset.
            TypeError: the index is neither an integer nor a slice, list or array of integers.
        """
        if type(index) is not int:  # the common case pays for nothing else
            if isinstance(index, slice):
                return tuple(_rows(tensor, index) for tensor in self._tensors)
            if isinstance(index, list) or getattr(index, "ndim", False):
                return self.gather(index)
        tensors = self._tensors
        row = position(index, _common_length(tensors))
        return tuple(tensor[row] if isinstance(tensor, np.ndarray) else _rows(tensor, row) for tensor in tensors)

    def gather(self, indices: Any, out: tuple[Any, ...] | None = None) -> tuple[Any, ...]:
        """The batch at ``indices``: each array's rows, of shape ``(len(indices), *array.shape[1:])``.

        It equals `default_collate` of the samples, without making them. Memory maps give plain NumPy arrays.

        Args:
            indices: integers, one-dimensional; negative ones count from the end.
            out: one writable array for each of the dataset's, of the batch's shape and dtype, to be filled
                and returned: of the kind of the dataset's, or a NumPy array.

        Returns:
            New arrays, C-contiguous and owned by the caller, or ``out``.

        Raises:
            IndexError: an index is outside the dataset.
            TypeError: the indices are no integers, or ``out`` has another dtype.
            ValueError: they are not one-dimensional, or ``out`` has another shape or number of arrays.
        """
        tensors = self._tensors
        rows = positions(indices, len(self))
        if out is None:
            return tuple([_gather(tensor, rows, None) for tensor in tensors])
        return tuple([_gather(tensor, rows, place) for tensor, place in zip(tensors, out, strict=True)])

    def gather_in(self, indices: Any, allocate: Callable[[tuple[int, ...], Any], NDArray[Any]]) -> tuple[Any, ...]:
        """What `gather` gives, its NumPy arrays in memory that ``allocate(shape, dtype)`` gives."""
        rows = positions(indices, len(self))
        return tuple([_take_in(tensor, rows, allocate) for tensor in self._tensors])


def _take_in(tensor: Any, rows: NDArray[np.int64], allocate: Callable[[tuple[int, ...], Any], NDArray[Any]]) -> Any:
    if type(tensor) is np.ndarray:
        dtype, flags = tensor.dtype, tensor.flags
        if flags.c_contiguous and flags.aligned and dtype.isnative:
            return tensor.take(rows, 0, allocate(rows.shape + tensor.shape[1:], dtype), "clip")
    return _gather(tensor, rows, None)


def _check_column(tensor: Any, place: int) -> None:
    if is_masked(tensor):  # a batch would lose the mask
        raise TypeError(f"tensors[{place}] must be a plain array, got a masked one; use its .filled(value)")
    if not (is_array(tensor) or is_foreign(tensor)):
        raise TypeError(f"tensors[{place}] must be an array, got {type(tensor).__name__}; use np.asarray")
    if not _array(tensor).shape:
        raise ValueError(f"tensors[{place}] must have samples along a first dimension, got a 0-d array")


def _common_length(tensors: tuple[Any, ...]) -> int:
    """The length that all share; read anew each time, for arrays may be replaced or resized."""
    size: int = _array(tensors[0]).shape[0]
    for tensor in tensors[1:]:
        if _array(tensor).shape[0] != size:
            sizes = ", ".join(str(_array(each).shape[0]) for each in tensors)
            raise ValueError(f"All tensors must have same size in first dimension, got {sizes}")
    return size


def _array(tensor: Any) -> Any:
    """What has the column's shape: the array itself, or the one inside a foreign tensor."""
    return tensor.data if is_foreign(tensor) else tensor


def _rows(tensor: Any, index: int | slice) -> Any:
    if is_foreign(tensor):
        return type(tensor)(np.asarray(tensor.data[index]))  # a constructor takes an array, not a NumPy scalar
    return tensor[index]


def _gather(tensor: Any, rows: NDArray[np.int64], out: Any) -> Any:
    """The rows of one column, in ``out`` if there is one."""
    if isinstance(tensor, np.ndarray):
        return _take(tensor, rows, out)
    if is_foreign(tensor):
        if out is None:
            return type(tensor)(_take(tensor.data, rows, None))
        _take(tensor.data, rows, out if isinstance(out, np.ndarray) else out.data)
        return out
    source = _host_view(tensor) if is_torch(tensor) else None
    if source is None:
        batch = tensor[rows]
        if out is None:
            return batch
        _check_place(out, batch.shape, batch.dtype)
        out[...] = batch
        return out
    if out is None:
        out = tensor.new_empty((len(rows), *tensor.shape[1:]))
    _take(source, rows, np.asarray(out))
    return out


def _host_view(tensor: Any) -> NDArray[Any] | None:
    """A torch tensor's own memory as a NumPy array: ``take`` from it is 15 times as fast as torch's indexing.

    None where there is no such view: on a device, with a gradient, of bfloat16.
    """
    try:
        return np.asarray(tensor)
    except (TypeError, RuntimeError):
        return None


def _take(source: NDArray[Any], rows: NDArray[np.int64], out: NDArray[Any] | None) -> NDArray[Any]:
    """Copy rows once: by ``mode="clip"``, for the default copies twice into an ``out``; rows are in range."""
    array = np.asarray(source)  # a memory map's batch is a plain array
    dtype, flags = array.dtype, array.flags
    shape = rows.shape + array.shape[1:]
    if out is not None and (out.shape != shape or out.dtype is not dtype):  # dtypes that are equal may be two objects
        _check_place(out, shape, dtype if dtype.isnative else dtype.newbyteorder("="))
    if flags.c_contiguous and flags.aligned and dtype.isnative:
        return array.take(rows, 0, out, "clip")
    picked = array[rows]  # of another array, take() would first copy all of it
    if out is None:
        return picked.astype(picked.dtype.newbyteorder("="), order="C", copy=False)
    np.copyto(out, picked)
    return out


def _check_place(out: Any, shape: tuple[int, ...], dtype: Any) -> None:
    """Refuse what NumPy would broadcast to, or cast to and lose digits."""
    if out.shape != shape:
        raise ValueError(f"out must have the batch's shape {tuple(shape)}, got {tuple(out.shape)}")
    if out.dtype != dtype:
        raise TypeError(f"out must have the batch's dtype {dtype}, got {out.dtype}")
