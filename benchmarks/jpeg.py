"""Photographs from files: read, decode, resize to 224 x 224, by two threads, beside a bare pool of threads and torch.

The files are those of ``--folder``, or photograph-like JPEG files (smooth noise, 500 x 375, about 100 KB) written to a
temporary folder. Decoded by simplejpeg where it is installed, else by OpenCV, and resized by OpenCV: the same function
for feedline, for a bare ThreadPoolExecutor that fills batches made before, and for torch's worker processes, which
also run with Pillow, as most of torch's users do. OpenCV's own threads are off.
"""

from __future__ import annotations

import tempfile
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import cache
from importlib.util import find_spec
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.harness import Bar, Case, Contender
from benchmarks.loaders import feedline_contender, torch_contender

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from concurrent.futures import Future

    from numpy.typing import NDArray

__all__ = ["Photographs", "build", "read_opencv", "read_pillow", "read_simplejpeg", "write_photographs"]

_WORKERS = 2
_BATCH_SIZE = 32
_SIDE = 224
_AHEAD = 4  # batches that the bare pool works on: what the loaders' default is, two a worker
_CHUNK = 4  # photographs a task of the bare pool: fewer cost more for tasks, more leave a thread idle at an end
_PHOTOGRAPH = (375, 500)
_FIELD = (1_500, 2_000)  # the noise of which photographs are pieces
_GRAINS = ((125, 60.0), (32, 30.0), (8, 20.0), (2, 14.0))  # pixels, and how many grey levels such spots differ
_QUALITY = 95  # gives about 100 KB
_TOLERANCE = 3.0  # grey levels between two decoders, in the mean of a photograph's ninth


class Photographs:
    """Files as ``(uint8 image, number)``, made by ``read``, a function of a path."""

    thread_safe = True
    uses_global_rng = False

    def __init__(self, paths: Sequence[str], read: Callable[[str], NDArray[np.uint8]]) -> None:
        self.paths = list(paths)
        self.read = read

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[NDArray[np.uint8], int]:
        return self.read(self.paths[index]), index


