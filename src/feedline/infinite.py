"""The endless loader: epochs of a chosen number of full batches, cut from passes over the data laid end to end.

Guarantee (contracts 1 to 3): with ``reshuffle="pass"`` all virtual epochs are stretches of one sequence, a function of
seed and sampler only, so that a run that is resumed, on any number of ranks and with any batch size, goes on in it with
nothing lost or repeated. With ``"virtual_epoch"`` that holds within each virtual epoch.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, get_args

from feedline.checks import integer
from feedline.course import Source
from feedline.errors import DatasetChanged
from feedline.loader import DataLoader
from feedline.order.batched import BatchOrder, SeekableBatchSampler, samples_of
from feedline.order.batches import cuts_alone
from feedline.order.cursor import NAME_LENGTH
from feedline.order.cycled import CycledCuts, CycledOrder
from feedline.order.passes import Passes, pass_order
from feedline.order.samplers import DistributedSampler, seekable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from feedline.order.cursor import Cursor
    from feedline.order.sequence import Order

__all__ = ["InfiniteDataLoader"]

T_co = TypeVar("T_co", covariant=True)
_Reshuffle = Literal["pass", "virtual_epoch"]


class InfiniteDataLoader(DataLoader[T_co]):
    """A dataset as a stream of full batches that never ends, ``batches_per_epoch`` at a time.

    Each loop gives exactly so many batches, a *virtual epoch*, on each rank; the next loop goes on where it ended.
    Batches cross the border of a pass over the data and stay full: ``drop_last`` and the end of a `Shard` have nothing
    to do. A loop that is left early, by ``break``, is over: the next one begins the next virtual epoch, as with a
    `DataLoader`. `plan`, `set_epoch` and the state count virtual epochs. Augmentation is keyed by seed, virtual epoch,
    position and index, and a failed sample's replacement drawn from the epoch of that number of a `DataLoader`.

    A state resumes with another batch size or number of ranks: a new stretch of ``batches_per_epoch`` begins there.
    With another ``batches_per_epoch`` the virtual epoch ends as if it had always been that, at once where more were
    delivered.

    Args:
        dataset: anything with ``__getitem__`` and ``__len__``.
        batch_size: as in `DataLoader`, and so are all arguments that are not listed here.
        shuffle: whether each pass has a random order.
        sampler: one of feedline's samplers, or an iterable of integers with a length, the same in all passes. One of
            your own is read through at the beginning of each pass, and its indices held; it is told the pass by
            ``set_epoch``, if it has that, and must yield the same when it is told the same again, as after a resume.
        batch_sampler: a `BatchSampler` or `StratifiedBatchSampler`, over such a one.
        arguments: further positional arguments of `DataLoader`.
        batches_per_epoch: batches in a virtual epoch on each rank. None: a loop does not end by itself. After ``break``
            the next one goes on behind the last batch delivered.
        reshuffle: ``"pass"``: pass p over the data is epoch p of a `DataLoader` of the same sampler and seed, and
            virtual epochs are cut from these passes laid end to end: every sample comes once a pass.
            ``"virtual_epoch"``: each virtual epoch begins passes of its own, the first of them that epoch of a
            `DataLoader`.
        more: further arguments of `DataLoader`, by name.

    Raises:
        ValueError: ``batches_per_epoch``, ``reshuffle`` or an argument of `DataLoader` is out of range, or there is no
            sample.
        TypeError: the dataset is a stream, the sampler has no length, or the batch sampler is none of feedline's.

    Example:
        >>> loader = InfiniteDataLoader(range(5), batch_size=2, batches_per_epoch=3)
        >>> [[batch.tolist() for batch in loader] for _ in range(2)]
        [[[0, 1], [2, 3], [4, 0]], [[1, 2], [3, 4], [0, 1]]]
    """

    def __init__(  # noqa: PLR0913 -- torch's signature
        self,
        dataset: Any,
        batch_size: int | None = 1,
        shuffle: bool | None = None,  # noqa: FBT001 -- torch's signature
        sampler: Iterable[Any] | None = None,
        batch_sampler: Iterable[Any] | None = None,
        *arguments: Any,
        batches_per_epoch: int | None = None,
        reshuffle: _Reshuffle = "pass",
        **more: Any,
    ) -> None:
        if batches_per_epoch is not None:
            batches_per_epoch = integer("batches_per_epoch", batches_per_epoch, least=1)
        if reshuffle not in get_args(_Reshuffle):
            raise ValueError(f"reshuffle must be 'pass' or 'virtual_epoch', got {reshuffle!r}")
        self.batches_per_epoch = batches_per_epoch
        self.reshuffle = reshuffle
        super().__init__(dataset, batch_size, shuffle, sampler, batch_sampler, *arguments, **more)

    def _wire(self) -> None:
        source, size = self._source, self._geometry.batch_size
        batches = source.sampler
        if source.batches and cuts_alone(batches):
            source, size = replace(source, sampler=batches.sampler, batches=False), batches.batch_size
        self._source = _EndlessSource.of(source, self.batches_per_epoch, self.reshuffle)
        self._geometry = replace(self._geometry, batch_size=size, drop_last=True)  # there is no last one
        super()._wire()

    def __len__(self) -> int:
        """How many batches a virtual epoch has on each rank.

        Raises:
            TypeError: a loop does not end.
        """
        if self.batches_per_epoch is None:
            raise TypeError(
                "an InfiniteDataLoader has no length with batches_per_epoch=None: a loop over it does not end; "
                "give the number of batches after which it shall"
            )
        return self.batches_per_epoch

    def _facts(self) -> dict[str, str]:
        number = self.batches_per_epoch
        return super()._facts() | {"batches": "endless" if number is None else f"{number:,} a virtual epoch"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _EndlessSource(Source):
    """Where an endless sequence comes from.

    Attributes:
        batches_per_epoch: of a virtual epoch, on each rank; None: there is one without end.
        reshuffle: when a fresh order begins.
        population: how many positions a pass has; None: the first has no end.
        passes: the orders of passes.
    """

    batches_per_epoch: int | None
    reshuffle: _Reshuffle
    population: int | None
    passes: Passes = field(repr=False, compare=False)

    @classmethod
    def of(cls, source: Source, batches_per_epoch: int | None, reshuffle: _Reshuffle) -> Self:
        """The same source, without end.

        Raises:
            ValueError, TypeError: it cannot be repeated.
        """
        if source.is_stream:
            raise TypeError(
                "InfiniteDataLoader needs a dataset with __getitem__, got a stream, which only its own end ends; let "
                "its __iter__ go on for ever, and use a DataLoader"
            )
        first = None if source.batches else pass_order(source.sampler, 0, 0)
        if first is None:
            rule = "batch_sampler must be a feedline.BatchSampler over" if source.batches else "sampler must be"
            raise TypeError(
                f"{rule} an iterable with a length for an InfiniteDataLoader, got {type(source.sampler).__name__}; "
                f"give it __len__, as sampler=, or let its __iter__ go on for ever and use a DataLoader"
            )
        if first.length == 0:
            raise ValueError(
                "an InfiniteDataLoader needs a dataset, or sampler, of at least one sample, got none: passes over it "
                "would never fill a batch"
            )
        if reshuffle == "virtual_epoch" and isinstance(source.sampler, DistributedSampler) and source.sampler.shuffle:
            raise ValueError(
                "reshuffle='virtual_epoch' is mutually exclusive with a DistributedSampler, whose own seed gives all "
                "passes of a virtual epoch the same order; use shuffle=True and shard=(rank, world_size)"
            )
        return cls(
            source.sampler,
            batches=False,
            generator=source.generator,
            is_divided=source.is_divided,
            batches_per_epoch=batches_per_epoch,
            reshuffle=reshuffle,
            population=first.length,
            passes=Passes(source.sampler),
        )

    @property
    def name(self) -> str:
        """With what shapes the sequence, so that only an endless loader of the same passes resumes a state."""
        ours = seekable(self.sampler)
        inner = type(self.sampler).__name__ if ours is None else ours.name
        kind = f"Infinite({self.reshuffle}, population={self.population}, "
        if len(kind) + len(inner) >= NAME_LENGTH:
            inner = f"crc32={zlib.crc32(inner.encode()):08x}"
        return f"{kind}{inner})"

    @property
    def length(self) -> int | None:
        """Nothing: where an epoch ends depends on where it began."""
        return None

    def order(self, seed: int, epoch: int) -> Order | BatchOrder | None:
        """The pass of that number."""
        if isinstance(self.sampler, SeekableBatchSampler):
            return super(_EndlessSource, self).order(seed, epoch)
        return pass_order(self.sampler, seed, epoch)

    def sequence(self, order: Order | BatchOrder, cursor: Cursor) -> Order | BatchOrder:
        """The passes end to end, up to where the cursor's virtual epoch ends.

        Raises:
            DatasetChanged: there is another number of samples than when the loader was built.
        """
        found = samples_of(order).length
        if found != self.population:
            raise DatasetChanged(
                f"a pass had {self.population} samples when the loader was built and has {found} now: the "
                f"passes of an InfiniteDataLoader are one sequence; build another loader"
            )
        seed = cursor.seed or 0
        passes: Callable[[int], Any] = partial(self.passes.endless, seed)
        if self.reshuffle == "virtual_epoch":
            passes = partial(self.passes.virtual, seed, cursor.epoch)
        end = self._end(cursor)
        if isinstance(order, BatchOrder):
            assert self.population is not None
            assert order.length is not None
            return BatchOrder(CycledCuts(passes, self.population, order.length, end))
        return CycledOrder(passes, self.population, end)

    def _end(self, cursor: Cursor) -> int | None:
        """Where a virtual epoch ends: not before what was delivered of it, when it was longer."""
        if self.batches_per_epoch is None:
            return None
        return max(cursor.origin + self.batches_per_epoch * cursor.span, cursor.position)

    def beginning(self, epoch: int, present: Cursor | None, span: int) -> int:
        """Where a virtual epoch begins: so many batches after the present one's end, or before its beginning."""
        if self.reshuffle == "virtual_epoch":
            return 0
        if self.batches_per_epoch is None:
            if present is None or epoch < present.epoch:
                return 0
            return present.origin if epoch == present.epoch else present.position
        size = self.batches_per_epoch * span
        if present is None:
            return epoch * size
        if epoch > present.epoch:
            end = self._end(present)
            assert end is not None
            return end + (epoch - present.epoch - 1) * size
        begin = present.origin - (present.epoch - epoch) * size
        return begin if begin >= 0 else epoch * size
