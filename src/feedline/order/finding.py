"""Finding a sample: at which step of an epoch, and on which rank, it is delivered. The inverse of the plan.

Guarantee: what is found is what a search through `EpochPlan` of every rank would find first, step by step and rank by
rank. A permutation, a sequential order and what is made of these is inverted in O(1); any other order is looked through
in blocks of bounded memory, up to the first place. Like all of ``order`` this is pure: it loads and draws nothing.
"""

from __future__ import annotations

import operator
from bisect import bisect_right
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from feedline.order.batched import BatchOrder
from feedline.order.cycled import CycledCuts, CycledOrder
from feedline.order.permutation import PermutedOrder
from feedline.order.sequence import MappedOrder, SequentialOrder, StridedOrder

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from feedline.order.plan import Cut, EpochPlan
    from feedline.order.sequence import Order

__all__ = ["Place", "find", "first_position"]

_BLOCK = 1 << 16  # positions looked at in a go: half a MiB, which stays in the cache
_INVERTED = 256  # where more places than these are to be inverted, the first is soon found by looking
_INVERTIBLE = SequentialOrder | PermutedOrder  # each index once, at a place that can be computed


class Place(NamedTuple):
    """Where a sample is delivered.

    Attributes:
        step: the batch's number on its rank, counted from the origin of the present geometry, as in `BatchPlan`.
        rank: the rank, as in `Shard`.
    """

    step: int
    rank: int


def find(index: int, plan: EpochPlan) -> Place | None:
    """Where the dataset is first asked for ``index`` in an epoch, over all ranks.

    Args:
        index: what the dataset is asked for.
        plan: the epoch's plan, of any rank. Only what comes from its origin on counts: what was delivered before an
            elastic resume has no step in the present geometry.

    Returns:
        The place; None where the index is not drawn from the origin on, or is among those dropped at the end.

    Raises:
        TypeError: ``index`` is no integer, or the order is endless and cannot be inverted.

    Example:
        >>> from feedline.order.plan import EpochPlan, Geometry
        >>> from feedline.order.shard import Shard
        >>> plan = EpochPlan(0, SequentialOrder(10), Geometry(2, shard=Shard(0, 2)))
        >>> find(6, plan), find(10, plan)
        (Place(step=1, rank=1), None)
    """
    if isinstance(index, bool) or not hasattr(index, "__index__"):
        raise TypeError(f"index must be an integer, got {index!r} ({type(index).__name__})")
    index = operator.index(index)
    order, origin = plan.order, plan.origin
    position = first_position(order, index, origin, order.length)
    if position is not None:
        return _place(position, plan)
    length, geometry = order.length, plan.geometry
    if not length or not origin or geometry.drop_last or geometry.shard.end != "pad":
        return None
    # The padding repeats the epoch's beginning, which after a resume lies before the origin.
    padding = -(length - origin) % geometry.span % geometry.shard.world_size
    position = first_position(order, index, 0, min(padding, origin))
    return None if position is None else _place(length + position, plan)


def first_position(order: Order | BatchOrder, index: int, start: int, stop: int | None) -> int | None:
    """The first position from ``start`` up to, not including, ``stop`` that holds ``index``; None where none does.

    Args:
        order: an epoch's sequence; of whole batches, positions count these.
        index: what is looked for.
        start: at least 0.
        stop: at most the order's length; None: without end.

    Raises:
        TypeError: ``stop`` is None, and the order cannot be inverted.

    Example:
        >>> first_position(PermutedOrder(10**12, seed=1, epoch=0), 5, 0, 10**12)
        494320829441
    """
    position: int | None
    if isinstance(order, BatchOrder):
        return _batch(order, index, start, stop)
    if isinstance(order, CycledOrder | CycledCuts):
        return _cycled(order, index, start, stop)
    if isinstance(order, SequentialOrder):
        position = index
    elif isinstance(order, PermutedOrder):
        position = order.position(index)
    elif isinstance(order, StridedOrder) and isinstance(order.inner, _INVERTIBLE):
        position = _strided(order, index, start)
    elif isinstance(order, MappedOrder) and isinstance(order.inner, _INVERTIBLE):
        held = _few_places(order.values, index)
        if held is None:
            return _looked_for(order, index, start, stop)
        found = [first_position(order.inner, place, start, stop) for place in held]
        position = min((at for at in found if at is not None), default=None)
    else:
        return _looked_for(order, index, start, stop)
    return position if position is not None and start <= position and (stop is None or position < stop) else None


