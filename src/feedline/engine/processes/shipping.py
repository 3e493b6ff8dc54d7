"""How a dataset, and all that works on it, is sent to worker processes: once.

Guarantee: large arrays and tensors lie in one block of shared memory that all workers map copy-on-write; arrays that
lie in a block already, memory maps and files travel as references. While a value is shipped there is at most one copy
of its large memory, which is the block. What cannot be sent is named by its attribute path, before anything is made.
"""

from __future__ import annotations

import io
import os
import pickle
import weakref
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from feedline.engine.processes.culprits import explained, path_to
from feedline.engine.processes.pickling import LARGE, Piece, ShippingPickler
from feedline.engine.processes.returning import note_classes
from feedline.sharing import Block

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Span = tuple[int, int, int]

__all__ = ["Shipment", "ship", "unpack"]

_ALIGNMENT = 64  # a cache line
_RELATIVE = 16  # what overlaps keeps its addresses' remainder, so that each array in it stays aligned
_CHUNK = 1024 * 1024  # bytes compared at a time: they stay in the cache
_DESCRIPTOR = -1  # the block's number in a span that stands for a descriptor


class _Duplicates:
    """Descriptors that a shipment owns."""

    def __init__(self, descriptors: Sequence[int]) -> None:
        self.descriptors: list[int] = []
        for descriptor in descriptors:  # if one fails, those before go with this object
            self.descriptors.append(os.dup(descriptor))

    def close(self) -> None:
        while self.descriptors:
            os.close(self.descriptors.pop())

    def __del__(self) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class _Seen:
    """What was laid aside, as it was then."""

    owner: weakref.ref[Any] | None
    address: int
    version: int


@dataclass(frozen=True, slots=True)
class _Record:
    """What `Shipment.matches` compares with, and `Shipment.close` closes."""

    forked: bool
    seen: tuple[_Seen | int, ...]
    origins: tuple[tuple[int, int], ...]
    duplicates: _Duplicates
    block: Block | None


@dataclass(frozen=True, slots=True, eq=False)
class Shipment:
    """A value on its way to worker processes, any number of them, at any time until it is closed.

    Attributes:
        payload: the skeleton, pickled; empty where it is large: then it is the first span.
        blocks: shared memory that the workers map.
        spans: what lies beside the skeleton, in the order in which it is read: the number of the block, offset and
            length in bytes; for a descriptor -1, its number, and 0.
        descriptors: duplicates of those of the user's multiprocessing objects, owned by the shipment.
        needs_fork: the attribute path of a multiprocessing lock that only forks have, if there is one and the
            workers are no forks: then there is nothing else in the shipment.
    """

    payload: bytes
    blocks: tuple[Block, ...]
    spans: tuple[Span, ...]
    descriptors: tuple[int, ...]
    needs_fork: str | None
    _record: _Record = field(repr=False)

    @property
    def skeleton(self) -> memoryview:
        """The skeleton's pickle, wherever it lies."""
        return memoryview(self.payload or self._memory(self.spans[0]).data)

    def close(self) -> None:
        """Close the descriptors; those of blocks that the value had already stay. May be called again."""
        self._record.duplicates.close()
        if self._record.block is not None:
            self._record.block.close_descriptor()

    def received(self) -> Any:
        """What a worker makes of it, made here: for a look at it. It needs no descriptors of the user's."""
        blocks = [
            Block.attach(block.nbytes, descriptor=os.dup(block.descriptor), private=True) for block in self.blocks
        ]
        return unpack(self.payload, blocks, self.spans, ())

    def matches(self, value: Any) -> bool:
        """Whether shipping ``value`` now would give the same.

        All that is small is compared with what was shipped. Large arrays are the same if they are the same objects at
        the same place, or hold the same bytes; changes in place are found in the arrays of our own array datasets,
        and where torch counts them. Memory maps and files are compared by name and place.
        """
        if self.needs_fork is not None:
            return False
        inside = not self.payload
        comparison = _Comparison(self.skeleton)
        pickler = ShippingPickler(comparison, forked=self._record.forked)
        try:
            pickler.write(value)
        except Exception:  # noqa: BLE001 -- it differs, or can no longer be pickled: shipping it will say why
            return False
        seen, spans = self._record.seen, self.spans[inside:]
        return (
            comparison.is_complete
            and len(pickler.pieces) == len(seen)
            and _origins(pickler.descriptors) == self._record.origins
            and all(map(self._is_same, pickler.pieces, seen, spans))
        )

    def _is_same(self, piece: Piece | int, seen: _Seen | int, span: Span) -> bool:
        if isinstance(piece, int) or isinstance(seen, int):
            return piece == seen
        number, offset, nbytes = span
        if piece.memory.nbytes != nbytes:
            return False
        if piece.block is not None:
            return piece.block is self.blocks[number] and piece.address - piece.block.address == offset
        if self.blocks[number] is not self._record.block:
            return False
        same = seen.owner is not None and piece.owner is seen.owner()
        if same and not piece.watched and (piece.address, piece.version) == (seen.address, seen.version):
            return True
        return _same_bytes(piece.memory, self._memory(span))

    def _memory(self, span: Span) -> NDArray[np.uint8]:
        return _at(self.blocks, span)


