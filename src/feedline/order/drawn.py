"""Plans of a user's own sampler: drawn in order, once, as the loader comes to them.

Guarantee (contract 3): what was drawn ahead does not count. A sampler with ``state_dict`` is asked for its state with
each batch drawn, and that state is handed out when the batch is delivered; one without is replayed by its indices
alone, no sample is loaded.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

from feedline.errors import StateError
from feedline.order.plan import BatchPlan, Dealer
from feedline.protocols import Stateful

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from feedline.order.cursor import Cursor
    from feedline.order.plan import Geometry

__all__ = ["DrawnPlans"]

_END: Any = object()


class DrawnPlans:
    """The batch plans of one epoch of a user's sampler, or batch sampler, on this rank.

    Args:
        sampler: yields what the dataset is asked for; with ``batches``, lists of that.
        geometry: how the sequence is cut and dealt; the unit is what the sampler yields.
        cursor: where to begin; its ``origin`` is that of ``geometry``.
        batches: whether the sampler yields whole batches.
    """

    def __init__(self, sampler: Iterable[Any], geometry: Geometry, cursor: Cursor, *, batches: bool = False) -> None:
        self._sampler = sampler
        self._epoch = cursor.epoch
        self._batches = batches
        self._states: dict[int, Any] = {}
        self._first = 0  # samples in the batches drawn so far: a batch's samples have positions of their own
        head: list[Any] = []
        if cursor.sampler_state is not None:
            if not isinstance(sampler, Stateful):
                raise StateError(
                    f"state['sampler_state'] is given, but {type(sampler).__name__} has no load_state_dict"
                )
            sampler.load_state_dict(cursor.sampler_state)
            items = iter(sampler)
        else:
            items = iter(sampler)
            replayed = list(islice(items, geometry.shard.world_size - 1)) if cursor.position else []
            head = replayed[: cursor.position]
            items = _chained(replayed[cursor.position :], items)
            self._skip(items, cursor.position - len(head), head)
        step = (cursor.position - cursor.origin) // geometry.span
        self._dealt = Dealer(items, geometry, origin=cursor.origin, step=step, head=head)
        self._step = step

    def _skip(self, items: Iterator[Any], count: int, head: list[Any]) -> None:
        """Pass over what was delivered before."""
        if self._batches:
            self._first += sum(len(batch) for batch in head)
        for number in range(count):
            item = next(items, _END)
            if item is _END:
                raise StateError(
                    f"the state says that {count + len(head)} items of the sampler were delivered, but "
                    f"{type(self._sampler).__name__} yielded only {number + len(head)}"
                )
            if self._batches:
                self._first += len(item)

    def __iter__(self) -> Iterator[BatchPlan]:
        return self

    def __next__(self) -> BatchPlan:
        items, cut = next(self._dealt)
        step, self._step = self._step, self._step + 1
        if isinstance(self._sampler, Stateful):
            self._states[step] = self._sampler.state_dict()
        if not self._batches:
            return BatchPlan(self._epoch, step, items, cut.start, cut.until)
        indices = list(items[0])
        first, self._first = self._first, self._first + len(indices)
        return BatchPlan(self._epoch, step, indices, first, cut.until)

    def delivered(self, step: int) -> Any:
        """What the sampler saved when this step was drawn, or None."""
        return self._states.pop(step, None)


def _chained(first: list[Any], rest: Iterator[Any]) -> Iterator[Any]:
    yield from first
    yield from rest
