"""A stream in another order each epoch: shards permuted and read by turns, items through a shuffle buffer.

Guarantee: an epoch's order is a function of (seed, epoch), of the stream, ``buffer_size`` and ``interleave`` alone;
each item comes exactly once. Nothing of it is ever stored but positions: what the buffer holds at a position is found
by reading the stream again up to there. An error of the stream, or Ctrl-C, passes through and costs no other item.
"""

from __future__ import annotations

import sys
import types
from itertools import islice
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from feedline.checks import integer
from feedline.datasets.derived import DerivedIterableDataset
from feedline.datasets.mapped import mapped_over, taken_apart
from feedline.protocols import is_iterable_style, is_sharded, shard_count
from feedline.seeding import Stream, below, bulk_words, checked_seed, words

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = [
    "Interleaved",
    "PermutedShards",
    "ShuffleBuffer",
    "ShuffledStream",
    "beneath",
    "is_cut_short",
    "shuffle_of",
    "stream_name",
    "unshuffled",
]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

_SHARD_ORDER = Stream.PERMUTATION.word(2)  # details 0 and 1 are those of indices
_BUFFER = Stream.PERMUTATION.word(3)
_DRAWS = 1024  # words drawn at a time: a call's cost is spread over as many items


class ShuffledStream(DerivedIterableDataset[T_co]):
    """A stream in shuffled order, another one each epoch: what ``stream.shuffle(buffer_size)`` gives.

    The order of an epoch comes about in two steps, both keyed by (seed, epoch):

    1. Of a stream with shards (``shards()`` and ``iter_shard(i)``, see `IterableDataset`) the shards are permuted, and
       cut into groups of ``interleave``. The groups are read one after the other; in a group one item of each shard by
       turns, and a shard that is over leaves its turns to the others of its group. A stream without shards is read as
       it comes.
    2. A buffer is filled with the first ``buffer_size`` items. Then each position of the epoch gives out an item drawn
       from the buffer, and the next one of the sequence takes its place; in the end what remains is drawn in turn. So
       an item comes at most ``buffer_size - 1`` positions before its place in the sequence; it spends ``buffer_size``
       positions in the buffer on average, by chance many more.

    A loader's first batch waits until the buffer is full (a ``timeout`` must leave time for it), and resuming reads the
    stream again up to where it was; in exchange the loader's state holds a position and nothing else, and is resumed
    with any number of workers, ranks, or another batch size, exactly. Functions given to ``map``, before ``shuffle`` or
    after it, run in all workers over items that have left the buffer: what is buffered are the items as they were read
    (compressed images, say). Several workers read at once where there are shards, a group each; the buffer is then in
    the main process, where items are bytes, and holds ``buffer_size`` of them. Each rank reads the stream and holds a
    buffer.

    In a `DataLoader` seed and epoch are the loader's. Iterated without one, each pass is in an order drawn from
    Python's ``random``; `read` gives that of a seed and an epoch. Within other streams (a `ChainDataset`) a loader
    reads it in one place, in an order drawn for it from the loader's seed and epoch.

    Args:
        stream: any iterable-style dataset: one of ours, torch's, or whatever can be iterated anew.
        buffer_size: items that the buffer holds, from 1 (which leaves the sequence of shards as it is).
        interleave: how many shards are read by turns, from 1; a stream without shards has 1. Few shards in groups leave
            few groups, which is how many workers can read at once.

    Attributes:
        stream, buffer_size, interleave: as given.

    Raises:
        TypeError: ``stream`` is no stream.
        ValueError: ``buffer_size`` or ``interleave`` is no positive integer, or there are no shards to interleave.

    Example:
        >>> from feedline import DataLoader, IterableDataset
        >>> class Count(IterableDataset):
        ...     def __iter__(self):
        ...         return iter(range(8))
        >>> shuffled = Count().shuffle(4)
        >>> sorted(shuffled)
        [0, 1, 2, 3, 4, 5, 6, 7]
        >>> loader = DataLoader(shuffled, batch_size=8, seed=1)
        >>> [batch.tolist() == list(shuffled.read(seed=1, epoch=0)) for batch in loader]
        [True]
    """

    def __init__(self, stream: Any, buffer_size: int, *, interleave: int = 1) -> None:
        if not is_iterable_style(stream):
            raise TypeError(
                f"ShuffledStream takes an iterable-style dataset, got {type(stream).__name__}; a dataset with an index "
                f"is shuffled by the loader: DataLoader(dataset, shuffle=True)"
            )
        self.stream = stream
        self.buffer_size = integer("buffer_size", buffer_size, least=1)
        self.interleave = integer("interleave", interleave, least=1)
        if self.interleave > 1 and not is_sharded(taken_apart(stream)[0]):
            raise ValueError(
                f"interleave must be 1 for a stream without shards, got {self.interleave}; give "
                f"{type(stream).__name__} the methods shards() and iter_shard(i), or a larger buffer_size"
            )

    @property
    def parents(self) -> Sequence[Any]:
        """The stream."""
        return (self.stream,)

    def __len__(self) -> int:
        """The stream's length; a TypeError where it has none."""
        return len(self.stream)

    def __iter__(self) -> Iterator[T_co]:
        """A pass in an order of its own."""
        return self.read(seed=words(1)[0], epoch=0)

    def read(self, *, seed: int, epoch: int) -> Iterator[T_co]:
        """One pass over the samples, in the order that a loader of this seed delivers them in at this epoch.

        Raises:
            TypeError, ValueError: seed or epoch is no integer from 0 to 2**64 - 1.
        """
        source, maps = taken_apart(self)
        return iter(mapped_over(_Pass(source, checked_seed(seed), checked_seed(epoch, "epoch")), maps))

    def over(self, stream: Any) -> ShuffledStream[Any]:
        """Another stream shuffled in the same way."""
        return ShuffledStream(stream, self.buffer_size, interleave=self.interleave)

    def sequence(self, seed: int, epoch: int) -> Any:
        """What the buffer takes its items from: the stream, or its shards as they are read by turns."""
        return PermutedShards(self.stream, self.interleave, seed, epoch) if is_sharded(self.stream) else self.stream

    def buffer(self, items: Iterator[T], seed: int, epoch: int) -> ShuffleBuffer[T]:
        """The items of that sequence as they leave the buffer."""
        return ShuffleBuffer(items, self.buffer_size, seed, epoch)


