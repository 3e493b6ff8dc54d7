"""The plan: which samples make up batch number ``step`` of an epoch, on this rank.

Guarantee (contract 1): everything here is a pure function of the order, the geometry (batch size, shard, end) and the
origin, the global position at which this geometry began. Nothing starts a thread, opens a file, or reads or changes
random state. Batches are consecutive cuts of the epoch's one sequence; cut number ``step * world_size + rank`` is this
rank's, so that the sequence knows neither batch size nor world.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar, overload

import numpy as np

from feedline.order.batched import BatchOrder
from feedline.order.sequence import take_spans
from feedline.order.shard import Shard

if TYPE_CHECKING:
    from collections.abc import Container, Iterator

    from numpy.typing import NDArray

    from feedline.order.sequence import Order

__all__ = ["BatchPlan", "Batches", "Cut", "Dealer", "EpochPlan", "Geometry", "Passing", "Unplanned"]

T = TypeVar("T")
_PLANNED_AT_ONCE = 16
_INDICES_AT_ONCE = 1 << 16  # half a MiB


@dataclass(frozen=True, slots=True, eq=False)
class BatchPlan:
    """What one batch is made of.

    Attributes:
        epoch: the epoch, from 0.
        step: the batch's number on this rank, counted from the origin of the present geometry.
        indices: what the dataset is asked for, in order: int64, shape (batch,), read-only, for built-in samplers and
            sequences of integers; a list of whatever a user's sampler yields.
        position: the global position of the first of them in the epoch's sequence; the others follow one by one.
        until: the global position up to which the epoch is done once all ranks have delivered this step.
    """

    epoch: int
    step: int
    indices: NDArray[np.int64] | Sequence[Any]
    position: int
    until: int

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, BatchPlan):
            return NotImplemented
        mine, theirs = list(self.indices), list(other.indices)
        return (self.epoch, self.step, self.position, mine) == (
            other.epoch,
            other.step,
            other.position,
            theirs,
        )

    def __hash__(self) -> int:
        return hash((self.epoch, self.step, self.position))


class Cut(NamedTuple):
    """Global positions ``start`` to ``stop`` for this rank; with all ranks' cuts the epoch is done up to ``until``."""

    start: int
    stop: int
    until: int


