"""Samplers: which samples an epoch visits, in which order.

Guarantee: a `SeekableSampler` is a pure description; ``order(seed, epoch)`` gives an epoch's sequence without drawing
from any global generator. Iterating a sampler by itself, outside a loader, goes through one epoch of it and advances
to the next; its seed is then drawn once, from its ``generator`` or Python's ``random``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from feedline.checks import integer
from feedline.order.balanced import class_weights
from feedline.order.cycled import CycledOrder, Permutations
from feedline.order.indices import checked_indices, checksum, listed_indices
from feedline.order.permutation import PermutedOrder
from feedline.order.sequence import ListedOrder, MappedOrder, ReplacementOrder, SequentialOrder, StridedOrder
from feedline.order.shard import Shard, detect_shard
from feedline.order.weighted import AliasTable, WeightedDistinctOrder, WeightedOrder, check_distinct, checked_weights
from feedline.seeding import checked_seed, draw_seed, seed_from

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import ArrayLike

    from feedline.order.sequence import Order
    from feedline.protocols import Sized

__all__ = [
    "DistributedSampler",
    "RandomSampler",
    "Sampler",
    "SeekableSampler",
    "SequentialSampler",
    "SubsetRandomSampler",
    "WeightedRandomSampler",
    "known_order",
    "seekable",
]

T_co = TypeVar("T_co", covariant=True)
_BLOCK = 4096  # indices computed at a time when a sampler is iterated by itself


class Sampler(ABC, Generic[T_co]):
    """The base of a user's own sampler: define ``__iter__``, and ``__len__`` where it is known.

    The loader consumes it in order, once an epoch. With ``state_dict`` and ``load_state_dict`` it is asked for its
    state; without, a resume replays its indices.
    """

    def __init__(self, data_source: Sized | None = None) -> None:
        """Take, and ignore, what older code hands to ``super().__init__``."""

    @abstractmethod
    def __iter__(self) -> Iterator[T_co]:
        """An epoch's indices."""


class SeekableSampler(Sampler[int]):
    """The base of our samplers: an epoch's order is a pure function of (seed, epoch), readable at any position."""

    _seed: int | None = None
    _epoch: int = 0
    _requested: bool = False
    generator: Any = None
    fixed_length: bool = True
    """Whether an epoch has the same length at any batch size."""

    @property
    def epoch(self) -> int:
        """The epoch that comes next when the sampler is iterated by itself, or was asked for by `set_epoch`."""
        return self._epoch

    @property
    def name(self) -> str:
        """The kind of order, with what changes it: a state is resumed only by a sampler of the same name."""
        return type(self).__name__

    @abstractmethod
    def order(self, seed: int, epoch: int) -> Order:
        """The epoch's sequence of indices."""

    def __len__(self) -> int:
        length = self.order(0, 0).length
        if length is None:
            raise TypeError(f"{type(self).__name__} is endless and has no len()")
        return length

    def __iter__(self) -> Iterator[int]:
        if self._seed is None:
            self._seed = draw_seed() if self.generator is None else seed_from(self.generator)
        order = self.order(self._seed, self._epoch)
        self._epoch += 1
        self._requested = False
        yield from self._items(order)

    def _items(self, order: Order) -> Iterator[Any]:
        """What iterating gives of an epoch."""
        start = 0
        while order.length is None or start < order.length:
            stop = start + _BLOCK if order.length is None else min(start + _BLOCK, order.length)
            yield from order.take(start, stop).tolist()
            start = stop

    def set_epoch(self, epoch: int) -> None:
        """Make ``epoch`` the next one; without this call each iteration takes the one after the last."""
        self._epoch = checked_seed(epoch, "epoch")
        self._requested = True

    def requested_epoch(self) -> int | None:
        """The epoch that `set_epoch` asked for since the last iteration; asking takes the request back."""
        requested, self._requested = self._requested, False
        return self._epoch if requested else None


class SequentialSampler(SeekableSampler):
    """Every index in order: 0, 1, … up to the length of ``data_source`` (anything with a length).

    Example:
        >>> list(SequentialSampler("abc"))
        [0, 1, 2]
    """

    def __init__(self, data_source: Sized) -> None:
        self.data_source = data_source

    def __len__(self) -> int:
        return len(self.data_source)

    def order(self, seed: int, epoch: int) -> Order:  # noqa: ARG002 -- the same at every seed and epoch
        """Every index, in order."""
        return SequentialOrder(len(self.data_source))