class _Pass:
    """One pass over a shuffled stream that no map is over or under."""

    def __init__(self, shuffled: ShuffledStream[Any], seed: int, epoch: int) -> None:
        self._shuffled, self._seed, self._epoch = shuffled, seed, epoch

    def __iter__(self) -> Iterator[Any]:
        shuffled, seed, epoch = self._shuffled, self._seed, self._epoch
        return shuffled.buffer(iter(shuffled.sequence(seed, epoch)), seed, epoch)


class PermutedShards:
    """The shards of a stream in the order of an epoch, in groups: each group is a shard of this one.

    Args:
        stream: one that has shards.
        interleave: how many shards are a group.
        seed, epoch: the key of the order.
    """

    def __init__(self, stream: Any, interleave: int, seed: int, epoch: int) -> None:
        self._stream = stream
        self._interleave = interleave
        self._key = seed, epoch
        self._order: list[int] | None = None

    def shards(self) -> int:
        """How many groups there are."""
        return -(-len(self._shards()) // self._interleave)

    def iter_shard(self, group: int) -> Interleaved:
        """The items of a group's shards, by turns."""
        start = group * self._interleave
        return Interleaved(self._stream, self._shards()[start : start + self._interleave], self._interleave)

    def __iter__(self) -> Iterator[Any]:
        return Interleaved(self._stream, self._shards(), self._interleave)

    def _shards(self) -> list[int]:
        if self._order is None:
            drawn = bulk_words(*self._key, _SHARD_ORDER, 0, shard_count(self._stream))
            self._order = drawn.argsort(kind="stable").tolist()
        return self._order


class Interleaved:
    """The items of shards: of so many at a time, one item of each by turns. After an error the next item follows.

    Args:
        stream: whose shards.
        shards: their numbers, in the order in which they are read.
        width: how many are read by turns.

    Attributes:
        is_cut_short: whether what was raised last has ended a shard before its end.
    """

    def __init__(self, stream: Any, shards: Sequence[int], width: int) -> None:
        self._stream = stream
        self._groups = [list(shards[start : start + width]) for start in range(0, len(shards), width)]
        self._groups.reverse()  # the next one is taken from the end
        self._open: list[int] = []
        self._iterators: dict[int, Iterator[Any]] = {}
        self._turn = 0
        self.is_cut_short = False

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        self.is_cut_short = False
        while self._open or self._groups:
            if not self._open:
                self._open, self._turn = self._groups.pop(), 0
            self._turn %= len(self._open)
            shard = self._open[self._turn]
            iterator = self._iterators.get(shard)
            if iterator is None:
                iterator = self._opened(shard)
            try:
                item = next(iterator)
            except StopIteration:
                self._leave(shard)
            except Exception as error:
                self.is_cut_short = is_cut_short(iterator)
                self._turn += 1
                _add_note(error, f"while reading shard {shard} of the stream, before it is shuffled")
                raise
            else:
                self._turn += 1
                return item
        raise StopIteration

    def _opened(self, shard: int) -> Iterator[Any]:
        try:
            self._iterators[shard] = iter(self._stream.iter_shard(shard))
        except Exception as error:
            self._leave(shard)
            self.is_cut_short = True
            _add_note(error, f"while opening shard {shard} of the stream")
            if isinstance(error, StopIteration):
                raise RuntimeError(  # noqa: TRY004 -- no argument is of a wrong type
                    "the stream raised StopIteration when a shard was opened; raise an error of your own"
                ) from error
            raise
        return self._iterators[shard]

    def _leave(self, shard: int) -> None:
        """The next shard has the turn of this one."""
        del self._open[self._turn]
        self._iterators.pop(shard, None)


class ShuffleBuffer(Generic[T]):
    """The items of an iterator, each exactly once, drawn from those that come within reach.

    What comes at position p is item ``below(word p, n)`` of the n that the buffer holds: ``size`` of them, fewer when
    the iterator has ended. Memory and time are O(1) an item. After an error of the iterator the next call goes on.

    Args:
        items: the items.
        size: how many are held.
        seed, epoch: the key of the draws.

    Attributes:
        position: how many items were given out.
        is_over: whether there are no more.
        head: the first of them, as many as `keep` asked for.

    Example:
        >>> sorted(ShuffleBuffer(iter("abcdef"), 3, seed=1, epoch=0))
        ['a', 'b', 'c', 'd', 'e', 'f']
        >>> list(ShuffleBuffer(iter("abcdef"), 1, seed=1, epoch=0))
        ['a', 'b', 'c', 'd', 'e', 'f']
    """

    def __init__(self, items: Iterator[T], size: int, seed: int, epoch: int) -> None:
        self._source = items
        self._size = min(size, sys.maxsize)  # no list holds more, and islice counts no further
        self._key = seed, epoch
        self._items: list[T] = []
        self._ended = False
        self._base = -1  # the position that the words at hand begin at
        self._words: list[int] = []
        self._keep = 0
        self.position = 0
        self.is_over = False
        self.head: list[T] = []

    @staticmethod
    def reach(position: int, size: int) -> int:
        """How many items of the iterator have been read when ``position`` items were given out, if it has so many."""
        return position and position - 1 + size

    @property
    def is_cut_short(self) -> bool:
        """Whether the error raised last has ended the iterator before its end."""
        return is_cut_short(self._source)

    def keep(self, head: list[T], count: int) -> None:
        """Put the first ``count`` items into a list too."""
        self.head, self._keep = head, count

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        items = self._items
        if not self._ended and len(items) < self._size:
            items.extend(islice(self._source, self._size - len(items)))  # what came before an error is kept
            self._ended = len(items) < self._size
        if not items:
            self.is_over = True
            raise StopIteration
        at = self.position % _DRAWS
        if self._base != self.position - at:
            self._words = bulk_words(*self._key, _BUFFER, self.position - at, _DRAWS).tolist()
            self._base = self.position - at
        place = below(self._words[at], len(items))
        item = items[place]  # from here on nothing is called, and Ctrl-C does not come
        if self.position < self._keep:
            self.head += [item]
        items[place] = items[-1]
        del items[-1]
        self.position += 1
        return item


def shuffle_of(dataset: Any) -> ShuffledStream[Any] | None:
    """The shuffling of a stream, beneath its maps; None where there is none."""
    source, _ = taken_apart(dataset)
    return source if type(source) is ShuffledStream else None  # a subclass may read in its own way


def beneath(dataset: Any) -> Any:
    """The stream that is read in the end, beneath its maps and its shuffling."""
    shuffle = shuffle_of(dataset)
    return taken_apart(dataset)[0] if shuffle is None else shuffle.stream


def unshuffled(dataset: Any) -> Any:
    """A stream with its maps, but in its own order: whoever wants a few samples need not fill a buffer.

    Example:
        >>> from feedline.datasets import MapIterableDataset
        >>> list(unshuffled(ShuffledStream(MapIterableDataset(iter("ab"), str.upper), 9)))
        ['A', 'B']
    """
    if shuffle_of(dataset) is None:
        return dataset
    return mapped_over(beneath(dataset), taken_apart(dataset)[1])


def stream_name(dataset: Any) -> str:
    """What a state calls the order of a stream.

    Example:
        >>> stream_name(iter("ab")), stream_name(ShuffledStream(iter("ab"), 9))
        ('IterableDataset', 'IterableDataset(shuffled, buffer=9, interleave=1)')
    """
    shuffle = shuffle_of(dataset)
    if shuffle is None:
        return "IterableDataset"
    return f"{stream_name(shuffle.stream)}(shuffled, buffer={shuffle.buffer_size}, interleave={shuffle.interleave})"


def is_cut_short(iterator: object) -> bool:
    """Whether an iterator that raised an error will only say that it is at its end: it is a generator, or reads one."""
    if isinstance(iterator, types.GeneratorType):
        return iterator.gi_frame is None
    return isinstance(iterator, Interleaved | ShuffleBuffer) and iterator.is_cut_short


def _add_note(error: Exception, text: str) -> None:
    """Say where, once: an error object may be raised again."""
    if text not in getattr(error, "__notes__", ()):
        error.add_note(text)
