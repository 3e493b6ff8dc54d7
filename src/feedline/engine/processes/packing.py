"""A batch as a description and stretches of memory: what crosses from worker to parent.

Guarantee: `unpacker` gives what `packed` was given: containers, types and writability kept. Arrays, and torch tensors
in ordinary memory, are not copied on either side: each is a stretch of memory here and a view of one there. Whatever
else cloudpickle takes is in the description. Equal layouts have equal descriptions, so that one that was just sent need
not be sent again.
"""

from __future__ import annotations

import io
import pickle
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from feedline.engine.processes.pickling import numpy_of, rebuild_tensor
from feedline.engine.processes.returning import ReturningPickler
from feedline.frameworks import is_torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    Unpacker = Callable[[NDArray[np.uint8], Sequence[tuple[int, int]]], Any]

__all__ = ["Packed", "packed", "unpacker"]

_LAYOUT, _PICKLE = b"L", b"P"
_NO_LAYOUT = None
_PLAIN_KINDS = "biufc"


class Packed(NamedTuple):
    """A batch taken apart.

    Attributes:
        description: its structure, for `unpacker`.
        parts: the memory of its arrays, in order: contiguous and of one dimension at least.
    """

    description: bytes
    parts: list[Any]


class _NotPlain(Exception):  # noqa: N818 -- no error: the long way is taken
    """The batch is not made of plain containers and plain arrays alone."""


def packed(value: Any, *, whole: bool = False) -> Packed:
    """Take a batch apart.

    Args:
        value: the batch.
        whole: whether the memory of its arrays shall be in the description.

    Raises:
        Exception: whatever pickling a value of the user's raises.
    """
    parts: list[Any] = []
    try:
        layout = _NO_LAYOUT if whole else _layout(value, parts)
    except _NotPlain:
        layout = _NO_LAYOUT
    if layout is not _NO_LAYOUT:
        return Packed(_encoded(layout), parts)
    buffers: list[pickle.PickleBuffer] = []
    stream = io.BytesIO(_PICKLE)
    stream.seek(1)
    _Pickler(stream, 5, buffer_callback=None if whole else buffers.append).dump(value)
    return Packed(stream.getvalue(), [np.frombuffer(each.raw(), np.uint8) for each in buffers])


def unpacker(description: bytes) -> Unpacker:
    """A function that puts a batch of this description together, of memory with its arrays: their offsets and sizes."""
    content = memoryview(description)[1:]
    if description[:1] == _PICKLE:
        return (
            lambda memory, spans: pickle.loads(  # noqa: S301 -- of our own worker, by a private pipe
                content, buffers=[memory[offset : offset + nbytes] for offset, nbytes in spans]
            )
        )
    layout = pickle.loads(content)  # noqa: S301 -- as above
    return lambda memory, spans: _built(layout, memory, iter(spans))


class _Pickler(ReturningPickler):
    """Torch tensors go by their memory, and arrays keep their byte order, which NumPy loses where they have gaps."""

    def reducer_override(self, obj: Any) -> Any:
        if type(obj) is np.ndarray and not obj.dtype.isnative and not obj.dtype.hasobject:
            return obj.copy(order="C").__reduce_ex__(5)
        if is_torch(obj):
            reduced = _reduced(obj)
            if reduced is not None:
                return reduced
        return super().reducer_override(obj)


def _reduced(tensor: Any) -> Any:
    """How to make a tensor again from its memory; None where torch's own way is the only one."""
    torch = sys.modules["torch"]
    plain = type(tensor) is torch.Tensor and tensor.layout is torch.strided and tensor.device.type == "cpu"
    if not plain or tensor.is_quantized or tensor.is_nested or not tensor.is_leaf:
        return None
    if tensor.is_conj() or tensor.is_neg():
        return None
    memory: Any = np.ascontiguousarray(numpy_of(tensor)).reshape(-1)
    args = pickle.PickleBuffer(memory), tensor.dtype, tuple(tensor.shape), None, False, tensor.requires_grad
    return (rebuild_tensor, args, vars(tensor)) if vars(tensor) else (rebuild_tensor, args)


_encodings: dict[Any, bytes] = {}


def _encoded(layout: Any) -> bytes:
    encoding = _encodings.get(layout)
    if encoding is None:
        if len(_encodings) >= 64:  # shapes that never come again, of padded batches say, are not kept for ever
            _encodings.clear()
        encoding = _encodings[layout] = _LAYOUT + pickle.dumps(layout, 5)
    return encoding


def _layout(value: Any, parts: list[Any]) -> Any:
    """Tuples of plain values that describe a batch of plain containers and arrays."""
    cls = type(value)
    if cls is np.ndarray:
        dtype, flags = value.dtype, value.flags
        if dtype.kind not in _PLAIN_KINDS or not (flags.c_contiguous and flags.writeable and dtype.isnative):
            raise _NotPlain
        parts.append(value)
        return dtype.char, value.shape
    if cls is tuple or cls is list:
        return cls, *[_layout(each, parts) for each in value]
    if cls is dict:
        if not all(type(key) is str for key in value):
            raise _NotPlain
        return cls, tuple(value), *[_layout(each, parts) for each in value.values()]
    raise _NotPlain


def _built(layout: Any, memory: NDArray[np.uint8], spans: Iterator[tuple[int, int]]) -> Any:
    kind = layout[0]
    if type(kind) is str:
        return np.ndarray(layout[1], kind, memory, next(spans)[0])
    if kind is dict:
        return {key: _built(each, memory, spans) for key, each in zip(layout[1], layout[2:], strict=True)}
    return kind([_built(each, memory, spans) for each in layout[1:]])
