"""Datasets made of others: what they may promise follows from what their parents promise.

Guarantee: read anew each time, so that a parent that changes its promise, or is replaced, is heard.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, TypeVar

from feedline.datasets.base import Dataset, IterableDataset
from feedline.protocols import is_thread_safe, uses_global_rng

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Derived", "DerivedDataset", "DerivedIterableDataset"]

T_co = TypeVar("T_co", covariant=True)


class Derived(ABC):
    """Whatever reads other datasets, its `parents`; it stands before the class of dataset that it is."""

    @property
    @abstractmethod
    def parents(self) -> Sequence[Any]:
        """The datasets that this one reads, in order."""

    @property
    def thread_safe(self) -> bool:
        """Whether all parents may be read by several threads at once."""
        return all(map(is_thread_safe, self.parents))

    @property
    def uses_global_rng(self) -> bool:
        """Whether any parent draws from a global generator."""
        return any(map(uses_global_rng, self.parents))


# The bases declare variables, which a subclass of the user's sets; here nobody sets them.
class DerivedDataset(Derived, Dataset[T_co]):  # type: ignore[override]
    """A dataset that reads others, its `parents`."""


class DerivedIterableDataset(Derived, IterableDataset[T_co]):  # type: ignore[override]
    """A stream that reads others, its `parents`."""