class RandomSampler(SeekableSampler):
    """Indices in random order, O(1) in memory whatever the length.

    Args:
        data_source: anything with a length.
        replacement: draw each index independently instead of visiting each once.
        num_samples: how many to draw; without replacement more than the length begins further passes.
            None: as many as there are.
        generator: a ``numpy.random.Generator``, ``random.Random`` or ``torch.Generator`` from which the seed is drawn
            when neither the loader nor a state gives one.

    Raises:
        ValueError: ``num_samples`` is not a positive integer, or ``data_source`` is empty.

    Example:
        >>> import random
        >>> sorted(RandomSampler(range(5), generator=random.Random(0)))
        [0, 1, 2, 3, 4]
    """

    def __init__(
        self,
        data_source: Sized,
        replacement: bool = False,  # noqa: FBT001, FBT002 -- torch's signature
        num_samples: int | None = None,
        generator: Any = None,
    ) -> None:
        if not isinstance(replacement, bool):
            raise TypeError(f"replacement must be True or False, got {replacement!r}")
        self.data_source = data_source
        self.replacement = replacement
        self._num_samples = None if num_samples is None else integer("num_samples", num_samples, least=1)
        self.generator = generator
        if len(data_source) == 0:
            raise ValueError("num_samples=0: shuffling needs at least one sample, and data_source is empty")

    @property
    def name(self) -> str:
        """With replacement, and with a number of samples of its own, that and the population."""
        population = f"population={len(self.data_source)}"
        if self.replacement:
            return f"RandomSampler(replacement=True, {population})"
        return "RandomSampler" if self._num_samples is None else f"RandomSampler({population})"

    @property
    def num_samples(self) -> int:
        """How many indices an epoch has."""
        return len(self.data_source) if self._num_samples is None else self._num_samples

    def __len__(self) -> int:
        return self.num_samples

    def order(self, seed: int, epoch: int) -> Order:
        """A permutation, independent draws, or as many permutations as ``num_samples`` needs."""
        population = len(self.data_source)
        if self.replacement:
            return ReplacementOrder(population, self.num_samples, seed, epoch)
        if self.num_samples == population:
            return PermutedOrder(population, seed, epoch)
        return CycledOrder(Permutations(population, seed, epoch), population, self.num_samples)


class SubsetRandomSampler(SeekableSampler):
    """The given indices in random order.

    Args:
        indices: a sequence or one-dimensional array of integers.
        generator: as in `RandomSampler`.

    Example:
        >>> sorted(SubsetRandomSampler([7, 3, 5]))
        [3, 5, 7]
    """

    def __init__(self, indices: Sequence[int], generator: Any = None) -> None:
        self.indices = indices
        self.generator = generator
        self._values = checked_indices(indices)

    def __len__(self) -> int:
        return len(self._values)

    @property
    def name(self) -> str:
        """With a checksum of the indices."""
        return f"SubsetRandomSampler({checksum(self._values)})"

    def order(self, seed: int, epoch: int) -> Order:
        """The indices, permuted."""
        return MappedOrder(self._values, PermutedOrder(len(self._values), seed, epoch))


class WeightedRandomSampler(SeekableSampler):
    """Index i is drawn with probability ``weights[i] / sum(weights)``.

    With replacement by an alias table, built once in O(N); without, by sorting Exp(1) / weight, one O(N) pass an epoch.
    Any number of weights up to memory; ``weights`` is then their copy, read-only: other weights are another sampler's.

    Args:
        weights: shape (N,), kept as float64, not negative, not all zero.
        num_samples: how many indices an epoch has.
        replacement: whether an index may be drawn again.
        generator: as in `RandomSampler`.

    Raises:
        ValueError: a weight is negative, NaN or infinite, all are zero, ``num_samples`` is not a positive integer, or
            without replacement exceeds the number of positive weights.

    Example:
        >>> import random
        >>> list(WeightedRandomSampler([0, 1, 0], 4, generator=random.Random(0)))
        [1, 1, 1, 1]
    """

    def __init__(
        self,
        weights: ArrayLike,
        num_samples: int,
        replacement: bool = True,  # noqa: FBT001, FBT002 -- torch's signature
        generator: Any = None,
    ) -> None:
        if not isinstance(replacement, bool):
            raise ValueError(f"replacement must be True or False, got {replacement!r}")  # noqa: TRY004 -- as torch
        self.num_samples = integer("num_samples", num_samples, least=1)
        self.replacement = replacement
        self.generator = generator
        self.weights = checked_weights(weights)
        self.weights.flags.writeable = False
        if not replacement:
            check_distinct(self.num_samples, self.weights, "num_samples")
        self._table = AliasTable(self.weights) if replacement else None
        self._name = f"WeightedRandomSampler({checksum(self.weights)}, replacement={replacement})"

    @classmethod
    def balanced(
        cls,
        labels: Any,
        num_samples: int | None = None,
        replacement: bool = True,  # noqa: FBT001, FBT002 -- as where weights are given
        generator: Any = None,
    ) -> Self:
        """A sampler that draws each class equally often: a sample weighs 1 / (samples of its class).

        Without replacement small classes are used up early; an epoch of all samples is then a weighted shuffle.

        Args:
            labels: one a sample, shape (N,): an array, or a sequence of hashables. Equal labels are one class.
            num_samples: how many indices an epoch has; None: as many as there are labels.
            replacement: as above.
            generator: as above.

        Raises:
            ValueError: there is no label, labels are not one-dimensional or not hashable, or as above.

        Example:
            >>> WeightedRandomSampler.balanced(["cat", "dog", "dog"]).weights
            array([1. , 0.5, 0.5])
        """
        weights = class_weights(labels)
        return cls(weights, len(weights) if num_samples is None else num_samples, replacement, generator)

    @property
    def name(self) -> str:
        """With a checksum of the weights, and with whether they are drawn with replacement."""
        return self._name

    def __len__(self) -> int:
        return self.num_samples

    def order(self, seed: int, epoch: int) -> Order:
        """Draws keyed by position, or the first ``num_samples`` of the weighted shuffle."""
        if self._table is not None:
            return WeightedOrder(self._table, self.num_samples, seed, epoch)
        return WeightedDistinctOrder(self.weights, self.num_samples, seed, epoch)


