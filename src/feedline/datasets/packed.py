"""Millions of strings, bytes or small objects in one buffer, instead of a Python object each.

Guarantee: a `PackedList` never changes, and reading an item touches no memory but the item's copy: forked and spawned
workers share one buffer, where reading a list would copy its pages by writing reference counts. While one is built
there is one copy of the bytes, and at no time a second whole one (on Linux; elsewhere two, until it is built).
"""

from __future__ import annotations

import mmap
import operator
import os
import pickle
import reprlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, TypeVar, overload

import numpy as np

from feedline import sharing
from feedline.sharing import Block

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

__all__ = ["PackedList"]

T_co = TypeVar("T_co", covariant=True)

_PROTOCOL = 5
_SHARED_FROM = 1 << 16  # bytes: below it a block of its own would cost a descriptor and save nothing
_CHUNK_NBYTES = 1 << 20  # what is encoded at a time: a small part of any list that is worth packing
_CHUNK_ITEMS = 4096  # at most at a time, so that a chunk stays in the processor's cache
_FIRST_CHUNK_ITEMS = 16  # before anything is known of the items' size
_SHORT_OFFSETS_BELOW = 1 << 32  # bytes that offsets of 32 bits can address
_SHOWN = 4


def _text(encoded: Any) -> str:
    return str(encoded, "utf-8", "surrogatepass")  # any str comes back as it was, lone surrogates too


_DECODE: dict[str, Callable[[Any], Any]] = {"str": _text, "bytes": bytes, "object": pickle.loads}


