"""Samples kept in memory once they were read.

Guarantee: a sample that is kept is never changed by who received it: its arrays are handed out as read-only
views, its containers are rebuilt for each reader. No lock is held while the dataset is read.
"""

from __future__ import annotations

import operator
from collections import OrderedDict
from collections.abc import Mapping
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from feedline.datasets.derived import DerivedDataset
from feedline.protocols import Sized, is_iterable_style
from feedline.tree import get_item, keys_of, kind_of, rebuild

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["CachedDataset"]

_MISSING = object()


class CachedDataset(DerivedDataset[Any]):
    """A dataset that remembers its samples: each is read once, for as long as it is kept.

    What comes before the cache is therefore computed once, random transforms too: put those after it, as in
    ``dataset.cache().map(augment)``. NumPy arrays are handed out read-only, so that a later stage that works
    in place raises instead of changing the next epoch's sample; the dataset's own arrays stay as they are.
    Objects of other kinds (torch tensors, images) are shared: treat them as read-only. When the dataset's
    length changes, the cache starts anew. Each process has a cache of its own, and a pickled one arrives
    empty.

    Args:
        dataset: any dataset with an index.
        max_items: keep at most so many samples, forgetting the least recently used; None keeps all.

    Attributes:
        dataset, max_items: as given.

    Raises:
        ValueError: ``max_items`` is no positive integer.
        TypeError: the dataset is a stream.

    Example:
        >>> import numpy as np
        >>> from feedline import TensorDataset
        >>> cached = TensorDataset(np.arange(4.0)).map(lambda x: np.full(2, x), key=0).cache(max_items=2)
        >>> cached[3][0] is cached[-1][0]
        True
    """

    def __init__(self, dataset: Any, max_items: int | None = None) -> None:
        if is_iterable_style(dataset):
            raise TypeError(f"cache takes a dataset with an index, got the iterable-style {type(dataset).__name__}")
        self.dataset = dataset
        self.max_items = None if max_items is None else _checked_max_items(max_items)
        self._begin()

    def _begin(self) -> None:
        self._kept: OrderedDict[Any, Any] = OrderedDict()
        self._size: int | None = None
        self._lock = Lock()

    def __getstate__(self) -> dict[str, Any]:
        """All but the lock, which does not travel, and the samples, cheaper to read than to send."""
        return {name: value for name, value in vars(self).items() if name not in {"_kept", "_size", "_lock"}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._begin()

    @property
    def parents(self) -> Sequence[Any]:
        """The dataset."""
        return (self.dataset,)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: Any) -> Any:
        size = _length(self.dataset)
        key = index if size is None or isinstance(self.dataset, Mapping) else _from_start(index, size)
        with self._lock:
            if size != self._size:
                self._kept, self._size = OrderedDict(), size
            kept = self._kept
            sample = kept.get(key, _MISSING)
            if sample is not _MISSING:
                kept.move_to_end(key)
        if sample is _MISSING:
            sample = _each_leaf(self.dataset[index], _read_only)
            with self._lock:  # another thread may have read it too: the first one stays
                sample = kept.setdefault(key, sample)
                kept.move_to_end(key)
                while self.max_items is not None and len(kept) > self.max_items:
                    kept.popitem(last=False)
        return _each_leaf(sample, lambda leaf: leaf)


def _checked_max_items(max_items: Any) -> int:
    if isinstance(max_items, bool) or not isinstance(max_items, int | np.integer) or max_items <= 0:
        raise ValueError(f"max_items must be a positive integer or None, got {max_items!r}")
    return int(max_items)


def _length(dataset: Any) -> int | None:
    """The dataset's length; None for one that has none, also where only its parent lacks it."""
    if not isinstance(dataset, Sized):
        return None
    try:
        return len(dataset)
    except TypeError:
        return None


def _from_start(index: Any, size: int) -> Any:
    """One key for each sample: integers counted from the start; the dataset refuses what lies outside."""
    try:
        place = operator.index(index)
    except TypeError:
        return index
    return place + size if place < 0 else place


def _read_only(leaf: Any) -> Any:
    if not isinstance(leaf, np.ndarray):
        return leaf
    view = leaf.view()
    view.flags.writeable = False
    return view


def _each_leaf(sample: Any, change: Callable[[Any], Any]) -> Any:
    """New containers around the changed leaves; a container that cannot be rebuilt stays itself."""
    if kind_of(sample) is None:
        return change(sample)
    made = rebuild(sample, [_each_leaf(get_item(sample, key), change) for key in keys_of(sample)])
    return made if type(made) is type(sample) else sample
