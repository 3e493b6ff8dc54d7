"""What a reader of a stream hands on: stretches of its items, to be cut into batches and finished elsewhere.

Guarantee: a stretch names the items it begins and ends at, so that it is the same whoever reads it, the second time
too. Where stages do not share memory each item is one object of bytes, so that who cuts batches need not unpickle any.
"""

from __future__ import annotations

import pickle
from time import perf_counter
from typing import TYPE_CHECKING, Any

from feedline.engine.processes.returning import dumped
from feedline.engine.streams.reading import Read, check_opens_anew, reading_keys
from feedline.engine.streams.shuffling import open_reader
from feedline.engine.task import Batch, Outcome
from feedline.errors import FeedlineError

if TYPE_CHECKING:
    from feedline.engine.policy import FailedSample
    from feedline.engine.streams.reading import Reader
    from feedline.engine.streams.shuffling import ShuffledReader
    from feedline.engine.task import Role, Stretch, Task

__all__ = ["ReadMaker"]


class ReadMaker:
    """Reads stretches of a stream: the maker of stage "read".

    A task's ``items`` is the `Stretch`. What comes of it is a `Read` as a batch's value (``until``: up to where the
    stream, or this reader's shards, are read), shorter where the stream ends or an error comes in between; or that
    error, if the next item is to blame. A stretch that begins beyond what was read comes back empty (`is_stale`),
    unless it is the first one: a new reader passes over what its predecessor read.
    """

    def __init__(self, role: Role, *, seeds_globals: bool = True) -> None:
        assert role.stream is not None
        self._role = role
        self._start = role.stream
        self._keys = reading_keys(role, seeds_globals=seeds_globals)
        self._reader: Reader | ShuffledReader | None = None
        self._error: tuple[Exception, tuple[FailedSample, ...]] | None = None  # in the place of the next item
        self._tells_head = False
        self._told = role.stream.reader  # the shard that the next item is of, as the last answer has it

    def make(self, task: Task) -> Outcome:
        """The items of a stretch, or the error of the first of them."""
        stretch: Stretch = task.items
        reader = self._reader
        if reader is not None and stretch.start > reader.stands:
            return Outcome(task, Batch(None, 0, reader.stands))
        if reader is None or stretch.start < reader.stands:
            try:
                check_opens_anew(self._role, stretch.start, again=reader is not None)
            except FeedlineError as error:
                return Outcome(task, error=error)
            reader, self._error = open_reader(self._role, self._keys, stretch.start, stretch.failed), None
            self._tells_head = stretch.start > 0 and self._start.readers == 1
        with self._keys(task.plan.epoch), reader.reading(task.plan):
            self._reader = reader
            begin = perf_counter()
            items, owners, failed, failures = self._taken(reader, stretch.size)
            took_s = perf_counter() - begin
        if self._error is not None and not items and not failures and reader.shard in (self._told, reader.shards):
            (raised, failures), self._error = self._error, None
            return Outcome(task, Batch(None, 0, reader.stands), raised, failures)
        self._told = reader.shard
        assert reader.shards is not None
        head, self._tells_head = (reader.head if self._tells_head else []), False
        head = [self._handed(item) for item in head]
        read = Read(self._sent(items, stretch), owners, failed, reader.shard, reader.shards, head, took_s)
        return Outcome(task, Batch(read, len(items), reader.stands), failures=failures)

    def _taken(
        self, reader: Reader | ShuffledReader, count: int
    ) -> tuple[list[Any], list[int], list[int], tuple[FailedSample, ...]]:
        """Up to ``count`` items, their shards, and the samples that failed, with how many items came before each."""
        items: list[Any] = []
        owners: list[int] = []
        failed: list[int] = []
        failures: tuple[FailedSample, ...] = ()
        over = False
        while not over and self._error is None and len(items) < count:
            found = []
            try:
                found.append(next(reader))
            except StopIteration:
                over = True
            except Exception as error:  # noqa: BLE001 -- the user's code may raise anything
                self._error = error, reader.take_failures()
                break
            new = reader.take_failures()
            failures += new
            failed += [len(items)] * len(new)
            items += found
            owners += [reader.shard] * len(found)
        return items, owners, failed, failures

    def _sent(self, items: list[Any], stretch: Stretch) -> list[Any]:
        """The items as they are handed on; of a stream read by one reader only what this rank may need.

        In a full step that is its own cut, and the first items of the epoch, by which the last step may be padded.
        """
        start = self._start
        geometry, begin, stop = start.geometry, stretch.start - start.origin, stretch.start + len(items) - start.origin
        rank, world, size = geometry.shard.rank, geometry.shard.world_size, geometry.batch_size
        if start.readers > 1 or world == 1 or len(items) < stretch.size or stop % geometry.span:
            return [self._handed(item) for item in items]
        return [
            self._handed(item) if at // size % world == rank or at + start.origin < world - 1 else None
            for at, item in enumerate(items, begin)
        ]

    def _handed(self, item: Any) -> Any:
        return _pickled(item) if self._start.pickled else item

    def give_up(self) -> None:
        """End the stretch under way before its next item. Any thread may say so."""
        self._keys.give_up()


def _pickled(item: Any) -> bytes:
    """An item as bytes. One that cannot be pickled becomes the error that says so, in its place, where it is used."""
    try:
        return pickle.dumps(item, protocol=5)
    except Exception:  # noqa: BLE001 -- a class of the user's main module, or a closure, which pickle alone cannot
        try:
            return dumped(item)
        except Exception as error:  # noqa: BLE001 -- pickling runs the user's code
            return pickle.dumps(_Unpicklable(f"{type(item).__name__}: {type(error).__name__}: {error}"), protocol=5)


class _Unpicklable:
    """What takes the place of an item that cannot be pickled."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __reduce__(self) -> tuple[Any, ...]:
        return _refuse, (self._text,)


def _refuse(text: str) -> Any:
    raise TypeError(
        f"a sample of the stream cannot be pickled, as it must be to be handed from its reader to another worker "
        f"({text}); yield what can be, and make the rest of it in a function given to map(), or use backend='thread'"
    )