class PackedList(Sequence[T_co]):
    """A list that cannot be changed, its items packed into one buffer that worker processes share.

    Strings take their UTF-8 bytes and an offset of 4 bytes (8 from 4 GiB on), where a list of them takes 60 bytes more
    each. Each access makes a new object. A slice of step 1 is a `PackedList` over the same memory; one of another step
    is packed anew. It equals any sequence of equal items. May be read by several threads.

    Args:
        items: all ``str``, all ``bytes``, or anything that can be pickled (a mixture too). They are consumed once.

    Items that are neither ``str`` nor ``bytes`` (subclasses included) are kept as pickles of protocol 5 and unpickled
    at each access. Those pickles are made by this process and read by it and its workers alone: a `PackedList` reads
    none from anywhere else. Pickling a `PackedList` itself is pickling its content, with the usual warning: unpickle
    nothing that you do not trust.

    Attributes:
        nbytes: the memory that the items and their offsets take, in bytes.

    Raises:
        OSError: there is no memory, or no descriptor, for it.

    Example:
        >>> paths = PackedList(f"train/{number}.jpg" for number in range(100_000))
        >>> paths[-1], len(paths[10:20]), paths.nbytes < 2_200_000
        ('train/99999.jpg', 10, True)
    """

    __slots__ = ("__weakref__", "_bounds", "_bytes", "_data", "_decode", "_kind", "_length", "_offsets")

    thread_safe = True
    uses_global_rng = False

    def __init__(self, items: Iterable[T_co] = ()) -> None:
        if isinstance(items, PackedList):
            self._adopt(items._kind, items._data, items._offsets)  # noqa: SLF001 -- of the same class
            return
        if isinstance(items, np.ndarray) and items.dtype.kind in "US":
            items = _plain(items)
        packer = _Packer(iter(items))
        self._adopt(*packer.packed())
        if packer.others is not None:  # the kinds differ: what was packed so far is packed again
            self._adopt(*_Packer(chain(self, packer.others), "object").packed())

    def _adopt(self, kind: str, data: NDArray[np.uint8], offsets: NDArray[Any]) -> None:
        self._kind, self._data, self._offsets = kind, data, offsets
        self._decode = _DECODE[kind]
        self._length = len(offsets) - 1
        # An item of a memoryview is a Python integer, at half the time of a NumPy scalar.
        self._bytes, self._bounds = data.data, offsets.data

    # -------------------------------------------------------------------------------------------------------- reading

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int, /) -> T_co: ...
    @overload
    def __getitem__(self, index: slice, /) -> PackedList[T_co]: ...
    def __getitem__(self, index: Any, /) -> Any:
        """The item at an integer, a new object each time; or the `PackedList` of a slice.

        Raises:
            IndexError: the index is outside the list.
            TypeError: it is neither an integer nor a slice.
        """
        if type(index) is not int:
            if isinstance(index, slice):
                return self._slice(index)
            try:
                index = operator.index(index)
            except TypeError:
                name = type(index).__name__
                raise TypeError(f"PackedList indices must be integers or slices, not {name}") from None
        place = index + self._length if index < 0 else index
        if not 0 <= place < self._length:
            raise IndexError(f"PackedList index out of range: {index} in a list of {self._length}")
        bounds = self._bounds
        return self._decode(self._bytes[bounds[place] : bounds[place + 1]])

    def __getitems__(self, indices: Iterable[int], /) -> list[T_co]:
        """The items at ``indices``, in their order."""
        return [self[index] for index in indices]

    def _slice(self, index: slice) -> PackedList[T_co]:
        start, stop, step = index.indices(self._length)
        if step == 1:
            return _restored(self._kind, self._data, self._offsets[start : max(start, stop) + 1])
        places = range(start, stop, step)
        return PackedList(self[place] for place in places)

    def __iter__(self) -> Iterator[T_co]:
        for start in range(0, self._length, _CHUNK_ITEMS):
            bounds = self._offsets[start : start + _CHUNK_ITEMS + 1].tolist()
            if self._kind == "str":  # ASCII is decoded once for many, which halves the time
                first = bounds[0]
                encoded: Any = bytes(self._bytes[first : bounds[-1]])
                whole = _text(encoded) if encoded.isascii() else None
                cut: Any = encoded if whole is None else whole
                bounds = [bound - first for bound in bounds]
            else:
                whole, cut = None, self._bytes
            items = map(cut.__getitem__, map(slice, bounds, bounds[1:]))
            yield from items if whole is not None else map(self._decode, items)

    def __contains__(self, value: object) -> bool:
        return any(item == value for item in self)  # not Sequence's, which reads item by item

    # ------------------------------------------------------------------------------------------------------ comparing

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str | bytes | bytearray | memoryview):
            return NotImplemented
        if len(self) != len(other):
            return False
        if isinstance(other, PackedList) and self._kind == other._kind != "object":
            (mine, my_bounds), (theirs, their_bounds) = self._content(), other._content()
            return np.array_equal(my_bounds, their_bounds) and np.array_equal(mine, theirs)
        return all(mine == theirs for mine, theirs in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]  # as a list: its items need not have one

    def _content(self) -> tuple[NDArray[np.uint8], NDArray[Any]]:
        """The items' bytes alone, and where each ends; views of the whole list's memory where it is all of it."""
        first, last = self._bounds[0], self._bounds[-1]
        offsets = self._offsets - first if first else self._offsets
        return self._data[first:last], offsets

    # ----------------------------------------------------------------------------------------------------- appearance

    @property
    def nbytes(self) -> int:
        """The memory that the items and their offsets take, in bytes."""
        return int(self._bounds[-1] - self._bounds[0] + self._offsets.nbytes)

    def __repr__(self) -> str:
        shown = ", ".join(reprlib.repr(item) for item in islice(self, _SHOWN))
        if self._length <= _SHOWN:
            return f"PackedList([{shown}])"
        return f"PackedList([{shown}, ...]; {self._length:,} items, {self.nbytes:,} bytes)"

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (self._kind, *self._content())


def _restored(kind: str, data: NDArray[np.uint8], offsets: NDArray[Any]) -> PackedList[Any]:
    """A list over arrays that are there already: nothing is copied."""
    made: PackedList[Any] = PackedList.__new__(PackedList)
    made._adopt(kind, data, offsets)  # noqa: SLF001 -- of the same module
    return made


# ------------------------------------------------------------------------------------------------------------- packing