@dataclass(frozen=True, slots=True)
class Geometry:
    """How a sequence is cut into batches and dealt to ranks."""

    batch_size: int
    drop_last: bool = False
    shard: Shard = field(default_factory=lambda: Shard(0, 1))

    @property
    def span(self) -> int:
        """How many samples all ranks take together in a full step."""
        return self.batch_size * self.shard.world_size

    def full_cut(self, step: int, origin: int) -> Cut:
        """This rank's cut of a step in which all ranks have full batches."""
        base = origin + step * self.span
        start = base + self.shard.rank * self.batch_size
        return Cut(start, start + self.batch_size, base + self.span)

    def last_cut(self, base: int, tail: int) -> Cut | None:
        """This rank's cut of the ``tail`` samples at ``base`` that do not fill a step; None where it gets none.

        With ``end="pad"`` the cut may reach up to ``world_size - 1`` positions beyond the end: those wrap to the
        beginning of the sequence.
        """
        rank, world = self.shard.rank, self.shard.world_size
        if self.drop_last or tail == 0:
            return None
        if self.shard.end == "exact":
            share, more = divmod(tail, world)
            start = base + rank * share + min(rank, more)
            stop = start + share + (rank < more)
        else:
            share = -(-tail // world) if self.shard.end == "pad" else tail // world
            start = base + rank * share
            stop = start + share
        return Cut(start, stop, base + tail) if stop > start else None


@dataclass(frozen=True, slots=True)
class EpochPlan(Sequence[BatchPlan]):
    """All batches of one epoch on this rank, as a sequence: ``plan[step]`` is computed when asked for.

    Attributes:
        epoch: the epoch, from 0.
        order: the epoch's sequence of indices, or of whole batches: each is dealt as one then.
        geometry: how it is cut and dealt; of whole batches, one a step and rank.
        origin: the global position at which this geometry began (0 but after a resume with another one).

    Example:
        >>> from feedline.order.sequence import SequentialOrder
        >>> plan = EpochPlan(0, SequentialOrder(10), Geometry(4))
        >>> len(plan), plan[2].indices.tolist()
        (3, [8, 9])
    """

    epoch: int
    order: Order | BatchOrder
    geometry: Geometry
    origin: int = 0

    def __len__(self) -> int:
        length = self.order.length
        if length is None:
            raise TypeError("the plan of an endless sampler has no len()")
        full, tail = divmod(max(length - self.origin, 0), self.geometry.span)
        base = self.origin + full * self.geometry.span
        return full + (self.geometry.last_cut(base, tail) is not None)

    def cut(self, step: int) -> Cut | None:
        """The positions of a step, or None when the epoch has no such step on this rank."""
        length = self.order.length
        full = self.geometry.full_cut(step, self.origin)
        if length is None or full.until <= length:
            return full
        base = full.until - self.geometry.span
        return self.geometry.last_cut(base, length - base) if base < length else None

    @overload
    def __getitem__(self, step: int) -> BatchPlan: ...
    @overload
    def __getitem__(self, step: slice) -> list[BatchPlan]: ...
    def __getitem__(self, step: int | slice) -> BatchPlan | list[BatchPlan]:
        if isinstance(step, slice):
            return [self[number] for number in range(*step.indices(len(self)))]
        number = step + len(self) if step < 0 else step
        plan = self.get(number) if number >= 0 else None
        if plan is None:
            raise IndexError(f"step {step} is out of range: epoch {self.epoch} has {len(self)} steps")
        return plan

    def get(self, step: int) -> BatchPlan | None:
        """The batch number ``step``, or None beyond the epoch's end."""
        cut = self.cut(step)
        if cut is None:
            return None
        indices, position = self._indices(cut)
        indices.flags.writeable = False
        return BatchPlan(self.epoch, step, indices, position, cut.until)

    def __iter__(self) -> Iterator[BatchPlan]:
        return self.batches(0)

    def batches(self, step: int, passing: Container[int] = ()) -> Iterator[BatchPlan]:
        """The batches from number ``step`` on, but for those ``passing``."""
        return passing_over(Batches(self, step), passing)

    def full_steps(self, step: int) -> list[BatchPlan]:
        """The next full steps, by one look at the order; none when no full one is left."""
        order = self.order
        if isinstance(order, BatchOrder):
            return []
        length, size, span = order.length, self.geometry.batch_size, self.geometry.span
        base = self.origin + step * span
        steps = max(1, min(_PLANNED_AT_ONCE, _INDICES_AT_ONCE // size))
        if length is not None:
            steps = min(steps, (length - base) // span)
        if steps < 1:
            return []
        own = base + self.geometry.shard.rank * size
        indices = take_spans(order, own, size, span, steps)
        indices.flags.writeable = False
        return [
            BatchPlan(
                self.epoch,
                step + number,
                indices[number * size : (number + 1) * size],
                own + number * span,
                base + (number + 1) * span,
            )
            for number in range(steps)
        ]

    def _indices(self, cut: Cut) -> tuple[NDArray[np.int64], int]:
        """The indices of a cut, and the global position of the first."""
        order = self.order
        if isinstance(order, BatchOrder):
            return order.placed(cut.start)
        length = order.length
        if length is None or cut.stop <= length:
            return order.take(cut.start, cut.stop), cut.start
        # end="pad": go on at the beginning, more than once where the world is larger than the epoch
        positions = np.arange(cut.start, cut.stop) % length
        return np.concatenate([order.take(int(at), int(at) + 1) for at in positions]), cut.start


class Batches:
    """The batches of a plan, one after the other.

    Full steps are planned some at a time: a plan costs half as much when the one before was made just now. Among
    several ranks each looks up its own cuts alone. Ctrl-C may come anywhere: a batch counts as taken by the last
    statement before it is returned.

    Args:
        plan: the plan of the epoch.
        step: the first batch.
    """

    def __init__(self, plan: EpochPlan, step: int) -> None:
        self._plan = plan
        self._step = step
        self._first = step
        self._block: list[BatchPlan] = []  # the full steps from number ``_first`` on

    def __iter__(self) -> Iterator[BatchPlan]:
        return self

    def __next__(self) -> BatchPlan:
        step = self._step
        at = step - self._first
        if at < len(self._block):
            plan: BatchPlan | None = self._block[at]
        else:
            block = self._plan.full_steps(step)
            plan = block[0] if block else self._plan.get(step)
            self._block, self._first = block, step
        if plan is None:
            raise StopIteration
        self._step = step + 1
        return plan


class Passing:
    """What is planned, but for some steps.

    Args:
        plans: the batches.
        steps: those that are passed over.
    """

    def __init__(self, plans: Iterator[BatchPlan], steps: Container[int]) -> None:
        self._plans = plans
        self._steps = steps

    def __iter__(self) -> Iterator[BatchPlan]:
        return self

    def __next__(self) -> BatchPlan:
        while True:
            plan = self._plans.__next__()  # not next(), after which Ctrl-C may come
            if plan.step not in self._steps:
                return plan


def passing_over(plans: Iterator[BatchPlan], steps: Container[int]) -> Iterator[BatchPlan]:
    """What is planned, but for these steps: most often there are none, and nothing stands in between."""
    return Passing(plans, steps) if steps else plans


class Unplanned:
    """The batches of a stream, of which only the number is known.

    Args:
        epoch: the epoch.
        step: the first batch.
    """

    def __init__(self, epoch: int, step: int) -> None:
        self._epoch = epoch
        self._step = step

    def __iter__(self) -> Iterator[BatchPlan]:
        return self

    def __next__(self) -> BatchPlan:
        plan = BatchPlan(self._epoch, self._step, (), 0, 0)
        self._step += 1
        return plan


class Dealer(Generic[T]):
    """Cuts what an iterator yields into this rank's batches: the rule of `EpochPlan` where only the next item is known.

    Consumes the items in order, once, at most a full step (``batch_size * world_size``) ahead of what it yields. When
    the iterator raises, or Ctrl-C comes, the items already taken are kept for the next call.

    Args:
        items: the epoch's sequence from the first position of ``step`` on.
        geometry: how it is cut and dealt.
        origin: the global position at which this geometry began.
        step: the first step to yield.
        head: the epoch's first items, when ``items`` does not begin there; padding repeats them.

    Attributes:
        length: how many items the epoch has, once the iterator has ended.
        head: the first items, up to one less than there are ranks.
    """

    def __init__(
        self, items: Iterator[T], geometry: Geometry, *, origin: int = 0, step: int = 0, head: Sequence[T] = ()
    ) -> None:
        self._items = items
        self._geometry = geometry
        self._origin = origin
        self._step = step
        self.head = list(head)
        self._taken: list[T] = []
        self._ended = False
        self.length: int | None = None

    def __iter__(self) -> Iterator[tuple[list[T], Cut]]:
        return self

    def __next__(self) -> tuple[list[T], Cut]:
        """This rank's items of the next step, and the positions they have."""
        geometry, taken = self._geometry, self._taken
        if not self._ended and len(taken) < geometry.span:
            taken.extend(islice(self._items, geometry.span - len(taken)))  # what came before an error is kept
            self._ended = len(taken) < geometry.span
        full = geometry.full_cut(self._step, self._origin)
        base = full.until - geometry.span
        cut = full if len(taken) == geometry.span else geometry.last_cut(base, len(taken))
        if self._ended and self.length is None:  # after the last step nothing is taken, and base is beyond the end
            self.length = base + len(taken)
        if cut is None:
            self._taken = []
            raise StopIteration
        more = taken[: max(geometry.shard.world_size - 1 - len(self.head), 0)]
        head = self.head + more
        padding = [head[number % len(head)] for number in range(max(cut.stop - base - len(taken), 0))]
        dealt = (taken + padding)[cut.start - base : cut.stop - base], cut
        self._taken = []  # from here on nothing is called, and Ctrl-C does not come
        self._step += 1
        self.head += more
        return dealt