class _Differs(Exception):  # noqa: N818 -- no error, an answer
    """A pickle is another one."""


class _Comparison:
    """A file that holds each write to what is expected there."""

    def __init__(self, expected: memoryview) -> None:
        self._expected = expected
        self._place = 0

    def write(self, data: Any) -> int:
        size = len(data)
        if self._expected[self._place : self._place + size] != data:
            raise _Differs
        self._place += size
        return size

    @property
    def is_complete(self) -> bool:
        return self._place == len(self._expected)


def ship(value: Any, *, name: str = "dataset", forked: bool = False) -> Shipment:
    """Make ``value`` ready for worker processes.

    Args:
        value: anything; where it is a tuple, arrays among its members are watched for changes in place.
        name: what messages call it; empty: its attributes, or the keys of a dict, are called by their names alone.
        forked: whether all workers will be forks of this process, made from now on.

    Raises:
        CannotShip: a part of it cannot be sent; the message names it.
        OSError: there is no memory, or no descriptor, for it.

    Example:
        >>> shipment = ship({"images": np.zeros((100, 32, 32)), "classes": ["cat", "dog"]})
        >>> len(shipment.payload) < 500, len(shipment.blocks), shipment.spans
        (True, 1, ((0, 0, 819200),))
        >>> unpack(shipment.payload, shipment.blocks, shipment.spans, ())["images"].shape
        (100, 32, 32)
        >>> shipment.close()
    """
    file = io.BytesIO()
    pickler = ShippingPickler(file, forked=forked)
    try:
        pickler.write(value)
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 -- a user's __getstate__ may raise anything
        refusal = explained(value, name, error)
        raise refusal from refusal.__cause__
    if pickler.fork_lock is not None:
        record = _Record(forked, (), (), _Duplicates(()), None)
        return Shipment(b"", (), (), (), path_to(value, name, pickler.fork_lock), record)
    pieces = pickler.pieces
    payload = b""
    if file.getbuffer().nbytes >= LARGE:
        pieces = [Piece(np.frombuffer(file.getbuffer(), np.uint8), owner=None), *pieces]
    else:
        payload = file.getvalue()
    seen = tuple(_seen(piece) for piece in pickler.pieces)
    duplicates = _Duplicates(pickler.descriptors)
    block, blocks, spans = _stow(pieces)
    record = _Record(forked, seen, _origins(pickler.descriptors), duplicates, block)
    return Shipment(payload, blocks, spans, tuple(duplicates.descriptors), None, record)


