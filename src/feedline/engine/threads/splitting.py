"""One batch made in parts by several threads at once, so that the first batch is there sooner.

Guarantee (contract 5): a batch made in parts is to the last bit, in its types and in who owns its memory what
`MapMaker.make` makes of it. Each part writes its samples straight into their rows of the whole arrays. Parts that
disagree (a dtype that becomes wider, another structure), samples of which more than plain arrays are made, and errors
all end in the same way: the last part to be done makes the batch again, whole.
"""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from feedline.batching import BatchWriter
from feedline.batching.registry import registered
from feedline.frameworks import is_array, is_masked
from feedline.protocols import gather_of, getitems_of
from feedline.tree import keys_of, kind_of, values_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from feedline.engine.making import MapMaker
    from feedline.engine.task import Allocator, Outcome, Recipe, Task

    Array = NDArray[Any]

__all__ = ["SplitBatch", "is_splittable", "parts_of"]

_MOST_PARTS = 4  # more threads than that wait for each other's GIL sooner than they make the batch
_LEAST_SAMPLES = 2  # in a part: below, there is nothing to be won


def is_splittable(recipe: Recipe) -> bool:
    """Whether batches may be made in parts: samples read one by one, written as they come, errors raised.

    Arrays and bulk reads are left whole: one call that is bound by memory, or that is keyed to its batch.
    """
    dataset = recipe.dataset
    bulk = is_array(dataset) or gather_of(dataset) is not None or getitems_of(dataset) is not None
    return recipe.writes and recipe.policy.action == "raise" and not bulk


def parts_of(size: int, num_workers: int) -> int:
    """In how many parts a batch of ``size`` samples is made; 1: it is not worth splitting.

    Example:
        >>> parts_of(512, 2), parts_of(512, 16), parts_of(7, 16)
        (2, 4, 1)
    """
    parts = min(_MOST_PARTS, num_workers)
    return parts if size >= _LEAST_SAMPLES * parts else 1


class SplitBatch:
    """A batch under way in several threads.

    Args:
        task: which batch.
        parts: in how many.
        arena: where it is made.

    Attributes:
        parts: in how many.
        broken: set, by anyone, when the parts cannot become the batch: those that come are not begun any more.
    """

    def __init__(self, task: Task, parts: int, arena: Allocator) -> None:
        self._task = task
        self._arena = arena
        self.parts = parts
        size = len(task.plan.indices)
        self._cuts = [size * number // parts for number in range(parts + 1)]
        self._lock = threading.Lock()
        self._arrays: list[Array] = []
        self._layout: Any = None
        self._value: Any = None
        self._left = parts
        self.broken = False

    def make(self, number: int, maker: MapMaker) -> bool:
        """Make a part; whether it was the last one to be done, so that the batch is to be finished."""
        try:
            if not self.broken:
                self._write(number, maker)
        except Exception:  # noqa: BLE001 -- the user's code may raise anything: making it whole finds the first error
            self.broken = True
        except BaseException:
            self.broken = True
            raise
        with self._lock:
            self._left -= 1
            return not self._left

    def finish(self, maker: MapMaker) -> Outcome:
        """What comes of the batch, once all its parts are done."""
        value, self._value = self._value, None
        self._arrays.clear()
        if not self.broken:
            return maker.complete(self._task, value)
        del value
        return maker.make(self._task)

    def _write(self, number: int, maker: MapMaker) -> None:
        start, stop = self._cuts[number : number + 2]
        plan = self._task.plan
        rows = _Rows(self, start, stop)
        writer = BatchWriter(stop - start, allocate=rows.empty)

        def put(sample: Any) -> None:
            if self.broken or (not len(writer) and not _is_plain(sample)):
                raise _PartsDisagreeError
            writer.add(sample)

        maker.read(replace(plan, indices=plan.indices[start:stop], position=plan.position + start), put)
        value = writer.finish()
        given = iter(rows.given)
        layout = _layout(value, given)
        if next(given, None) is not None:
            raise _PartsDisagreeError
        with self._lock:
            if self._layout is None:
                self._layout = layout
            elif self._layout != layout:
                raise _PartsDisagreeError
            if number == 0:
                self._value = value

    def whole(self, number: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """The whole array of which a part's array ``number``, of that shape, is a stretch of rows."""
        with self._lock:
            if number == len(self._arrays):
                self._arrays.append(self._arena.empty((self._cuts[-1], *shape[1:]), dtype))
            array = self._arrays[number]
        if array.shape[1:] != shape[1:] or array.dtype != dtype:
            raise _PartsDisagreeError
        return array


class _PartsDisagreeError(Exception):
    """The batch must be made whole."""


class _Rows:
    """The memory of a part: rows of the whole arrays.

    The first part is given the arrays whole, of which it fills only its rows: its batch is then the whole one, built of
    the first sample as ever.
    """

    def __init__(self, batch: SplitBatch, start: int, stop: int) -> None:
        self._batch = batch
        self._start, self._stop = start, stop
        self.given: list[Array] = []

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """The rows of the next array."""
        whole = self._batch.whole(len(self.given), shape, np.dtype(dtype))
        array = whole[self._start : self._stop] if self._start else whole
        self.given.append(array)
        return array


def _is_plain(sample: Any) -> bool:
    """Whether plain arrays are made of all that a sample holds: looked at early, before a part is made for nothing."""
    if registered(sample) is not None:
        return False
    if isinstance(sample, np.ndarray):
        return not is_masked(sample)
    if isinstance(sample, np.generic | bool | int | float | complex):
        return not isinstance(sample, str | bytes)
    return kind_of(sample) is not None and all(map(_is_plain, values_of(sample)))


def _layout(value: Any, arrays: Iterator[Array]) -> Any:
    """The structure of a part, whose leaves must be the arrays that it was given, in order."""
    if kind_of(value) is None:
        if value is not next(arrays, None):
            raise _PartsDisagreeError
        return None
    return type(value), keys_of(value), [_layout(part, arrays) for part in values_of(value)]
