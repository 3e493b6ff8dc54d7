"""The first stage of a stream: its items, read in order, each once.

Guarantee: items come in the stream's order (shard after shard, where it has shards), each read under a key of its own
that does not depend on who reads it. A reader that is opened anew, in the middle of an epoch too, passes over what was
read before. After an error, or Ctrl-C, the next call goes on with the next item.

The index part of the key tells what draws: an item read at position p of the stream has (p, p); at place p of shard s
it has (p, -4 - s). The same position under `FINISHING` belongs to the functions that are mapped over the item.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from feedline.batching import default_collate
from feedline.datasets.mapped import taken_apart
from feedline.datasets.shuffled import Interleaved, beneath, is_cut_short, shuffle_of
from feedline.engine.keys import Keys
from feedline.engine.making import add_note
from feedline.engine.policy import FailedSample
from feedline.engine.worker import entered, get_worker_info
from feedline.errors import FeedlineError
from feedline.protocols import is_sharded, shard_count

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from contextlib import AbstractContextManager

    from feedline.engine.task import Outcome, Role, StreamStart
    from feedline.order.plan import BatchPlan

__all__ = ["FINISHING", "IN_A_ROW", "Read", "Reader", "check_opens_anew", "ended_early", "is_stale", "reading_keys"]

T = TypeVar("T")

IN_A_ROW = 1000  # samples of a stream that may fail one after the other: beyond, its source is lost, not a sample
_OPENING = -2  # the index part of the key under which a stream, or a shard, is opened
FINISHING = -3  # that of the functions mapped over an item
_WRAPPING = {"builtins", "itertools", Interleaved.__module__}  # whose iterators may read a generator
_SHARD = -4  # that of the items of shard 0; those of the next shards have -5, -6, ...


def reading_keys(role: Role, *, seeds_globals: bool) -> Keys:
    """The keys that items are read under."""
    source, _ = taken_apart(role.recipe.dataset)
    recipe = replace(role.recipe, dataset=source, collate_fn=default_collate, batch_transform=None)
    return Keys(recipe, seeds_globals=seeds_globals)


class Read(NamedTuple):
    """The items that a reader read at a stretch.

    Attributes:
        items: them, as bytes where stages do not share memory; None for those that other ranks take.
        owners: the shard of each.
        failed: for each sample that failed, how many of the items came before it.
        shard: the shard that the next item is of.
        shards: how many shards there are; at that shard the stream is over.
        head: the reader's first items, one less than there are ranks, where it passed over them.
        took_s: how many seconds reading them took.
    """

    items: list[Any]
    owners: list[int]
    failed: list[int]
    shard: int
    shards: int
    head: list[Any]
    took_s: float


def is_stale(outcome: Outcome) -> bool:
    """Whether a reader was asked for what does not follow what it read last; its ``until`` says where it stands."""
    batch = outcome.batch
    return outcome.error is None and batch is not None and batch.samples == 0 and batch.value is None


class Reader:
    """The items of a stream, or of every so many-th shard of it. No generator: an error would end it for good.

    Of a shuffled stream it reads the sequence that the buffer is filled from; its shards are groups of the stream's.

    Args:
        role: whose stream, and which of its readers this is.
        keys: what items are read under; entered by who asks for items.
        position: how many items to pass over.
        failed: the indices of samples after those that fail, and were told of: they are passed over too.
        told: the position up to which errors are not raised, since they were before.

    Attributes:
        position: how many items were read, those passed over among them.
        shard: the shard that the next item is of, unless that shard turns out to be over.
        shards: how many there are, once the stream was opened; a stream without shards is one.
        head: its first items, one less than there are ranks.
    """

    def __init__(self, role: Role, keys: Keys, position: int, failed: Iterable[Any] = (), *, told: int = 0) -> None:
        assert role.stream is not None
        self._start = role.stream
        shuffle = shuffle_of(role.recipe.dataset)
        dataset = beneath(role.recipe.dataset)
        self._source = dataset if shuffle is None else shuffle.sequence(role.recipe.seed, role.epoch)
        self._part = "shard" if shuffle is None else "group"
        self._sharded = is_sharded(self._source)
        self._skips = role.recipe.policy.action == "skip"
        self._keys = keys
        self._goal = position  # up to where items are passed over
        self._until_told = told
        self._told = list(failed)
        self._items: Iterator[Any] | None = None
        self._place = 0  # in the shard
        self._plan: BatchPlan | None = None
        self._failures: list[FailedSample] = []
        self._in_a_row = 0
        self.position = 0
        self.shard = self._start.reader
        self.shards: int | None = None
        self.head: list[Any] = []

    def reading(self, plan: BatchPlan) -> AbstractContextManager[Any]:
        """Read on for this batch: the context to do so in. A self-sharding stream is told that it is read by one."""
        self._plan = plan
        info = get_worker_info()
        return nullcontext() if info is None else entered(replace(info, id=0, num_workers=1))

    def take_failures(self) -> tuple[FailedSample, ...]:
        """The samples that failed since the last call."""
        failures, self._failures = tuple(self._failures), []
        return failures

    @property
    def stands(self) -> int:
        """The position of the next item that it gives."""
        return max(self.position, self._goal)

    @property
    def _passes(self) -> bool:
        """Whether what is raised now was raised before."""
        return self.position < max(self._goal, self._until_told)

    @property
    def has_ended(self) -> bool:
        """Whether the last shard is over."""
        return self.shards is not None and self.shard >= self.shards

    def open(self) -> None:
        """Pass over what was read before."""
        while self.position < self._goal:
            self._next()

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        self.open()
        return self._next()

    def _next(self) -> Any:
        """The next item, those to be passed over among them."""
        while True:
            if self._items is None:
                self._items = self._opened()
            index = _SHARD - self.shard if self._sharded else self._place
            self._keys.sample(self._place, index)
            try:
                item = next(self._items)
            except StopIteration:
                self._turn()
            except Exception as error:  # noqa: BLE001 -- the user's code may raise anything
                self._failed(error)
            except BaseException:
                wraps = type(self._items).__module__ in _WRAPPING
                if wraps or is_cut_short(self._items):  # Ctrl-C ended a generator, maybe one inside map() or chain()
                    self._rewind()
                raise
            else:
                if self.position == len(self.head) < self._start.geometry.shard.world_size - 1:
                    self.head.append(item)
                self._place += 1
                self.position += 1
                self._in_a_row = 0
                return item

    def _opened(self) -> Iterator[Any]:
        """The next shard, opened.

        Raises:
            StopIteration: the last shard is over.
        """
        source = self._source
        if self.shards is None:
            self._keys.sample(0, _OPENING)
            self.shards = _not_stopping(lambda: shard_count(source)) if self._sharded else 1
        if self.has_ended:
            if self.position < self._goal:
                raise FeedlineError(ended_early(self._start, self._goal, self.position))
            raise StopIteration
        self._keys.sample(self.shard + 1 if self._sharded else 0, _OPENING)
        try:
            return _not_stopping(lambda: iter(source.iter_shard(self.shard) if self._sharded else source))
        except Exception as error:
            if not self._sharded:
                raise
            self._items = iter(())  # the next call goes on with the next shard
            if self._passes:  # it was raised before
                return self._items
            add_note(error, f"while opening shard {self.shard} of the stream")
            raise

    def _turn(self) -> None:
        """Go to the next shard."""
        self.shard += self._start.readers if self._sharded else 1
        self._items = None
        self._place = 0

    def _rewind(self) -> None:
        """Open the shard anew, and pass over what was read of it; what cannot be opened anew goes on where it is."""
        if self._items is not self._source:
            self._goal = max(self._goal, self.position)
            self.position -= self._place
            self._place = 0
            self._items = None

    def _failed(self, error: Exception) -> None:
        """Note a sample that failed, and raise its error unless the stream can go on without it."""
        assert self._plan is not None
        self._in_a_row += 1
        lost, over = self._in_a_row > IN_A_ROW, is_cut_short(self._items)
        if lost:
            add_note(error, f"{self._in_a_row} samples in a row failed: the stream is given up")
            self._in_a_row = 0
        if self._passes:  # it was raised, or skipped, before
            if lost or (over and not self._sharded and self.position < self._goal):
                self._rewind()
                raise error
            return
        index = (self.shard, self._place) if self._sharded else self._place
        if index in self._told and not lost:
            self._told.remove(index)
            return
        where = f"in sample {self._place} of {self._part} {self.shard}" if self._sharded else f"in sample {self._place}"
        add_note(error, f"{where} of the stream")
        self._failures.append(FailedSample(index, self._plan.epoch, self._plan.step, error))
        if lost or over or not self._skips:
            raise error


def ended_early(start: StreamStart, goal: int, position: int) -> str:
    """What is wrong with a stream of which ``goal`` items are to be passed over, if it has only ``position``."""
    if goal == start.position:
        return (
            f"the state says that {goal} samples were delivered, but the stream ended after {position}; resume with "
            f"the dataset that the state was taken from"
        )
    return (
        f"{goal} samples of the stream had been read when its reader was lost, but read anew it ended after "
        f"{position}; a stream that has workers must be the same whenever it is read in an epoch"
    )


def check_opens_anew(role: Role, position: int, *, again: bool) -> None:
    """Raise where a lost reader's stream would be read on from somewhere, as an iterator is.

    Args:
        role: whose stream.
        position: how many items the new reader is to pass over.
        again: whether it has been read by the same maker.
    """
    source = beneath(role.recipe.dataset)
    assert role.stream is not None
    fresh = not again and (role.stream.pickled or position == (0 if role.stream.readers > 1 else role.stream.position))
    if not fresh and hasattr(source, "__next__"):
        raise FeedlineError(
            f"the reader of the stream was lost after {position} samples, and {type(source).__name__} is an iterator, "
            f"which cannot be read again; give an iterable, whose __iter__ begins anew"
        )


def _not_stopping(call: Callable[[], T]) -> T:
    """What a function returns; a StopIteration of it, which would end the stream, becomes a RuntimeError."""
    try:
        return call()
    except StopIteration as error:
        raise RuntimeError("the stream raised StopIteration when it was opened; raise an error of your own") from error
