"""A function applied to each sample as it is read: by index `MapDataset`, in a stream `MapIterableDataset`.

Guarantee: the function is called once for each sample read, with the sample (or its element ``key``); its
errors pass through untouched; the parent's sample is never changed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from feedline.datasets.base import Dataset, IterableDataset
from feedline.datasets.derived import Derived
from feedline.protocols import is_iterable_style
from feedline.tree import get_item, replace_item

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["MapDataset", "MapIterableDataset", "mapped_over", "taken_apart"]


class _Mapped(Derived):
    """What both are: a parent, a function, and what both of them promise."""

    def __init__(self, dataset: Any, fn: Callable[[Any], Any], key: int | str | None = None) -> None:
        if not callable(fn):
            raise TypeError(f"fn must be callable, got {fn!r} ({type(fn).__name__})")
        self.dataset = dataset
        self.fn = fn
        self.key = key

    @property
    def parents(self) -> Sequence[Any]:
        """The dataset."""
        return (self.dataset,)

    @property
    def thread_safe(self) -> bool:
        """Whether dataset and ``fn`` may be used by several threads at once."""
        return super().thread_safe and bool(getattr(self.fn, "thread_safe", False))

    @property
    def uses_global_rng(self) -> bool:
        """Whether dataset or ``fn`` may draw from a global generator."""
        return super().uses_global_rng or bool(getattr(self.fn, "uses_global_rng", True))

    def __len__(self) -> int:
        """The dataset's length; a TypeError where it has none."""
        return len(self.dataset)

    def applied(self, sample: Any) -> Any:
        """What comes of one sample of the dataset."""
        if self.key is None:
            return self.fn(sample)
        return replace_item(sample, self.key, self.fn(get_item(sample, self.key)))


class MapDataset(_Mapped, Dataset[Any]):  # type: ignore[override]  # see feedline.datasets.derived
    """``fn`` of each sample of a dataset; as long as the dataset.

    It may be read by several threads where the dataset may and ``fn`` has an attribute ``thread_safe`` that
    is true; it is taken to draw from global generators unless neither the dataset nor ``fn`` does
    (``uses_global_rng = False``).

    Args:
        dataset: any dataset with an index.
        fn: called with the sample, or with its element ``key``; what it returns takes its place.
        key: an index into a tuple or list, or a name in a mapping, named tuple or dataclass; None for the
            sample.

    Attributes:
        dataset, fn, key: as given.

    Raises:
        TypeError: ``fn`` cannot be called, or the dataset is a stream.

    Example:
        >>> from feedline.datasets import MapDataset
        >>> MapDataset([{"x": 1, "y": 0}], lambda x: x + 0.5, key="x")[0]
        {'x': 1.5, 'y': 0}
    """

    def __init__(self, dataset: Any, fn: Callable[[Any], Any], key: int | str | None = None) -> None:
        if is_iterable_style(dataset):
            raise TypeError(
                f"MapDataset takes a dataset with an index, got the iterable-style {type(dataset).__name__}; "
                "use MapIterableDataset"
            )
        super().__init__(dataset, fn, key)

    def __getitem__(self, index: Any) -> Any:
        return self.applied(self.dataset[index])


class MapIterableDataset(_Mapped, IterableDataset[Any]):  # type: ignore[override]
    """``fn`` of each sample of a stream.

    Promises and arguments are those of `MapDataset`, but that ``dataset`` is read by iterating it. A loader reads the
    stream in one place and calls ``fn`` in all workers at once; hence ``fn`` is called once a batch has been read, not
    always in the order of the stream, and must not depend on the calls before.

    Attributes:
        dataset, fn, key: as given.

    Raises:
        TypeError: ``fn`` cannot be called, or the dataset cannot be iterated.

    Example:
        >>> from feedline import IterableDataset
        >>> class Count(IterableDataset):
        ...     def __iter__(self):
        ...         return iter(range(3))
        >>> list(Count().map(lambda x: x**2))
        [0, 1, 4]
    """

    def __init__(self, dataset: Any, fn: Callable[[Any], Any], key: int | str | None = None) -> None:
        if not hasattr(dataset, "__iter__"):
            raise TypeError(
                f"MapIterableDataset takes a dataset that can be iterated, got {type(dataset).__name__}; use MapDataset"
            )
        super().__init__(dataset, fn, key)

    def __iter__(self) -> Iterator[Any]:
        for sample in self.dataset:  # not map(), which a StopIteration of the function's would end in silence
            yield self.applied(sample)


def mapped_over(stream: Any, maps: tuple[MapIterableDataset, ...]) -> Any:
    """A stream with maps put over it, the innermost first: what `taken_apart` undoes."""
    for step in maps:
        stream = MapIterableDataset(stream, step.fn, step.key)
    return stream


def taken_apart(dataset: Any) -> tuple[Any, tuple[MapIterableDataset, ...]]:
    """The stream that is read in the end, and the maps over it, the innermost first.

    Where it is shuffled, the maps beneath the shuffling are among them: an item's sample is the same before and after.

    Example:
        >>> source = iter([1, 2])
        >>> mapped = MapIterableDataset(MapIterableDataset(source, abs), str)
        >>> found, maps = taken_apart(mapped)
        >>> found is source, [step.fn for step in maps]
        (True, [<built-in function abs>, <class 'str'>])
    """
    from feedline.datasets.shuffled import ShuffledStream

    maps: list[MapIterableDataset] = []
    while type(dataset) is MapIterableDataset:  # a subclass may read in its own way
        maps.append(dataset)
        dataset = dataset.dataset
    within: tuple[MapIterableDataset, ...] = ()
    if type(dataset) is ShuffledStream:
        source, within = taken_apart(dataset.stream)
        dataset = dataset.over(source) if within else dataset
    return dataset, (*within, *reversed(maps))
