"""Samples kept in memory once they were read.

Guarantee: who received a sample cannot change the NumPy arrays and containers that are kept: arrays are handed out as
read-only views, containers are rebuilt for each reader. No lock is held while the dataset is read.
"""

from __future__ import annotations

import operator
from collections import OrderedDict
from collections.abc import Mapping
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from feedline.checks import integer
from feedline.datasets.derived import DerivedDataset
from feedline.protocols import is_iterable_style, length_of
from feedline.tree import map_leaves

if TYPE_CHECKING:
    from collections.abc import Sequence

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
        ValueError: ``max_items`` is neither None nor a positive integer.
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
        self.max_items = None if max_items is None else integer("max_items", max_items, least=1)
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
        size = length_of(self.dataset)
        key = index if size is None or isinstance(self.dataset, Mapping) else _from_start(index, size)
        with self._lock:
            if size != self._size:
                self._kept, self._size = OrderedDict(), size
            kept = self._kept
            sample = kept.get(key, _MISSING)
            if sample is not _MISSING:
                kept.move_to_end(key)
        if sample is _MISSING:
            sample = map_leaves(_read_only, self.dataset[index], keep_types=True)
            with self._lock:  # another thread may have read it too: the first one stays
                sample = kept.setdefault(key, sample)
                kept.move_to_end(key)
                while self.max_items is not None and len(kept) > self.max_items:
                    kept.popitem(last=False)
        return map_leaves(_same, sample, keep_types=True)


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


def _same(leaf: Any) -> Any:
    return leaf
