"""The shuffle buffer of a stream in a loader: around the one reader of it, or around what several have read.

Guarantee: the items, and the failures told of, are the same in either place. Nothing is stored of what the buffer held:
to stand at a position the stream is read again, and given out again, up to there; what was told of then is not told of
again. Positions are those after shuffling.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from feedline.datasets.shuffled import ShuffleBuffer, shuffle_of
from feedline.engine.streams.reading import Reader, ended_early
from feedline.errors import FeedlineError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from contextlib import AbstractContextManager

    from feedline.engine.keys import Keys
    from feedline.engine.policy import FailedSample
    from feedline.engine.streams.merging import Items
    from feedline.engine.task import Role
    from feedline.order.plan import BatchPlan

__all__ = ["ShuffledItems", "ShuffledReader", "open_reader", "reach"]


def reach(role: Role, position: int) -> int:
    """How many items of a stream were read when so many were delivered."""
    shuffle = shuffle_of(role.recipe.dataset)
    return position if shuffle is None else ShuffleBuffer.reach(position, shuffle.buffer_size)


def open_reader(role: Role, keys: Keys, position: int, failed: Iterable[Any] = ()) -> Reader | ShuffledReader:
    """The reader of a role, from a position on. One of several reads shards, whose items are shuffled elsewhere."""
    assert role.stream is not None
    if role.stream.readers > 1 or shuffle_of(role.recipe.dataset) is None:
        return Reader(role, keys, position, failed)
    return ShuffledReader(role, keys, position, failed)


def _buffer(role: Role, items: Iterator[Any]) -> ShuffleBuffer[Any]:
    shuffle = shuffle_of(role.recipe.dataset)
    assert shuffle is not None
    return shuffle.buffer(items, role.recipe.seed, role.epoch)


class ShuffledReader:
    """A `Reader` whose items come shuffled; to those who ask it, a stream without shards.

    Attributes:
        head: the epoch's first items, as far as they were passed over, one less than there are ranks at most.
        shards: 1.
    """

    def __init__(self, role: Role, keys: Keys, position: int, failed: Iterable[Any] = ()) -> None:
        assert role.stream is not None
        self._start = role.stream
        self._reader = Reader(role, keys, 0, failed, told=reach(role, position))
        self._buffer = _buffer(role, self._reader)
        self._goal = position  # up to where items are passed over
        self.head: list[Any] = []
        self.shards = 1
        self._buffer.keep(self.head, min(position, role.stream.geometry.shard.world_size - 1))

    def reading(self, plan: BatchPlan) -> AbstractContextManager[Any]:
        """See `Reader.reading`."""
        return self._reader.reading(plan)

    def take_failures(self) -> tuple[FailedSample, ...]:
        """The samples that failed since the last call."""
        return self._reader.take_failures()

    @property
    def stands(self) -> int:
        """The position of the next item that it gives."""
        return max(self._buffer.position, self._goal)

    @property
    def shard(self) -> int:
        """0 until the end, then 1."""
        return int(self._buffer.is_over)

    def open(self) -> None:
        """Pass over what was delivered before."""
        buffer = self._buffer
        while buffer.position < self._goal:
            try:
                next(buffer)
            except StopIteration:
                raise FeedlineError(ended_early(self._start, self._goal, buffer.position)) from None

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        self.open()
        return self._buffer.__next__()  # no next(): Ctrl-C could come after it, and cost the item


class ShuffledItems:
    """What several readers have read, shuffled.

    Args:
        role: whose stream; it says up to which position items are passed over.
        items: what they have read, from the first item on.
    """

    def __init__(self, role: Role, items: Items) -> None:
        assert role.stream is not None
        self._start = role.stream
        self._items = items
        self._buffer = _buffer(role, items)

    def keep(self, head: list[Any], count: int) -> None:
        """Put the first ``count`` of the items passed over into a list."""
        self._buffer.keep(head, min(self._start.position, count))

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        buffer, goal = self._buffer, self._start.position
        while buffer.position < goal and not self._items.lost_track:
            try:
                next(buffer)
            except StopIteration:
                if not self._items.lost_track:
                    raise FeedlineError(ended_early(self._start, goal, buffer.position)) from None
        if self._items.lost_track:  # what the buffer holds is not what it held
            raise StopIteration
        return buffer.__next__()  # as above