class _Packer:
    """Packs items of one kind, up to the first chunk that holds another kind.

    Attributes:
        others: the items from that chunk on; None if there was none.
    """

    def __init__(self, items: Iterator[Any], kind: str | None = None) -> None:
        self.others: Iterator[Any] | None = None
        self._items = items
        self._kind = kind
        self._lengths: list[NDArray[Any]] = []
        self._nbytes = 0

    def packed(self) -> tuple[str, NDArray[np.uint8], NDArray[Any]]:
        """The kind, the items' bytes, and their offsets, one more than there are items."""
        memory = _stored(self._chunks())
        count = sum(map(len, self._lengths))
        dtype = _offset_type(self._nbytes)
        start = self._nbytes + self._padding
        offsets = memory[start : start + (count + 1) * dtype.itemsize].view(dtype)
        return self._kind or "object", memory[: self._nbytes], offsets

    def _chunks(self) -> Iterator[bytes]:
        """The items' bytes, then the offsets."""
        count = _FIRST_CHUNK_ITEMS
        while chunk := list(islice(self._items, count)):
            found = _kind_of(chunk)
            self._kind = self._kind or found
            if self._kind not in {found, "object"}:
                self.others = chain(chunk, self._items)
                break
            encoded, lengths = _encoded(chunk, self._kind)
            self._lengths.append(lengths)
            self._nbytes += len(encoded)
            count = min(_CHUNK_ITEMS, max(1, _CHUNK_NBYTES * len(chunk) // (len(encoded) + 1)))
            yield encoded
        yield bytes(self._padding)
        yield from self._offset_chunks()

    @property
    def _padding(self) -> int:
        return -self._nbytes % 8  # offsets are aligned

    def _offset_chunks(self) -> Iterator[bytes]:
        dtype, end = _offset_type(self._nbytes), 0
        yield bytes(dtype.itemsize)
        for lengths in self._lengths:
            ends = np.cumsum(lengths, dtype=np.int64) + end
            end = int(ends[-1])
            yield ends.astype(dtype).tobytes()


def _offset_type(nbytes: int) -> np.dtype[Any]:
    return np.dtype(np.uint32 if nbytes < _SHORT_OFFSETS_BELOW else np.int64)


def _kind_of(chunk: list[Any]) -> str:
    types = set(map(type, chunk))
    if len(types) == 1:
        (kind,) = types
        if kind is str or kind is bytes:
            return str(kind.__name__)
    return "object"


def _encoded(chunk: list[Any], kind: str) -> tuple[bytes, NDArray[Any]]:
    """The items' bytes end to end, and how many each has."""
    if kind == "str":
        text = "".join(chunk)
        if text.isascii():
            return text.encode(), _lengths(chunk)
        chunk = [item.encode("utf-8", "surrogatepass") for item in chunk]
    elif kind == "object":
        chunk = [pickle.dumps(item, _PROTOCOL) for item in chunk]
    return b"".join(chunk), _lengths(chunk)


def _lengths(chunk: list[Any]) -> NDArray[Any]:
    lengths = np.fromiter(map(len, chunk), np.int64, len(chunk))
    return lengths.astype(np.min_scalar_type(int(lengths.max())))  # kept until the end: a byte or two an item


def _plain(array: NDArray[Any]) -> Iterator[Any]:
    """The items of an array of strings as Python's own: as NumPy's they would be pickled, at six times the size."""
    for start in range(0, len(array), _CHUNK_ITEMS):
        yield from array[start : start + _CHUNK_ITEMS].tolist()


# ------------------------------------------------------------------------------------------------------------- storing


def _stored(chunks: Iterator[bytes]) -> NDArray[np.uint8]:
    """The chunks end to end, in a block where they are many; read-only."""
    head = bytearray()
    for chunk in chunks:
        head += chunk
        if len(head) >= _SHARED_FROM:
            break
    else:
        return np.frombuffer(bytes(head), np.uint8)
    memory = np.asarray(_block(chain([head], chunks)))
    memory.flags.writeable = False
    return memory


def _block(chunks: Iterable[bytes | bytearray]) -> Block:
    """A block that holds the chunks, whose number is known only when they end.

    An anonymous block's memory is a file that grows as it is written; elsewhere the chunks are kept until their size
    is known.
    """
    if not sharing.ANONYMOUS:
        return _block_of_all(list(chunks))
    descriptor = os.memfd_create("feedline", os.MFD_CLOEXEC)
    try:
        nbytes = 0
        for chunk in chunks:
            rest = memoryview(chunk)
            while rest:
                written = os.write(descriptor, rest)
                nbytes, rest = nbytes + written, rest[written:]
        size = -(-nbytes // mmap.PAGESIZE) * mmap.PAGESIZE
        os.ftruncate(descriptor, size)
        memory = mmap.mmap(descriptor, size)
    except BaseException:
        os.close(descriptor)
        raise
    return Block(memory, size, descriptor=descriptor)


def _block_of_all(chunks: list[bytes | bytearray]) -> Block:
    block = Block.create(sum(map(len, chunks)))
    memory, place = np.asarray(block), 0
    for chunk in chunks:
        memory[place : place + len(chunk)] = np.frombuffer(chunk, np.uint8)
        place += len(chunk)
    return block
