"""Several datasets as one, in proportions: `mix` gives a `MixedDataset`.

Guarantee: which source a position reads is Tijdeman's choice (see `Mixture`): after any number n of positions no
source is off ``n`` times its share by as much as 1. Each source is read in its own order, from its first sample on.
What a position reads is a function of the weights and the sources' lengths; no sample is copied or kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

import numpy as np

from feedline.datasets.combine import read_grouped, read_in_bulk
from feedline.datasets.derived import DerivedDataset
from feedline.datasets.mixture import Mixture
from feedline.datasets.positions import position, positions
from feedline.protocols import is_iterable_style, length_of

if TYPE_CHECKING:
    from fractions import Fraction

__all__ = ["MixedDataset", "mix"]

T_co = TypeVar("T_co", covariant=True)
_STOPS = ("first", "all", "repeat")


def mix(
    datasets: Mapping[str, Any] | Sequence[Any],
    weights: Sequence[float | Fraction] | None = None,
    *,
    stop: Literal["first", "all", "repeat"] = "first",
) -> MixedDataset[Any]:
    """Datasets mixed by weights: at every prefix, each has its share of the samples to within less than one.

    Args:
        datasets: by name, or in a sequence, whose names are 0, 1, ...; each with a length and an index.
        weights: one a dataset, in their order: integers, floats or fractions, in any unit. None: the lengths that the
            datasets have now. A dataset of weight zero is never read. Whole numbers such as ``[7, 3]`` are held in
            less memory than ``[0.7, 0.3]`` (see `Mixture`).
        stop: where an epoch ends; the datasets in question are those of a weight that is not zero.

            - ``"first"``: before the position at which one of them would have to begin again: no sample comes twice;
            - ``"all"``: as soon as each was read whole; those that run out before begin again;
            - ``"repeat"``: after as many positions as all have samples; those that run out begin again, and those
              whose share is less than their part of the samples are not read whole.

    Returns:
        The datasets as one. A loader that shuffles draws positions from it, as from any dataset; the proportions then
        hold for the epoch, and batches have them on average. To have them in every batch, too, leave the mixed dataset
        unshuffled, over sources that are shuffled themselves (`Subset` with a permutation).

    Raises:
        ValueError: there are no datasets, the weights are not as described, one that is read has no sample, or
            ``stop`` is something else.
        TypeError: a dataset has no length or no index.

    Example:
        >>> import feedline
        >>> mixed = feedline.mix({"web": "abcdefgh", "code": [1, 2, 3]}, weights=[0.7, 0.3])
        >>> list(mixed), mixed.source_of(4)
        (['a', 1, 'b', 'c', 2, 'd', 'e', 'f', 3, 'g', 'h'], ('code', 1))
        >>> len(feedline.mix(["abcd", "xy"], weights=[1, 1], stop="all"))
        7
    """
    return MixedDataset(datasets, weights, stop=stop)


class MixedDataset(DerivedDataset[T_co]):
    """What `mix` makes, and takes the same arguments.

    The k-th time that a source comes, from 0 on, its sample k modulo its length is read. Lengths are the sources'
    present ones. The first question for the length, or for a sample, makes the choices of the epoch that can not be
    computed otherwise (see `Mixture`); they travel with the dataset to processes.

    Attributes:
        datasets: the list of datasets.
        names: their names, in the same order.
        stop: as given.

    Example:
        >>> mixed = MixedDataset({"a": range(10), "b": range(100, 110)}, [1, 1])
        >>> list(mixed)[:4], len(mixed)
        ([0, 100, 1, 101], 20)
        >>> mixed.weights = [3, 1]
        >>> list(mixed)[:4], len(mixed)
        ([0, 1, 100, 2], 13)
    """

    def __init__(
        self,
        datasets: Mapping[str, Any] | Sequence[Any],
        weights: Sequence[float | Fraction] | None = None,
        *,
        stop: Literal["first", "all", "repeat"] = "first",
    ) -> None:
        if not hasattr(datasets, "__iter__"):
            raise TypeError(
                f"datasets must be a dict of datasets by name, or a list of them, got {type(datasets).__name__}"
            )
        named: Mapping[Any, Any] = datasets if isinstance(datasets, Mapping) else dict(enumerate(datasets))
        if not named:
            raise ValueError("datasets must hold at least one dataset, got none")
        if stop not in _STOPS:
            raise ValueError(f"stop must be 'first', 'all' or 'repeat', got {stop!r}")
        for name, member in named.items():
            if is_iterable_style(member) or not hasattr(member, "__getitem__") or length_of(member) is None:
                raise TypeError(
                    f"datasets must have a length and an index, got {type(member).__name__} as {name!r}; "
                    "read a stream into a list or PackedList first"
                )
        self.names: tuple[Any, ...] = tuple(named)
        self.datasets: list[Any] = list(named.values())
        self.stop = stop
        self._known: tuple[Mixture, tuple[int, ...], int] | None = None
        if weights is None:
            weights = self._lengths()
            if not any(weights):
                raise ValueError(f"datasets must hold at least one sample, got {len(weights)} without")
        self.weights = weights

    @property
    def parents(self) -> Sequence[Any]:
        """The datasets, in order."""
        return self.datasets

    @property
    def weights(self) -> tuple[float | Fraction, ...]:
        """The weights; to be assigned between epochs, which then may be longer or shorter.

        An epoch that is under way must end first, and a state that was saved belongs to the weights of its epoch.
        """
        return cast("tuple[float | Fraction, ...]", self._mixture.weights)

    @weights.setter
    def weights(self, weights: Sequence[float | Fraction]) -> None:
        if isinstance(weights, Mapping | AbstractSet) or not hasattr(weights, "__iter__"):
            raise TypeError(
                f"weights must be one a dataset, in their order, got {type(weights).__name__}; give a list, such as "
                f"[weights[name] for name in datasets] of a dict"
            )
        mixture = Mixture(weights)
        if len(mixture.shares) != len(self.datasets):
            raise ValueError(
                f"weights must be one for each of the {len(self.datasets)} datasets {list(self.names)}, "
                f"got {len(mixture.shares)}: {list(mixture.weights)}"
            )
        _refuse_empty(mixture, self._lengths(), self.names)
        self._mixture = mixture

    def _lengths(self) -> tuple[int, ...]:
        return tuple(map(len, self.datasets))

    def __len__(self) -> int:
        return self._sized()[2]

    def _sized(self) -> tuple[Mixture, tuple[int, ...], int]:
        """The mixture, the sources' lengths and the length that follows: kept while both are the same."""
        known, mixture, lengths = self._known, self._mixture, self._lengths()
        if known is None or known[0] is not mixture or known[1] != lengths:
            _refuse_empty(mixture, lengths, self.names)
            known = self._known = mixture, lengths, _length(mixture, lengths, self.stop)
        return known

    def _found(self, index: Any) -> tuple[int, int]:
        """The source that a position reads, and the index in it."""
        mixture, lengths, size = self._sized()
        source, times = mixture.at(position(index, size))
        return source, times % lengths[source]

    def source_of(self, index: Any) -> tuple[Any, int]:
        """The name of the source that a position reads, and the index in it.

        Raises:
            IndexError: the position lies outside.
        """
        source, place = self._found(index)
        return self.names[source], place

    def __getitem__(self, index: Any) -> T_co:
        source, place = self._found(index)
        sample: T_co = self.datasets[source][place]
        return sample

    @property
    def reads_in_bulk(self) -> bool:
        """Whether `__getitems__` does more than reading one by one, and no source is the worse for it."""
        return read_in_bulk(self.datasets)

    def __getitems__(self, indices: Sequence[Any], /) -> list[T_co]:
        """The samples at ``indices``, in their order; each source is read once."""
        mixture, lengths, size = self._sized()
        sources, times = mixture.look_up(positions(indices, size))
        return read_grouped(self.datasets, sources, times % np.array(lengths, dtype=np.int64)[sources])


def _refuse_empty(mixture: Mixture, lengths: tuple[int, ...], names: tuple[Any, ...]) -> None:
    for share, length, name in zip(mixture.shares, lengths, names, strict=True):
        if share and not length:
            raise ValueError(
                f"datasets of a weight that is not zero must hold a sample, got none in {name!r}; give it weight 0"
            )


def _length(mixture: Mixture, lengths: tuple[int, ...], stop: str) -> int:
    """The positions of an epoch."""
    read = [source for source, share in enumerate(mixture.shares) if share]
    if stop == "repeat":
        return sum(lengths[source] for source in read)
    # The bounds tell for most sources that another one is first or last: a long source that ends far behind the
    # epoch's end would otherwise have all its choices made.
    if stop == "first":
        end = min(mixture.bounds(source, lengths[source])[1] for source in read)
        begun = [source for source in read if mixture.bounds(source, lengths[source])[0] <= end]
        return min(mixture.place(source, lengths[source]) for source in begun)
    end = max(mixture.bounds(source, lengths[source] - 1)[0] for source in read)
    last = [source for source in read if mixture.bounds(source, lengths[source] - 1)[1] >= end]
    return max(mixture.place(source, lengths[source] - 1) for source in last) + 1