def read_simplejpeg(path: str, out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
    """The photograph by simplejpeg and OpenCV, written to ``out`` if that is given."""
    import cv2
    import simplejpeg

    image = simplejpeg.decode_jpeg(Path(path).read_bytes(), colorspace="RGB")
    return cv2.resize(image, (_SIDE, _SIDE), dst=out, interpolation=cv2.INTER_LINEAR)


def read_opencv(path: str, out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
    """The photograph by OpenCV alone."""
    import cv2

    image = cv2.imdecode(np.frombuffer(Path(path).read_bytes(), np.uint8), cv2.IMREAD_COLOR_RGB)
    return cv2.resize(image, (_SIDE, _SIDE), dst=out, interpolation=cv2.INTER_LINEAR)


def read_pillow(path: str) -> NDArray[np.uint8]:
    """The photograph by Pillow."""
    from PIL import Image

    with Image.open(path) as image:
        return np.array(image.convert("RGB").resize((_SIDE, _SIDE), Image.Resampling.BILINEAR))  # writable, for torch


def build(samples: int = 1_024, folder: Path | None = None) -> Iterator[Case]:
    """The case, with ``samples`` times a file of ``folder``, in turn, or with files of its own."""
    import cv2

    before = cv2.getNumThreads()
    cv2.setNumThreads(1)  # torch's workers are forked and inherit it
    with ExitStack() as ending:
        ending.callback(cv2.setNumThreads, before)
        if folder is None:
            here = Path(ending.enter_context(tempfile.TemporaryDirectory()))
            paths = write_photographs(here, samples)
        else:
            found = (path for path in folder.rglob("*") if path.suffix.lower() in {".jpg", ".jpeg"})
            paths = [str(path) for path in islice(cycle(sorted(found)), samples)]
        if not paths:
            raise ValueError(f"folder must hold files that end with .jpg or .jpeg, got {folder}")
        yield _case(paths, ending, ours=folder is None)


def _case(paths: list[str], ending: ExitStack, *, ours: bool) -> Case:
    name, read = ("simplejpeg", read_simplejpeg) if find_spec("simplejpeg") else ("OpenCV", read_opencv)
    fast, workers = Photographs(paths, read), {"batch_size": _BATCH_SIZE, "num_workers": _WORKERS}
    contenders = (
        feedline_contender(ending, "feedline", fast, backend="thread", **workers),
        _bare(ending, paths, read),
        torch_contender(ending, "torch", fast, **workers),
        torch_contender(ending, "torch Pillow", Photographs(paths, read_pillow), **workers),
    )
    sketches = np.stack([_sketch(read(path)) for path in paths])
    generator = np.random.default_rng(0)
    marks = generator.integers(0, 1 << 62, len(paths))

    def fingerprint(batch: Any) -> int:
        """The sum of the marks of those photographs that look as the file of their number does."""
        images, numbers = np.asarray(batch[0]), np.asarray(batch[1])
        apart = np.abs(np.stack([_sketch(image) for image in images]) - sketches[numbers]).max(axis=(1, 2, 3))
        return sum(marks[numbers[apart <= _TOLERANCE]].tolist())

    return Case(
        name="jpeg",
        samples=len(paths),
        batches=-(-len(paths) // _BATCH_SIZE),
        nbytes=len(paths) * (_SIDE * _SIDE * 3 + 8),
        contenders=contenders,
        bars=(
            Bar("feedline", "bare pool", 0.95),
            Bar("feedline", "torch", 1.1),
            Bar("feedline", "torch Pillow", 1.7),
        ),
        count=lambda batch: len(batch[1]),
        fingerprint=fingerprint,
        expected=sum(marks.tolist()),
        settings={
            "files": "made here" if ours else "given",
            "mean_kb": round(sum(Path(path).stat().st_size for path in paths) / len(paths) / 1e3, 1),
            "decoder": name,
            "batch_size": _BATCH_SIZE,
            "num_workers": _WORKERS,
        },
        close=ending.close,
    )


def _sketch(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The mean colours of nine parts of a photograph: next to the same for all decoders."""
    third = _SIDE // 3
    return image[: 3 * third, : 3 * third].reshape(3, third, 3, third, 3).mean(axis=(1, 3))


def _bare(
    ending: ExitStack, paths: list[str], read: Callable[[str, NDArray[np.uint8]], NDArray[np.uint8]]
) -> Contender:
    """A pool of threads that write photographs straight into batches made before, some batches ahead of the loop."""
    pool = ending.enter_context(ThreadPoolExecutor(_WORKERS))
    starts = range(0, len(paths), _BATCH_SIZE)
    # Besides those ahead, the batch that is handed out and the last one, which the loop holds until then.
    buffers = [np.empty((_BATCH_SIZE, _SIDE, _SIDE, 3), np.uint8) for _ in range(_AHEAD + 2)]

    def fill(out: NDArray[np.uint8], begin: int) -> None:
        for place, path in enumerate(paths[begin : begin + len(out)]):
            read(path, out[place])

    def begun(turn: int) -> tuple[NDArray[np.uint8], list[Future[None]]]:
        begin = starts[turn]
        out = buffers[turn % len(buffers)][: len(paths) - begin]
        chunks = range(0, len(out), _CHUNK)
        return out, [pool.submit(fill, out[chunk : chunk + _CHUNK], begin + chunk) for chunk in chunks]

    def batches(_number: int) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.int64]]]:
        ahead = deque(begun(turn) for turn in range(min(_AHEAD, len(starts))))
        for turn, begin in enumerate(starts):
            out, tasks = ahead.popleft()
            if turn + _AHEAD < len(starts):
                ahead.append(begun(turn + _AHEAD))
            for task in tasks:
                task.result()
            yield out, np.arange(begin, begin + len(out))

    return Contender("bare pool", batches)


def write_photographs(folder: Path, count: int) -> list[str]:
    """JPEG files that cost about what photographs do: pieces of smooth noise of several grains. Their paths."""
    import cv2

    generator, field, paths = np.random.default_rng(0), _noise(), []
    for number in range(count):
        top, left = generator.integers(0, np.subtract(_FIELD, _PHOTOGRAPH))
        piece = field[top : top + _PHOTOGRAPH[0], left : left + _PHOTOGRAPH[1]]
        _, encoded = cv2.imencode(".jpg", piece, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
        paths.append(str(folder / f"{number:06}.jpg"))
        Path(paths[-1]).write_bytes(encoded.tobytes())
    return paths


@cache
def _noise() -> NDArray[np.uint8]:
    import cv2

    generator, (height, width) = np.random.default_rng(1), _FIELD
    field = np.full((height, width, 3), 128, np.float32)
    for grain, strength in _GRAINS:
        coarse = generator.standard_normal((height // grain, width // grain, 3), dtype=np.float32)
        field += strength * cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return field.clip(0, 255).astype(np.uint8)
