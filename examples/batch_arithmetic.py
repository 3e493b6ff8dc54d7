"""The arithmetic of batches: how many there are, how much memory they take, and what sampling weights do.

Each function answers one question; the examples in its docstring are the answers, checked by running them.

Run it: ``python examples/batch_arithmetic.py``, or check it: ``python -m doctest -v examples/batch_arithmetic.py``
"""

from __future__ import annotations

import tracemalloc
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from feedline import DataLoader, WeightedRandomSampler

if TYPE_CHECKING:
    from collections.abc import Callable

MIB = 1024**2
PHOTO = (3, 224, 224)  # channels, height, width


def batch_lengths(samples: int, batch_size: int, *, drop_last: bool = False) -> list[int]:
    """How many samples each batch of an epoch holds.

    The last batch gets what is left; there are ⌈samples / batch_size⌉ batches. With ``drop_last`` a last batch that is
    not full is left out.

    >>> batch_lengths(100, 32)
    [32, 32, 32, 4]
    >>> batch_lengths(100, 32, drop_last=True)
    [32, 32, 32]
    >>> batch_lengths(96, 32)
    [32, 32, 32]
    >>> batch_lengths(3, 32)
    [3]
    """
    loader = DataLoader(range(samples), batch_size=batch_size, drop_last=drop_last)
    lengths = [len(batch) for batch in loader]
    assert len(loader) == len(lengths), "the length is known before anything is loaded"
    return lengths


def batch_nbytes(batch_size: int, shape: tuple[int, ...], dtype: type) -> int:
    """The bytes of a batch: samples, times values in a sample, times bytes of a value.

    A batch of 128 CIFAR images, (3, 32, 32), once as the float32 that a network computes with, once as the uint8 that
    the files hold: a quarter of it.

    >>> batch_nbytes(128, (3, 32, 32), np.float32) / MIB
    1.5
    >>> batch_nbytes(128, (3, 32, 32), np.uint8) / MIB
    0.375

    Photos are larger:

    >>> batch_nbytes(128, PHOTO, np.float32)
    77070336
    """
    return batch_size * prod(shape) * np.dtype(dtype).itemsize


class Photos:
    """A dataset whose samples are made when they are asked for, as if they were decoded from files."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> np.ndarray:
        return np.full(PHOTO, index, dtype=np.float32)


def gather_and_stack(batch_size: int) -> np.ndarray:
    """A batch as most code makes it: all samples in a list, then copied into one array."""
    photos = Photos(batch_size)
    return np.stack([photos[i] for i in range(batch_size)])


def load(batch_size: int) -> np.ndarray:
    """A batch as the loader makes it: each sample written into its place, then forgotten."""
    return next(iter(DataLoader(Photos(batch_size), batch_size=batch_size)))


def load_from_memory(batch_size: int) -> np.ndarray:
    """A batch of samples that are in memory already (for this purpose, one photo many times)."""
    photo = np.zeros(PHOTO, dtype=np.float32)
    return next(iter(DataLoader([photo] * batch_size, batch_size=batch_size)))


def most_memory(make_batch: Callable[[int], np.ndarray], batch_size: int) -> int:
    """The most bytes that were in use at any moment while a batch was being made.

    A list of 128 photos and the batch made of it stand in memory side by side, twice the bytes of the batch. The loader
    needs the batch, and the one or two photos at hand.

    >>> batch, photo = batch_nbytes(128, PHOTO, np.float32), batch_nbytes(1, PHOTO, np.float32)
    >>> most_memory(gather_and_stack, 128) // photo
    256
    >>> most_memory(load, 128) // photo - 128 <= 2
    True

    Where the samples exist already, stacking them copies the 77,070,336 bytes of the batch, and the loader not one
    more: beyond the batch and that one photo there are only some Python objects, as many for 128 photos as for 16.

    >>> [most_memory(load_from_memory, n) - (n + 1) * photo < 32_768 for n in (16, 128)]
    [True, True]
    """
    make_batch(1)  # what is made once, on first use, is not the batch's
    tracemalloc.start()
    try:
        batch = make_batch(batch_size)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert batch.nbytes == batch_nbytes(batch_size, PHOTO, np.float32)
    return peak


def balanced_shares(counts: list[int], draws: int, *, seed: int = 0) -> list[float]:
    """The share of each class among ``draws`` samples when a sample's weight is one over the size of its class.

    A class of n samples of weight 1/n has the total weight 1, whatever n: all classes are drawn equally often. By
    chance a share of p is off by about √(p(1 - p)/draws), 0.003 for a third and 30,000 draws; four times that is a
    safe tolerance. (Balance is not information: each of the 50 rare samples is then drawn some 200 times.)

    >>> shares = balanced_shares([1000, 100, 50], draws=30_000)
    >>> tolerance = 4 * (1 / 3 * 2 / 3 / 30_000) ** 0.5
    >>> all(abs(share - 1 / 3) < tolerance for share in shares)
    True
    """
    labels = np.repeat(np.arange(len(counts)), counts)
    weights = 1 / np.bincount(labels)[labels]
    loader = DataLoader(labels, batch_size=500, sampler=WeightedRandomSampler(weights, draws), seed=seed)
    drawn = sum(np.bincount(batch, minlength=len(counts)) for batch in loader)
    return [float(count) / draws for count in drawn]


def main() -> None:
    """Print the answers."""
    print("100 samples in batches of 32:", batch_lengths(100, 32))
    print("the same with drop_last:     ", batch_lengths(100, 32, drop_last=True))

    print("\nbatch of 128                 bytes      MiB")
    for name, shape, dtype in [
        ("CIFAR, uint8", (3, 32, 32), np.uint8),
        ("CIFAR, float32", (3, 32, 32), np.float32),
        ("photos, float32", PHOTO, np.float32),
    ]:
        nbytes = batch_nbytes(128, shape, dtype)
        print(f"{name:18} {nbytes:15,} {nbytes / MIB:8.3f}")

    print("\nmost memory while making a batch of 128 photos")
    for name, make_batch in [
        ("gather, then stack", gather_and_stack),
        ("loader", load),
        ("loader, in memory", load_from_memory),
    ]:
        peak = most_memory(make_batch, 128)
        print(f"{name:18} {peak:15,} {peak / MIB:8.3f}")

    print("\nclass   samples   drawn with weight 1/samples")
    counts = [1000, 100, 50]
    for label, share in enumerate(balanced_shares(counts, draws=30_000)):
        print(f"{label:5} {counts[label]:9} {share:29.1%}")


if __name__ == "__main__":
    main()
