"""A function applied to each sample as it is read: by index `MapDataset`, in a stream `MapIterableDataset`.

Guarantee: the function is called once for each sample read, with the sample (or its element ``key``); its
errors pass through untouched; the parent's sample is never changed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from feedline.datasets.derived import DerivedDataset, DerivedIterableDataset
from feedline.protocols import is_iterable_style
from feedline.tree import get_item, replace_item

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["MapDataset", "MapIterableDataset"]


class MapDataset(DerivedDataset[Any]):
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
        self.dataset = dataset
        self.fn = _checked(fn)
        self.key = key

    @property
    def parents(self) -> Sequence[Any]:
        """The dataset."""
        return (self.dataset,)

    @property
    def thread_safe(self) -> bool:  # type: ignore[override]
        """Whether dataset and ``fn`` may be used by several threads at once."""
        return super().thread_safe and bool(getattr(self.fn, "thread_safe", False))

    @property
    def uses_global_rng(self) -> bool:  # type: ignore[override]
        """Whether dataset or ``fn`` may draw from a global generator."""
        return super().uses_global_rng or bool(getattr(self.fn, "uses_global_rng", True))

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: Any) -> Any:
        return _apply(self.fn, self.key, self.dataset[index])


class MapIterableDataset(DerivedIterableDataset[Any]):
    """``fn`` of each sample of a stream.

    Promises and arguments are those of `MapDataset`, but that ``dataset`` is read by iterating it.

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
        self.dataset = dataset
        self.fn = _checked(fn)
        self.key = key

    @property
    def parents(self) -> Sequence[Any]:
        """The stream."""
        return (self.dataset,)

    @property
    def thread_safe(self) -> bool:  # type: ignore[override]
        """Whether stream and ``fn`` may be used by several threads at once."""
        return super().thread_safe and bool(getattr(self.fn, "thread_safe", False))

    @property
    def uses_global_rng(self) -> bool:  # type: ignore[override]
        """Whether stream or ``fn`` may draw from a global generator."""
        return super().uses_global_rng or bool(getattr(self.fn, "uses_global_rng", True))

    def __iter__(self) -> Iterator[Any]:
        for sample in self.dataset:
            yield _apply(self.fn, self.key, sample)

    def __len__(self) -> int:
        """The stream's length; a TypeError where it has none."""
        return len(self.dataset)


def _checked(fn: Callable[[Any], Any]) -> Callable[[Any], Any]:
    if not callable(fn):
        raise TypeError(f"fn must be callable, got {fn!r} ({type(fn).__name__})")
    return fn


def _apply(fn: Callable[[Any], Any], key: int | str | None, sample: Any) -> Any:
    if key is None:
        return fn(sample)
    return replace_item(sample, key, fn(get_item(sample, key)))