def _batch(order: BatchOrder, index: int, start: int, stop: int | None) -> int | None:
    """The first batch that holds an index."""
    if stop is not None and start >= stop:
        return None
    begin, bounds = order.samples.bounds(start)[0], order.samples.bounds
    position = first_position(order.samples, index, begin, None if stop is None else bounds(stop - 1)[1])
    if position is None:
        return None
    beyond = position + 1  # no batch is empty
    return (
        bisect_right(range(beyond if stop is None else stop), position, start, key=lambda batch: bounds(batch)[0]) - 1
    )


def _cycled(order: CycledOrder | CycledCuts, index: int, start: int, stop: int | None) -> int | None:
    """The first position in passes laid end to end."""
    period = order.period
    if period is None:
        return first_position(order.passes(0), index, start, stop)
    number, first = divmod(start, period)
    if isinstance(order.passes(number), _INVERTIBLE):  # each pass has each index: no later one need be looked at
        enough = (number + 2) * period
        stop = enough if stop is None else min(stop, enough)
    elif stop is None:
        return _looked_for(order, index, start, stop)
    while number * period < stop:
        found = first_position(order.passes(number), index, first, min(period, stop - number * period))
        if found is not None:
            return number * period + found
        number, first = number + 1, 0
    return None


def _strided(order: StridedOrder, index: int, start: int) -> int | None:
    """The first position from ``start`` on; the inner order holds each index once, and is repeated up to the total."""
    length = order.inner.length
    place = first_position(order.inner, index, 0, length)
    if place is None:
        return None
    for at in range(place, order.total, length or max(order.total, 1)):
        position, beside = divmod(at - order.offset, order.stride)
        if position >= start and not beside:
            return position
    return None


def _few_places(values: NDArray[np.int64], index: int) -> list[int] | None:
    """Where an array holds ``index``; None where that is so often that looking for it is faster."""
    places: list[int] = []
    for start in range(0, len(values), _BLOCK):
        places += (np.flatnonzero(values[start : start + _BLOCK] == index) + start).tolist()
        if len(places) > _INVERTED:
            return None
    return places


def _looked_for(order: Order | CycledCuts, index: int, start: int, stop: int | None) -> int | None:
    """The first place of ``index`` in an order of any kind, block by block."""
    if stop is None:
        raise TypeError(
            f"where() needs an epoch that ends, or an order that can be inverted, got {order!r:.100}; give the loader "
            f"batches_per_epoch"
        )
    for begin in range(start, stop, _BLOCK):
        found = np.flatnonzero(order.take(begin, min(begin + _BLOCK, stop)) == index)
        if found.size:
            return begin + int(found[0])
    return None


def _place(position: int, plan: EpochPlan) -> Place | None:
    """The step and the rank that a position is dealt to; None where it is left out at the end."""
    geometry, length = plan.geometry, plan.order.length
    step, within = divmod(position - plan.origin, geometry.span)
    base = position - within
    if length is None or base + geometry.span <= length:
        return Place(step, within // geometry.batch_size)

    def cut(rank: int) -> Cut | None:
        return replace(geometry, shard=replace(geometry.shard, rank=rank)).last_cut(base, length - base)

    def start(rank: int) -> int:
        found = cut(rank)
        return position + 1 if found is None else found.start

    rank = bisect_right(range(geometry.shard.world_size), position, key=start) - 1
    found = cut(rank) if rank >= 0 else None
    return Place(step, rank) if found is not None and position < found.stop else None
