"""What a dataset is: samples by index (`Dataset`) or one after the other (`IterableDataset`), and what both offer.

Guarantee: nothing here copies a sample, starts a thread or opens a file. Anything with ``__len__`` and ``__getitem__``
is a dataset for the loader without inheriting from these classes; they add ``+``, ``map``, ``cache`` and, to
streams, ``shuffle``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from itertools import count
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from feedline.protocols import length_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from feedline.datasets.cached import CachedDataset
    from feedline.datasets.combine import ChainDataset, ConcatDataset
    from feedline.datasets.mapped import MapDataset, MapIterableDataset
    from feedline.datasets.shuffled import ShuffledStream

__all__ = ["Dataset", "IterableDataset"]

T_co = TypeVar("T_co", covariant=True)


class Dataset(ABC, Generic[T_co]):
    """Samples by index. A subclass defines ``__getitem__`` and, unless it is endless, ``__len__``.

    Two class attributes tell the loader what it may do (both are promises of a subclass that sets them):

    - ``thread_safe = True``: samples may be read by several threads at once;
    - ``uses_global_rng = False``: no code of it draws from ``random``, ``numpy.random`` or torch's default generator,
      so that those need not be seeded before each sample.

    Two optional methods make it fast: ``__getitems__(indices) -> list of samples`` and
    ``gather(indices, out) -> batch`` (see `feedline.protocols`).

    Example:
        >>> class Squares(Dataset):
        ...     def __len__(self):
        ...         return 4
        ...     def __getitem__(self, index):
        ...         return index**2
        >>> list(Squares())
        [0, 1, 4, 9]
    """

    thread_safe: bool = False
    uses_global_rng: bool = True

    @abstractmethod
    def __getitem__(self, index: Any) -> T_co:
        """The sample at ``index``."""

    def __iter__(self) -> Iterator[T_co]:
        """The samples in order, up to the length (without a length: up to the first IndexError)."""
        size = length_of(self)  # None also where it is a parent that has no length
        for index in count() if size is None else range(size):
            try:
                sample = self[index]
            except IndexError:
                if size is None:
                    return
                raise
            yield sample

    def __add__(self, other: Any) -> ConcatDataset[Any]:
        from feedline.datasets.combine import ConcatDataset

        return ConcatDataset([self, other])

    def map(self, fn: Callable[[Any], Any], key: int | str | None = None) -> MapDataset:
        """This dataset with ``fn`` applied to each sample as it is read, or to its element ``key``.

        Args:
            fn: called with the whole sample, or with the element; what it returns takes its place.
            key: an index into a tuple or list, or a name in a mapping, named tuple or dataclass.

        Example:
            >>> from feedline import TensorDataset
            >>> import numpy as np
            >>> doubled = TensorDataset(np.arange(3), np.arange(3)).map(lambda x: 2 * x, key=0)
            >>> doubled[2]
            (np.int64(4), np.int64(2))
        """
        from feedline.datasets.mapped import MapDataset

        return MapDataset(self, fn, key)

    def cache(self, max_items: int | None = None) -> CachedDataset:
        """This dataset with each sample kept in memory once it was read.

        Args:
            max_items: keep at most so many, forgetting the least recently used; None keeps all.
        """
        from feedline.datasets.cached import CachedDataset

        return CachedDataset(self, max_items=max_items)


class IterableDataset(ABC, Generic[T_co]):
    """Samples one after the other: a stream. A subclass defines ``__iter__``, which starts anew at each call.

    A loader never duplicates a stream: one worker reads it, told by `feedline.get_worker_info` that it is worker 0
    of 1; functions given to `map` run in all workers. A stream that lies in several files can be read by several
    workers at once, if it has two more methods:

    - ``shards()``: how many shards there are (or a sequence of that length);
    - ``iter_shard(i)``: a fresh pass over the samples of shard ``i``, from 0 on.

    The loader then reads it by these two alone, and delivers shard 0, then shard 1, and so on, whatever the number of
    workers; ``__iter__`` should do the same for those who read it without a loader.

    Example:
        >>> class Countdown(IterableDataset):
        ...     def __iter__(self):
        ...         return iter([3, 2, 1])
        >>> list(Countdown() + Countdown())
        [3, 2, 1, 3, 2, 1]
    """

    thread_safe: bool = False
    uses_global_rng: bool = True

    @abstractmethod
    def __iter__(self) -> Iterator[T_co]:
        """A fresh pass over the samples."""

    def __add__(self, other: Any) -> ChainDataset[Any]:
        from feedline.datasets.combine import ChainDataset

        return ChainDataset([self, other])

    def map(self, fn: Callable[[Any], Any], key: int | str | None = None) -> MapIterableDataset:
        """This stream with ``fn`` applied to each sample, or to its element ``key`` (see `Dataset.map`)."""
        from feedline.datasets.mapped import MapIterableDataset

        return MapIterableDataset(self, fn, key)

    def shuffle(self, buffer_size: int, *, interleave: int = 1) -> ShuffledStream[T_co]:
        """This stream in another order each epoch: shards permuted, items through a buffer (see `ShuffledStream`).

        Args:
            buffer_size: how many items the order of the next one is drawn from.
            interleave: how many shards are read by turns.

        Example:
            >>> class Count(IterableDataset):
            ...     def __iter__(self):
            ...         return iter(range(6))
            >>> sorted(Count().shuffle(3))
            [0, 1, 2, 3, 4, 5]
        """
        from feedline.datasets.shuffled import ShuffledStream

        return ShuffledStream(self, buffer_size, interleave=interleave)
