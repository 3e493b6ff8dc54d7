"""The IDX format of the MNIST files: n-dimensional arrays behind a short header, compressed by gzip or not.

A file is two zero bytes, a byte for the element type, a byte for the number of dimensions, each dimension as
a big-endian 32-bit integer, then the elements, big-endian, last dimension fastest (Y. LeCun, C. Cortes, C.
Burges, "The MNIST database of handwritten digits", section "File formats").

Guarantee: any sequence of bytes gives the array that its header describes, or `CorruptSample`; nothing else.
Memory grows with what the data hold, never with what the header promises, and no more is decompressed than it
promises.
"""

from __future__ import annotations

import gzip
import io
import math
import sys
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from feedline.errors import CorruptSample

if TYPE_CHECKING:
    import os

    from numpy.typing import NDArray

__all__ = ["parse_idx", "read_idx"]

_ELEMENTS: dict[int, np.dtype[Any]] = {
    0x08: np.dtype(">u1"),
    0x09: np.dtype(">i1"),
    0x0B: np.dtype(">i2"),
    0x0C: np.dtype(">i4"),
    0x0D: np.dtype(">f4"),
    0x0E: np.dtype(">f8"),
}
_MAX_NDIM = 32  # what every supported NumPy can hold
_GZIP_MAGIC = b"\x1f\x8b"
_CHUNK_NBYTES = 1 << 20  # large enough to amortise a call, small enough to waste on a file that breaks off


def read_idx(path: str | os.PathLike[str]) -> NDArray[Any]:
    """The array in an IDX file.

    Args:
        path: the file, plain or gzip (recognised by its first bytes, not by its name).

    Returns:
        A writable array in the machine's byte order, C-contiguous, whose memory nothing else holds; of dtype
        uint8, int8, int16, int32, float32 or float64.

    Raises:
        CorruptSample: the file is no IDX file, breaks off, or holds more than its header says. The offset
            counts decompressed bytes.
        OSError: the file cannot be read.
    """
    with Path(path).open("rb") as file:
        return _read(file, path)


def parse_idx(data: bytes, *, path: str | os.PathLike[str] | None = None) -> NDArray[Any]:
    """The array in the bytes of an IDX file, as `read_idx` gives it.

    Args:
        data: the whole file, plain or gzip.
        path: where the bytes come from, for errors.

    Raises:
        CorruptSample: see `read_idx`.

    Example:
        >>> parse_idx(bytes([0, 0, 0x08, 2, 0, 0, 0, 2, 0, 0, 0, 3]) + bytes([1, 2, 3, 4, 5, 6]))
        array([[1, 2, 3],
               [4, 5, 6]], dtype=uint8)
    """
    return _read(io.BytesIO(data), path)


def _read(file: BinaryIO, path: str | os.PathLike[str] | None) -> NDArray[Any]:
    magic = file.read(len(_GZIP_MAGIC))
    file.seek(0)
    if magic != _GZIP_MAGIC:
        return _array(_Fields(file, path))
    with gzip.GzipFile(fileobj=file) as decompressed:
        return _array(_Fields(decompressed, path))


class _Fields:
    """Bytes taken off a stream one field after the other, each complete or `CorruptSample`."""

    def __init__(self, stream: BinaryIO | gzip.GzipFile, path: str | os.PathLike[str] | None) -> None:
        self._stream = stream
        self._path = path
        self._offset = 0

    def take(self, nbytes: int, name: str) -> bytearray:
        field = bytearray()
        while len(field) < nbytes:
            chunk = self._chunk(min(nbytes - len(field), _CHUNK_NBYTES))
            if not chunk:
                raise self.corrupt(f"expected {nbytes} bytes of {name}, found {len(field)}")
            field += chunk
        self._offset += nbytes
        return field

    def end(self) -> None:
        if self._chunk(1):
            raise self.corrupt("expected the data to end here, found more")

    def corrupt(self, message: str, *, back: int = 0) -> CorruptSample:
        """The error about the byte ``back`` bytes before the next one."""
        return CorruptSample(message, path=self._path, offset=self._offset - back)

    def _chunk(self, nbytes: int) -> bytes:
        try:
            return self._stream.read(nbytes)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise self.corrupt(f"expected a sound gzip stream from here on: {error}") from error


def _array(fields: _Fields) -> NDArray[Any]:
    dtype, shape = _header(fields)
    nbytes = math.prod(shape) * dtype.itemsize
    elements = fields.take(nbytes, f"elements for shape {shape}, {dtype.itemsize} each")
    fields.end()
    array: NDArray[Any] = np.ndarray(shape, dtype, buffer=elements)
    return array.astype(dtype.newbyteorder("="), copy=False)


def _header(fields: _Fields) -> tuple[np.dtype[Any], tuple[int, ...]]:
    magic = fields.take(4, "magic number")
    if magic[:2] != b"\0\0":
        raise fields.corrupt(
            f"expected an IDX magic number (it begins with two zero bytes), found 0x{magic.hex()}", back=4
        )
    dtype = _ELEMENTS.get(magic[2])
    if dtype is None:
        known = ", ".join(f"0x{code:02X}" for code in _ELEMENTS)
        raise fields.corrupt(f"expected an element type among {known}, found 0x{magic[2]:02X}", back=2)
    ndim = magic[3]
    if not 1 <= ndim <= _MAX_NDIM:
        raise fields.corrupt(f"expected 1 to {_MAX_NDIM} dimensions, found {ndim}", back=1)
    dimensions = fields.take(4 * ndim, f"{ndim} dimensions")
    shape = tuple(int(size) for size in np.frombuffer(dimensions, ">u4"))
    # NumPy refuses shapes whose non-zero dimensions overflow, even when another is zero and there is no
    # element.
    if math.prod(max(size, 1) for size in shape) * dtype.itemsize > sys.maxsize:
        raise fields.corrupt(f"expected dimensions that memory can hold, found {shape}", back=4 * ndim)
    return dtype, shape
