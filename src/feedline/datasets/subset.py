"""Parts of a dataset: chosen samples (`Subset`), and a random partition (`random_split`).

Guarantee: nothing is copied but indices. A split is a function of the seed, the dataset's length and the
lengths asked for: its order is that of Philox words (see `feedline.seeding`), the same on every machine and
NumPy version.
"""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from feedline.datasets.derived import DerivedDataset
from feedline.datasets.positions import position, positions
from feedline.frameworks import is_array
from feedline.protocols import gather_of, getitems_of
from feedline.seeding import Stream, bulk_words, checked_seed, draw_seed, seed_from

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

__all__ = ["Subset", "random_split"]

T_co = TypeVar("T_co", covariant=True)


class Subset(DerivedDataset[T_co]):
    """The samples of a dataset at given indices: ``subset[i]`` is ``dataset[indices[i]]``.

    Args:
        dataset: any dataset with an index.
        indices: a sequence or one-dimensional array of its indices (or keys), in any order, repeated or not.
            They are looked up when they are read.

    Attributes:
        dataset: as given.
        indices: as given.

    Raises:
        TypeError: the indices are a mask of booleans.

    Example:
        >>> from feedline import Subset
        >>> part = Subset(["a", "b", "c", "d"], [3, 0, 1])
        >>> part[0], part[-1], part[1:], part[[2, 0]]
        ('d', 'b', ['a', 'b'], ['b', 'd'])
    """

    def __init__(self, dataset: Any, indices: Sequence[Any] | NDArray[Any]) -> None:
        if len(indices) and isinstance(indices[0], bool | np.bool_):  # would be read as 0 and 1
            raise TypeError("indices must be indices of the dataset, got a mask of booleans; use np.flatnonzero(mask)")
        self.dataset = dataset
        self.indices = indices

    @property
    def parents(self) -> Sequence[Any]:
        """The dataset."""
        return (self.dataset,)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: Any) -> Any:
        """The sample at an integer; several for a slice or a list of integers.

        Several come as the dataset itself gives them if it is an array or columnar (a `TensorDataset`: the
        tuple of its rows), otherwise as a list of samples.

        Raises:
            IndexError: the index is outside the subset.
            TypeError: the index is neither an integer nor a slice, list or array of integers.
        """
        if isinstance(index, slice):
            return _read(self.dataset, self._keys(np.arange(len(self))[index]))
        if isinstance(index, list) or getattr(index, "ndim", False):
            return _read(self.dataset, self._keys(positions(index, len(self))))
        key = self.indices[position(index, len(self))]
        return self.dataset[key.item() if isinstance(key, np.generic) else key]

    def _keys(self, places: NDArray[np.int64]) -> Any:
        """The dataset's own indices of the samples at ``places``: an array from an array, else a list."""
        if is_array(self.indices):
            return np.asarray(self.indices)[places]
        return [self.indices[place] for place in places.tolist()]

    @property
    def reads_in_bulk(self) -> bool:
        """Whether `__getitems__` does more than reading one by one: where the dataset's does."""
        return getitems_of(self.dataset) is not None

    def __getitems__(self, indices: Sequence[Any], /) -> Sequence[T_co]:
        """The samples at ``indices``, in their order."""
        read, keys = getitems_of(self.dataset), _listed(self._keys(positions(indices, len(self))))
        return [self.dataset[key] for key in keys] if read is None else read(keys)

    @property
    def gather(self) -> Callable[..., Any] | None:
        """Reads a batch at once, as `feedline.protocols.Gathers` says; None unless the dataset does."""
        gather = gather_of(self.dataset)
        if gather is None:
            return None

        def gather_dataset(indices: Any, out: Any = None, /) -> Any:
            return gather(self._keys(positions(indices, len(self))), out)

        return gather_dataset

    def gather_in(self, indices: Any, allocate: Callable[[tuple[int, ...], Any], NDArray[Any]]) -> Any:
        """What `gather` gives, in memory that ``allocate`` gives: for a subset of an array dataset of ours."""
        return self.dataset.gather_in(self._keys(positions(indices, len(self))), allocate)


def _listed(keys: Any) -> list[Any]:
    """Plain Python numbers, which any dataset takes."""
    listed: list[Any] = keys.tolist() if isinstance(keys, np.ndarray) else keys
    return listed


def _read(dataset: Any, keys: Any) -> Any:
    gather = gather_of(dataset)
    if gather is not None:
        return gather(keys, None)
    if is_array(dataset):
        return dataset[np.asarray(keys, dtype=np.int64)]
    if isinstance(dataset, Subset):
        return dataset[_listed(keys)]
    return [dataset[key] for key in _listed(keys)]


def random_split(
    dataset: Any, lengths: Sequence[float], generator: Any = None, *, seed: int | None = None
) -> list[Subset[Any]]:
    """A random partition: each sample of the dataset is in exactly one part.

    Args:
        dataset: any dataset with a length and an index.
        lengths: the parts' numbers of samples, which sum to the dataset's length, or fractions that sum to 1:
            rounded down, and what remains is dealt one by one from the first part on.
        generator: a ``torch.Generator``, ``numpy.random.Generator`` or ``random.Random`` from which a seed is
            drawn.
        seed: the seed itself. With neither it is drawn from Python's ``random``.

    Returns:
        A `Subset` for each length; its ``indices`` are int64 arrays.

    Raises:
        ValueError: a length is negative, the lengths sum to something else, or both generator and seed are
            given.
        TypeError: the generator is none of these, or the seed is no integer.

    Warns:
        UserWarning: a part is empty.

    Example:
        >>> from feedline import random_split
        >>> train, test = random_split(range(10), [0.8, 0.2], seed=1)
        >>> len(train), len(test), sorted([*train, *test]) == list(range(10))
        (8, 2, True)
    """
    if generator is not None and seed is not None:
        raise ValueError("seed and generator are two sources of the same number: give one of them, got both")
    counts = _counts(lengths, len(dataset))
    if seed is None:
        seed = draw_seed() if generator is None else seed_from(generator)
    seed = checked_seed(seed)
    for place, count in enumerate(counts):
        if not count:
            warnings.warn(
                f"Length of split at index {place} is 0. This might result in an empty dataset.", stacklevel=2
            )
    words = bulk_words(seed, 0, Stream.SPLIT.word(), 0, len(dataset))
    order = np.argsort(words, kind="stable").astype(np.int64, copy=False)
    return [Subset(dataset, part) for part in np.split(order, np.cumsum(counts)[:-1])]


def _counts(lengths: Sequence[float], size: int) -> list[int]:
    """The parts' numbers of samples, whichever way they were asked for."""
    lengths = list(lengths)
    if any(not length >= 0 for length in lengths):  # "not >=" refuses NaN too
        raise ValueError(f"lengths must not be negative, got {lengths}")
    if math.isclose(sum(lengths), 1):  # as in torch, whose [1, 0] are fractions as well
        counts = [math.floor(size * fraction) for fraction in lengths]
        for place in range(size - sum(counts)):
            counts[place % len(counts)] += 1
        return counts
    counts = [int(length) for length in lengths]
    if counts != lengths or sum(counts) != size:
        raise ValueError(
            f"lengths must be numbers of samples that sum to {size}, the dataset's length, "
            f"or fractions that sum to 1, got {lengths}, which sum to {sum(lengths)}"
        )
    return counts
