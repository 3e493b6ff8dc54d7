"""Datasets made of others: what they may promise follows from what their parents promise.

Guarantee: read anew each time, so that a parent that changes its promise, or is replaced, is heard.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, TypeVar

from feedline.datasets.base import Dataset, IterableDataset
from feedline.protocols import is_thread_safe, uses_global_rng

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["DerivedDataset", "DerivedIterableDataset"]

T_co = TypeVar("T_co", covariant=True)


class DerivedDataset(Dataset[T_co]):
    """A dataset that reads others, its `parents`."""

    @property
    @abstractmethod
    def parents(self) -> Sequence[Any]:
        """The datasets that this one reads."""

    # The base declares variables, which a subclass of the user's sets; here nobody sets them.
    @property
    def thread_safe(self) -> bool:  # type: ignore[override]
        """Whether all parents may be read by several threads at once."""
        return all(map(is_thread_safe, self.parents))

    @property
    def uses_global_rng(self) -> bool:  # type: ignore[override]
        """Whether any parent draws from a global generator."""
        return any(map(uses_global_rng, self.parents))

    def __iter__(self) -> Iterator[T_co]:
        """The samples in order, up to the length (where a parent has none: up to the first IndexError)."""
        try:
            size = len(self)  # type: ignore[arg-type]  # a parent of no length makes it a TypeError
        except TypeError:
            size = None
        index = 0
        while size is None or index < size:
            try:
                sample = self[index]
            except IndexError:
                if size is not None:
                    raise
                return
            yield sample
            index += 1


class DerivedIterableDataset(IterableDataset[T_co]):
    """A stream that reads others, its `parents`."""

    @property
    @abstractmethod
    def parents(self) -> Sequence[Any]:
        """The datasets that this one reads."""

    @property
    def thread_safe(self) -> bool:  # type: ignore[override]
        """Whether all parents may be read by several threads at once."""
        return all(map(is_thread_safe, self.parents))

    @property
    def uses_global_rng(self) -> bool:  # type: ignore[override]
        """Whether any parent draws from a global generator."""
        return any(map(uses_global_rng, self.parents))
