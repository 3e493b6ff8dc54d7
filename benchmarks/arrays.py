"""Images in memory, shuffled into batches: feedline against torch and a bare loop of np.take.

50,000 x 32 x 32 x 3 uint8 (random bytes: zeros would share one page of memory) with int64 labels, batch 512, one
epoch. torch holds the same memory as tensors, as its users do, and draws its batches in the main process, as feedline
does. The bare loop is given its permutation and writes into two pairs of buffers by turns, so that, as in training,
the last batch is intact while the next is made; it neither shuffles nor allocates: the floor for who copies each
sample once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.harness import Bar, Case, Contender

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from numpy.typing import NDArray

__all__ = ["build"]

_SHAPE = (32, 32, 3)
_CLASSES = 10


def build(samples: int = 50_000, batch_size: int = 512, seed: int = 0) -> Iterator[Case]:
    """The case, with data of its own."""
    generator = np.random.default_rng(seed)
    images = generator.integers(0, 256, (samples, *_SHAPE), dtype=np.uint8)
    labels = generator.integers(0, _CLASSES, samples)
    fingerprint = _fingerprint(generator)
    yield Case(
        name="arrays",
        samples=samples,
        batches=-(-samples // batch_size),
        nbytes=images.nbytes + labels.nbytes,
        contenders=(
            Contender("feedline", _feedline(images, labels, batch_size, seed)),
            Contender("np.take", _take(images, labels, batch_size)),
            Contender("torch", _torch(images, labels, batch_size, seed)),
        ),
        bars=(Bar("feedline", "torch", 10.0), Bar("feedline", "np.take", 0.8)),
        count=lambda batch: len(batch[1]),
        fingerprint=fingerprint,
        expected=fingerprint((images, labels)),
        settings={"shape": list(_SHAPE), "batch_size": batch_size, "shuffled": True, "num_workers": 0},
    )


def _feedline(
    images: NDArray[np.uint8], labels: NDArray[np.int64], batch_size: int, seed: int
) -> Callable[[int], Iterable[Any]]:
    from feedline import DataLoader, TensorDataset

    loader: DataLoader[Any] = DataLoader(TensorDataset(images, labels), batch_size=batch_size, shuffle=True, seed=seed)
    return lambda _round: loader


def _torch(
    images: NDArray[np.uint8], labels: NDArray[np.int64], batch_size: int, seed: int
) -> Callable[[int], Iterable[Any]]:
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    dataset = TensorDataset(torch.from_numpy(images), torch.from_numpy(labels))
    generator = torch.Generator().manual_seed(seed)
    loader = DataLoader(dataset, batch_size=batch_size, shuffle=True, num_workers=0, generator=generator)
    return lambda _round: loader


def _take(images: NDArray[np.uint8], labels: NDArray[np.int64], batch_size: int) -> Callable[[int], Iterable[Any]]:
    buffers = [
        (np.empty((batch_size, *images.shape[1:]), images.dtype), np.empty(batch_size, labels.dtype)) for _ in range(2)
    ]

    def batches(order: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.int64]]]:
        for begin in range(0, len(order), batch_size):
            rows = order[begin : begin + batch_size]
            x, y = buffers[begin // batch_size % 2]
            x, y = x[: len(rows)], y[: len(rows)]
            np.take(images, rows, axis=0, out=x, mode="clip")
            np.take(labels, rows, axis=0, out=y, mode="clip")
            yield x, y

    return lambda number: batches(np.random.default_rng(number).permutation(len(labels)))


def _fingerprint(generator: np.random.Generator) -> Callable[[Any], int]:
    """A checksum of a batch: the sum of its samples' hashes, each of an image together with its own label."""
    words = int(np.prod(_SHAPE)) // 8
    weights = generator.integers(0, 1 << 64, words, dtype=np.uint64)
    mixers = generator.integers(0, 1 << 64, _CLASSES, dtype=np.uint64) | np.uint64(1)

    def fingerprint(batch: Any) -> int:
        images, labels = np.asarray(batch[0]), np.asarray(batch[1])
        hashes = images.reshape(len(images), -1).view(np.uint64) @ weights
        hashes ^= hashes >> np.uint64(32)  # not linear, so that labels cannot change places unseen
        return int((hashes * mixers[labels]).sum())

    return fingerprint