def unpack(
    payload: bytes | memoryview, blocks: Sequence[Block], spans: Sequence[Span], descriptors: Sequence[int]
) -> Any:
    """What was shipped, in the worker; arrays are views of the blocks, which live as long as any of them.

    Args:
        payload: the shipment's.
        blocks: the shipment's, attached here; ``private``, so that each worker may write into its arrays.
        spans: the shipment's.
        descriptors: those received in place of the shipment's. They belong to the value from now on; those that it
            does not take, or all that are left when this raises, are closed.
    """
    received = [_Received(descriptor) for descriptor in descriptors]
    try:
        buffers = [received[span[1]] if span[0] == _DESCRIPTOR else _at(blocks, span) for span in spans]
        skeleton: Any = payload or buffers.pop(0)
        value = pickle.loads(skeleton, buffers=buffers)  # noqa: S301 -- of our own parent
    finally:
        for each in received:
            each.close()
    note_classes()
    return value


class _Received:
    """A descriptor that came with a shipment, until the object that it belongs to takes it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

    def detach(self) -> int:
        descriptor, self._descriptor = self._descriptor, None
        assert descriptor is not None, "each object takes its own"
        return descriptor

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self.detach())


def _at(blocks: Sequence[Block], span: Span) -> NDArray[np.uint8]:
    number, offset, nbytes = span
    memory: NDArray[np.uint8] = np.asarray(blocks[number])[offset : offset + nbytes]
    return memory


def _seen(piece: Piece | int) -> _Seen | int:
    if isinstance(piece, int):
        return piece
    return _Seen(None if piece.owner is None else weakref.ref(piece.owner), piece.address, piece.version)


def _origins(descriptors: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """What descriptors lead to: their numbers alone may be used again for others."""
    return tuple((found.st_dev, found.st_ino) for found in map(os.fstat, descriptors))


def _stow(pieces: Sequence[Piece | int]) -> tuple[Block | None, tuple[Block, ...], tuple[Span, ...]]:
    """Copy what lies in no block into a new one; gives it, all blocks, and each piece's span."""
    offsets, size = _places([piece for piece in pieces if isinstance(piece, Piece) and piece.block is None])
    block = Block.create(size) if offsets else None
    blocks: dict[int, Block] = {} if block is None else {id(block): block}
    numbers = {key: number for number, key in enumerate(blocks)}
    spans: list[Span] = []
    for piece in pieces:
        if isinstance(piece, int):
            spans.append((_DESCRIPTOR, piece, 0))
            continue
        if piece.block is None:
            assert block is not None
            home, offset = block, offsets[id(piece)]
        else:
            home, offset = piece.block, piece.address - piece.block.address
        blocks.setdefault(id(home), home)
        span = (numbers.setdefault(id(home), len(numbers)), offset, piece.memory.nbytes)
        spans.append(span)
        if piece.block is None:
            memory = piece.memory
            np.copyto(np.ndarray(memory.shape, memory.dtype, np.asarray(home), offset), memory)
    return block, tuple(blocks.values()), tuple(spans)


def _places(pieces: Sequence[Piece]) -> tuple[dict[int, int], int]:
    """Where each piece comes to lie, and the size of it all. Pieces that overlap here overlap there too."""
    offsets: dict[int, int] = {}
    size = first = end = start = 0  # of the present stretch: first address, end address, offset
    for piece in sorted(pieces, key=lambda piece: (not piece.is_flat, piece.address)):
        address = piece.address
        if not (piece.is_flat and first <= address < end):
            start = -(-size // _ALIGNMENT) * _ALIGNMENT + address % _RELATIVE
            first = end = address
        offsets[id(piece)] = start + address - first
        end = max(end, address + piece.memory.nbytes)
        size = max(size, start + end - first)
    return offsets, size


def _same_bytes(memory: NDArray[Any], shared: NDArray[np.uint8]) -> bool:
    """Whether memory, flat or with gaps, holds the bytes: truth of bytes, for NaN is not equal to itself."""
    if memory.ndim == 1 and memory.flags.c_contiguous:
        flat = memory.view(np.uint8)
        return all(
            np.array_equal(flat[place : place + _CHUNK], shared[place : place + _CHUNK])
            for place in range(0, len(flat), _CHUNK)
        )
    size = memory[:1].nbytes
    step = max(1, _CHUNK // size)
    return all(
        np.array_equal(
            np.ascontiguousarray(memory[row : row + step]).reshape(-1).view(np.uint8),
            shared[row * size : (row + step) * size],
        )
        for row in range(0, len(memory), step)
    )
