"""Plans of a user's own sampler: drawn in order, once, as the loader comes to them.

Guarantee (contracts 2 and 3): what was drawn ahead does not count. A sampler with ``state_dict`` is asked for its state
with each batch drawn, and that state is handed out when the batch is delivered; one without is replayed by its indices
alone, no sample is loaded. A sampler that draws from global generators finds them seeded by (seed, epoch), goes on in
its own stream at each draw, and leaves them as they were.
"""

from __future__ import annotations

import copy
import itertools
import operator
import warnings
from collections.abc import Mapping
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from feedline.errors import StateError
from feedline.generators import GlobalGenerators
from feedline.order.plan import BatchPlan, Dealer
from feedline.protocols import Stateful
from feedline.seeding import Stream, bulk_words

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from contextlib import AbstractContextManager

    from feedline.order.cursor import Cursor
    from feedline.order.plan import Cut, Geometry

__all__ = ["DrawnPlans"]

_END: Any = object()
_SILENT = frozenset({list, tuple, range, dict, set, frozenset, str, itertools.count})
_BATCH_BITS = 32  # a batch's samples have positions of their own: the batch's number and 32 bits within it


class DrawnPlans:
    """The batch plans of one epoch of a user's sampler, or batch sampler, on this rank.

    Of a sampler that goes on from a state of its own, the epoch's first items are known as far as the world that saved
    it needed them: padding in a larger world repeats later ones besides.

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
        self._generators = _generators(sampler)
        self._pads = geometry.shard.end == "pad"
        head: list[Any] = []
        with self._generators as generators:
            if generators is not None:
                generators.seed(int(bulk_words(cursor.seed or 0, cursor.epoch, Stream.SAMPLER.word(), 0, 1)[0]))
            if cursor.position and cursor.resumes_at == cursor.length:
                items: Iterator[Any] = iter(())  # a sampler's own state may not tell its end from its beginning
            elif cursor.sampler_state is not None:
                items, head = self._restored(cursor.sampler_state)
            else:
                items = iter(sampler)
                self._skip(items, cursor.resumes_at, head, geometry.shard.world_size - 1)
        self._items = items
        step = (cursor.resumes_at - cursor.origin) // geometry.span
        self._states: dict[int, Any] = {step: cursor.sampler_state}  # by the step that comes next
        self._dealt = Dealer(items, geometry, origin=cursor.origin, step=step, head=head)
        self._step = step
        self._pulled: tuple[list[Any], Cut] | None = None  # of the sampler, and not planned

    def _restored(self, state: Any) -> tuple[Iterator[Any], list[Any]]:
        """What the sampler goes on with, and the epoch's first items, which padding may need."""
        if not isinstance(state, Mapping) or set(state) != {"sampler", "head"} or not isinstance(state["head"], list):
            raise StateError(f"state['sampler_state'] must hold 'sampler' and 'head', got {state!r:.80}")
        if not isinstance(self._sampler, Stateful):
            raise StateError(
                f"state['sampler_state'] is given, but {type(self._sampler).__name__} has no load_state_dict"
            )
        self._sampler.load_state_dict(copy.deepcopy(state["sampler"]))
        return iter(self._sampler), state["head"]

    def _skip(self, items: Iterator[Any], count: int, head: list[Any], needed: int) -> None:
        """Pass over what was delivered before, remembering the first that padding may need."""
        for number in range(count):
            item = next(items, _END)
            if item is _END:
                raise StateError(
                    f"the state says that {count} items of the sampler were delivered, but "
                    f"{type(self._sampler).__name__} yielded only {number}"
                )
            if len(head) < needed:
                head.append(item)

    def __iter__(self) -> Iterator[BatchPlan]:
        return self

    def __next__(self) -> BatchPlan:
        if self._pulled is None:  # else Ctrl-C came before it was handed out
            try:
                with self._generators:
                    self._pulled = self._dealt.__next__()  # not next(), after which Ctrl-C may come
            except StopIteration:
                self._warn_if_used_up()
                raise
        try:
            plan = self._plan(*self._pulled)
        except StopIteration as error:  # it would end the epoch as if the sampler had ended
            self._step, self._pulled = self._step + 1, None
            raise RuntimeError(
                f"{type(self._sampler).__name__} raised StopIteration outside its iterator; raise an error of your own"
            ) from error
        except Exception:
            self._step, self._pulled = self._step + 1, None
            raise
        self._step, self._pulled = self._step + 1, None
        return plan

    def _warn_if_used_up(self) -> None:
        """Say so when an epoch after the first is empty because the sampler is an iterator and not an iterable."""
        if self._epoch and self._dealt.length == 0 and self._items is self._sampler:
            warnings.warn(
                f"epoch {self._epoch} is empty: the sampler is an iterator, which an earlier epoch has used up; give "
                f"an iterable, whose __iter__ begins anew",
                stacklevel=2,
            )

    def _plan(self, items: list[Any], cut: Cut) -> BatchPlan:
        step = self._step
        if isinstance(self._sampler, Stateful):
            head = [_plain(item) for item in self._dealt.head] if self._pads else []
            self._states[step + 1] = {"sampler": copy.deepcopy(self._sampler.state_dict()), "head": head}
        if not self._batches:
            return BatchPlan(self._epoch, step, items, cut.start, cut.until)
        try:
            indices = list(items[0])
        except TypeError:
            raise TypeError(f"batch_sampler must yield lists of indices, got {items[0]!r}") from None
        if not indices:
            raise ValueError(f"batch_sampler must yield lists of indices, got an empty one as batch {cut.start}")
        return BatchPlan(self._epoch, step, indices, cut.start << _BATCH_BITS, cut.until)

    def state_before(self, step: int) -> Any:
        """What the sampler saved when the step before this one was drawn, or None. What it saved earlier is gone."""
        for passed in [number for number in self._states if number < step]:
            del self._states[passed]
        return self._states.get(step)


def _plain(item: Any) -> Any:
    """An index as JSON takes it."""
    if isinstance(item, list | tuple):
        return [_plain(part) for part in item]
    return operator.index(item) if hasattr(item, "__index__") else item


def _generators(sampler: object) -> AbstractContextManager[GlobalGenerators | None]:
    """The global generators, kept from draw to draw; nothing for what draws none: containers, and who says so."""
    if type(sampler) in _SILENT or getattr(sampler, "uses_global_rng", True) is False:
        return nullcontext()
    return GlobalGenerators(keep=True)