class DistributedSampler(SeekableSampler):
    """One rank's share of a dataset: indices rank, rank + num_replicas, … of the epoch's order.

    The order is shuffled by (seed, epoch), the same on all ranks, and made divisible by repeating its beginning, or
    with ``drop_last`` by leaving out its end. The epoch advances by itself; `set_epoch` sets it.

    Args:
        dataset: anything with a length.
        num_replicas: how many ranks there are; None asks the environment (see `Shard`).
        rank: this rank; None asks the environment.
        shuffle: whether to shuffle.
        seed: the same number on all ranks. A loader's own seed does not replace it.
        drop_last: leave out what does not divide evenly.

    Raises:
        ValueError: rank is not in [0, num_replicas).

    Example:
        >>> [list(DistributedSampler(range(5), 2, rank, shuffle=False)) for rank in (0, 1)]
        [[0, 2, 4], [1, 3, 0]]
    """

    def __init__(
        self,
        dataset: Sized,
        num_replicas: int | None = None,
        rank: int | None = None,
        shuffle: bool = True,  # noqa: FBT001, FBT002 -- torch's signature
        seed: int = 0,
        drop_last: bool = False,  # noqa: FBT001, FBT002 -- torch's signature
    ) -> None:
        if num_replicas is None or rank is None:
            found = detect_shard()
            num_replicas = found.world_size if num_replicas is None else num_replicas
            rank = found.rank if rank is None else rank
        shard = Shard(rank, num_replicas)
        self.dataset = dataset
        self.num_replicas = shard.world_size
        self.rank = shard.rank
        self.shuffle = shuffle
        self.seed = checked_seed(seed)
        self.drop_last = drop_last
        self._seed = self.seed

    @property
    def name(self) -> str:
        """With all that changes the order of this rank."""
        kind = "shuffled" if self.shuffle else "sequential"
        return f"DistributedSampler({kind}, seed={self.seed}, num_replicas={self.num_replicas})"

    @property
    def num_samples(self) -> int:
        """How many indices this rank has in an epoch."""
        length = len(self.dataset)
        return length // self.num_replicas if self.drop_last else -(-length // self.num_replicas)

    @property
    def total_size(self) -> int:
        """How many indices all ranks have together."""
        return self.num_samples * self.num_replicas

    def __len__(self) -> int:
        return self.num_samples

    def order(self, seed: int, epoch: int) -> Order:  # noqa: ARG002 -- ranks must agree: its own seed counts
        """This rank's indices."""
        length = len(self.dataset)
        whole = PermutedOrder(length, self.seed, epoch) if self.shuffle else SequentialOrder(length)
        return StridedOrder(whole, self.total_size, self.rank, self.num_replicas)


def seekable(sampler: object) -> SeekableSampler | None:
    """The sampler itself if it is ours and its ``__iter__`` is not overridden, which would be the user's word."""
    if isinstance(sampler, SeekableSampler) and type(sampler).__iter__ is SeekableSampler.__iter__:
        return sampler
    return None


def known_order(sampler: object, seed: int, epoch: int) -> Order | None:
    """The epoch's order where it is known beforehand: for our samplers and for sequences of integers. Else None."""
    ours = seekable(sampler)
    if ours is not None:
        return ours.order(seed, epoch)
    values = listed_indices(sampler)
    return None if values is None else ListedOrder(values)
