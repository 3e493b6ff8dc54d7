"""Several datasets as one: `StackDataset` side by side, `ConcatDataset` (streams: `ChainDataset`) end to end.

Guarantee: no sample is copied or kept; lengths are the members' present ones; a batch is read from the
members in bulk where that gives what reading sample by sample gives.
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from feedline.datasets.derived import DerivedDataset, DerivedIterableDataset
from feedline.datasets.positions import position, positions
from feedline.protocols import gather_of, getitems_of, is_iterable_style, is_plain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

__all__ = ["ChainDataset", "ConcatDataset", "StackDataset", "read_grouped", "read_in_bulk", "read_samples"]

T_co = TypeVar("T_co", covariant=True)


class StackDataset(DerivedDataset[Any]):
    """Datasets of equal length side by side: sample ``i`` holds sample ``i`` of each.

    Args:
        *args: the datasets; samples are tuples.
        **kwargs: the datasets by name instead; samples are dicts.

    Attributes:
        datasets: the tuple, or the dict, of datasets.

    Raises:
        ValueError: there are none, some are named and some not, or their lengths differ.
        TypeError: one is a stream.

    Example:
        >>> from feedline import StackDataset
        >>> StackDataset(image=["a", "b"], label=[0, 1])[-1]
        {'image': 'b', 'label': 1}
        >>> StackDataset(["a", "b"], [0, 1])[0]
        ('a', 0)
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if args and kwargs:
            raise ValueError(
                "StackDataset takes datasets either by position or by name, "
                f"got {len(args)} by position and {len(kwargs)} by name"
            )
        if not args and not kwargs:
            raise ValueError("StackDataset needs at least one dataset, got none")
        self.datasets: tuple[Any, ...] | dict[str, Any] = args or kwargs
        for member in self.parents:
            _refuse_stream(member, "StackDataset")
        len(self)

    @property
    def parents(self) -> Sequence[Any]:
        """The datasets, in order."""
        return list(self.datasets.values()) if isinstance(self.datasets, dict) else self.datasets

    def __len__(self) -> int:
        sizes = [len(member) for member in self.parents]
        if any(size != sizes[0] for size in sizes):
            raise ValueError(f"All datasets must have same length, got {', '.join(map(str, sizes))}")
        return sizes[0]

    def _combined(self, parts: Iterable[Any]) -> Any:
        return dict(zip(self.datasets, parts, strict=True)) if isinstance(self.datasets, dict) else tuple(parts)

    def __getitem__(self, index: Any) -> Any:
        place = position(index, len(self))
        return self._combined(member[place] for member in self.parents)

    @property
    def reads_in_bulk(self) -> bool:
        """Whether `__getitems__` does more than reading one by one, and no member is the worse for it."""
        return read_in_bulk(self.parents)

    def __getitems__(self, indices: Sequence[Any], /) -> list[Any]:
        """The samples at ``indices``, in their order."""
        places = positions(indices, len(self)).tolist()
        columns = [read_samples(member, places) for member in self.parents]
        return [self._combined(parts) for parts in zip(*columns, strict=True)]

    @property
    def gather(self) -> Callable[..., Any] | None:
        """Reads a batch at once, as `feedline.protocols.Gathers` says; None unless every member can.

        The batch is a tuple or dict of the members' batches.
        """
        gathers = [gather for member in self.parents if (gather := gather_of(member))]
        if len(gathers) < len(self.datasets):
            return None

        def gather_members(indices: Any, out: Any = None, /) -> Any:
            if out is None:
                return self._combined(gather(indices, None) for gather in gathers)
            places = [out[name] for name in self.datasets] if isinstance(self.datasets, dict) else out
            return self._combined(gather(indices, place) for gather, place in zip(gathers, places, strict=True))

        return gather_members


