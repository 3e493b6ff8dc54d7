"""The seams, as protocols: what a dataset, a sampler and a stateful sampler are, by structure alone.

Guarantee: whoever asks is answered by looking: no sample is read, nothing is drawn or changed. A list, a NumPy array, a
torch or a Hugging Face dataset satisfies the protocols without a wrapper.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from feedline.checks import integer
from feedline.frameworks import is_array

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "Gathers",
    "Indexed",
    "Sized",
    "Stateful",
    "gather_of",
    "getitems_of",
    "is_iterable_style",
    "is_plain",
    "is_sharded",
    "is_thread_safe",
    "length_of",
    "shard_count",
    "uses_global_rng",
]

_PLAIN = frozenset({list, tuple, range, str, bytes, dict})


@runtime_checkable
class Indexed(Protocol):
    """A map-style dataset: ``dataset[index] -> sample``."""

    def __getitem__(self, index: Any, /) -> Any: ...


@runtime_checkable
class Sized(Protocol):
    """Whatever has a length."""

    def __len__(self) -> int: ...


@runtime_checkable
class Gathers(Protocol):
    """A columnar dataset: it fills a whole batch at once."""

    def gather(self, indices: NDArray[np.int64], out: Any = None, /) -> Any:
        """The batch that `default_collate` would make of the samples at ``indices``.

        ``indices`` is one-dimensional; negative ones count from the end. ``out`` is None or a batch of the same
        structure, shapes and dtypes to be filled and returned.
        """


@runtime_checkable
class Stateful(Protocol):
    """A user's sampler that saves and restores itself."""

    def state_dict(self) -> Any:
        """What is needed to go on, as JSON values."""

    def load_state_dict(self, state: Any, /) -> None:
        """Go on from ``state``."""


def length_of(dataset: Any) -> int | None:
    """The length, or None where there is none: a wrapper has ``__len__`` even if what it wraps has none.

    Example:
        >>> length_of([1, 2]), length_of(iter([1, 2]))
        (2, None)
    """
    try:
        return len(dataset)
    except (TypeError, NotImplementedError):
        return None


def is_iterable_style(dataset: object) -> bool:
    """Whether a dataset is read by iterating it rather than by index.

    True for our and torch's ``IterableDataset`` (torch's inherits a ``__getitem__`` that only raises, hence the look at
    the class's name instead of an import of torch), and for whatever has ``__iter__`` but no ``__getitem__``.

    Example:
        >>> is_iterable_style([1, 2]), is_iterable_style(iter([1, 2]))
        (False, True)
    """
    if any(cls.__name__ == "IterableDataset" for cls in type(dataset).__mro__):
        return True
    return not hasattr(dataset, "__getitem__") and hasattr(dataset, "__iter__")


def is_sharded(dataset: object) -> bool:
    """Whether a stream consists of shards that can be read each by itself: ``shards()`` and ``iter_shard(i)``.

    Example:
        >>> is_sharded(iter([1, 2]))
        False
    """
    return callable(getattr(dataset, "shards", None)) and callable(getattr(dataset, "iter_shard", None))


def shard_count(dataset: Any) -> int:
    """How many shards a stream has.

    Raises:
        ValueError: its ``shards()`` is neither a non-negative integer nor of any length.
    """
    shards = dataset.shards()
    length = None if isinstance(shards, str) else length_of(shards)
    return integer("dataset.shards()", shards, least=0) if length is None else length


def gather_of(dataset: object) -> Callable[..., Any] | None:
    """The dataset's ``gather(indices, out=None)`` (see `Gathers`), or None where it has none.

    Arrays have none: a torch tensor's method of that name is something else.

    Example:
        >>> gather_of([1, 2]) is None
        True
    """
    if is_array(dataset):
        return None
    gather = getattr(dataset, "gather", None)  # a combinator's is None when a member has none
    return gather if callable(gather) else None


def getitems_of(dataset: object) -> Callable[[Sequence[Any]], Sequence[Any]] | None:
    """The dataset's ``__getitems__``, or None where it has none that reads many samples at once.

    It takes indices and returns their samples in that order; random draws in it are keyed by the first of them.
    torch's combinators, and ours (``reads_in_bulk`` tells), have one even over a dataset that has none; reading by it
    would then change nothing but the key of the random draws, which would be the batch's instead of each sample's.

    Example:
        >>> getitems_of([1, 2]) is None
        True
    """
    getitems = getattr(dataset, "__getitems__", None)
    if not callable(getitems) or getattr(dataset, "reads_in_bulk", True) is False:
        return None
    if type(dataset).__module__ == "torch.utils.data.dataset":
        members = getattr(dataset, "datasets", None)
        members = [getattr(dataset, "dataset", None)] if members is None else members
        parts = members.values() if isinstance(members, dict) else members
        if any(getitems_of(part) is None for part in parts):
            return None
    reads: Callable[[Sequence[Any]], Sequence[Any]] = getitems
    return reads


def is_thread_safe(dataset: object) -> bool:
    """Whether several threads may read the dataset: containers and arrays yes, else by ``thread_safe``.

    Example:
        >>> is_thread_safe([1, 2]), is_thread_safe(object())
        (True, False)
    """
    return is_plain(dataset) or bool(getattr(dataset, "thread_safe", False))


def uses_global_rng(dataset: object) -> bool:
    """Whether reading draws from a global generator: containers and arrays no, else by ``uses_global_rng``.

    Example:
        >>> uses_global_rng([1, 2]), uses_global_rng(object())
        (False, True)
    """
    return not is_plain(dataset) and bool(getattr(dataset, "uses_global_rng", True))


def is_plain(dataset: object) -> bool:
    """A container of Python's or an array; a subclass of a container may do anything when it is read."""
    return type(dataset) in _PLAIN or is_array(dataset)