class ConcatDataset(DerivedDataset[T_co]):
    """Datasets end to end: the samples of the first, then of the second, and so on.

    Args:
        datasets: at least one; each with a length, none a stream (see `ChainDataset`).

    Attributes:
        datasets: the list of datasets.

    Raises:
        ValueError: there are none.
        TypeError: one is a stream, or has no length.

    Example:
        >>> from feedline import ConcatDataset
        >>> both = ConcatDataset([["a", "b"], ["c"]])
        >>> list(both), both[-1], both.cumulative_sizes
        (['a', 'b', 'c'], 'c', [2, 3])
    """

    def __init__(self, datasets: Iterable[Any]) -> None:
        self.datasets = list(datasets)
        if not self.datasets:
            raise ValueError("ConcatDataset needs at least one dataset, got none")
        for member in self.datasets:
            _refuse_stream(member, "ConcatDataset")
        len(self)

    @property
    def parents(self) -> Sequence[Any]:
        """The datasets, in order."""
        return self.datasets

    @property
    def cumulative_sizes(self) -> list[int]:
        """For each dataset the position after its last sample."""
        return list(accumulate(map(len, self.datasets)))

    def __len__(self) -> int:
        return sum(map(len, self.datasets))

    def __getitem__(self, index: Any) -> T_co:
        ends = self.cumulative_sizes
        place = position(index, ends[-1])
        member = bisect_right(ends, place)
        sample: T_co = self.datasets[member][place - (ends[member - 1] if member else 0)]
        return sample

    @property
    def reads_in_bulk(self) -> bool:
        """Whether `__getitems__` does more than reading one by one, and no member is the worse for it."""
        return read_in_bulk(self.datasets)

    def __getitems__(self, indices: Sequence[Any], /) -> list[T_co]:
        """The samples at ``indices``, in their order."""
        starts = [0, *self.cumulative_sizes]
        places = positions(indices, starts[-1])
        owners = np.searchsorted(starts, places, side="right") - 1
        return read_grouped(self.datasets, owners, places - np.asarray(starts)[owners])


class ChainDataset(DerivedIterableDataset[T_co]):
    """Streams end to end; each is opened when the one before has ended.

    Args:
        datasets: iterable-style datasets: for those with an index there is `ConcatDataset`.

    Attributes:
        datasets: the list of streams.

    Raises:
        TypeError: one is no stream.

    Example:
        >>> from feedline import ChainDataset, IterableDataset
        >>> class Count(IterableDataset):
        ...     def __iter__(self):
        ...         return iter(range(2))
        >>> list(ChainDataset([Count(), Count()]))
        [0, 1, 0, 1]
    """

    def __init__(self, datasets: Iterable[Any]) -> None:
        self.datasets = list(datasets)
        for place, member in enumerate(self.datasets):
            if not is_iterable_style(member):
                raise TypeError(
                    f"ChainDataset takes iterable-style datasets, got {type(member).__name__} "
                    f"at place {place}; use ConcatDataset for datasets with an index"
                )

    @property
    def parents(self) -> Sequence[Any]:
        """The streams, in order."""
        return self.datasets

    def __iter__(self) -> Iterator[T_co]:
        for member in self.datasets:
            yield from member

    def __len__(self) -> int:
        """The sum of the lengths; a TypeError where a stream has none."""
        return sum(map(len, self.datasets))


def _refuse_stream(member: object, name: str) -> None:
    if is_iterable_style(member):
        raise TypeError(
            f"{name} takes datasets with an index, got the iterable-style {type(member).__name__}; "
            "use ChainDataset for streams"
        )


def read_in_bulk(members: Iterable[Any]) -> bool:
    """Whether a member has ``__getitems__`` and each other one yields the same in bulk as one by one.

    Containers, arrays and columnar datasets do. Any other may draw random numbers, which are keyed by sample
    only as long as samples are read one by one.
    """
    own = [getitems_of(member) is not None for member in members]
    return any(own) and all(
        has or is_plain(member) or gather_of(member) is not None for member, has in zip(members, own, strict=True)
    )


def read_grouped(members: Sequence[Any], owners: NDArray[np.int64], places: NDArray[np.int64]) -> list[Any]:
    """Sample ``places[i]`` of member ``owners[i]``, for each i in order; each member is read once."""
    samples: dict[int, Any] = {}
    for owner in np.unique(owners).tolist():
        mine = np.flatnonzero(owners == owner)
        samples.update(zip(mine.tolist(), read_samples(members[owner], places[mine].tolist()), strict=True))
    return [samples[place] for place in range(len(places))]


def read_samples(member: Any, places: list[int]) -> Sequence[Any]:
    """The member's samples at ``places``, in their order: in bulk if it does that."""
    read = getitems_of(member)
    if read is None:
        return [member[place] for place in places]
    samples = read(places)
    if len(samples) != len(places):
        raise ValueError(
            f"Nested dataset's output size mismatch. Expected {len(places)}, got {len(samples)} "
            f"from {type(member).__name__}.__getitems__"
        )
    return samples
