"""Threads or processes? The same epoch made by the loader alone, by two of each, with a clock beside them.

A loader with ``num_workers=2`` makes batches while the training step computes. Its workers are threads or processes,
and which of them are faster depends on what a sample needs:

- *waiting* (for a disk, a network), and the C code of NumPy, decoders and compressors, let other threads run meanwhile;
- *Python code* does not: one thread of a process runs Python at a time. Processes have an interpreter each.

All give the same batches, to the last bit, random rotations included: what `feedline.rng` draws depends on the seed,
the epoch and the sample's place in it, not on who makes the sample. The processes never import this file again: the
functions below are sent to them, and a script needs no ``if __name__ == "__main__"`` for their sake.

Run it: ``python examples/workers.py``
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

import numpy as np

import feedline
from feedline import DataLoader, Subset
from feedline.datasets import Digits

if TYPE_CHECKING:
    from collections.abc import Callable

IMAGES = 192
BACKENDS = {"serial": 0, "thread": 2, "process": 2}  # with so many workers


def fetched(image: np.ndarray) -> np.ndarray:
    """The image, after 1 ms, as from a slow disk."""
    time.sleep(0.001)
    return image


def rotated(image: np.ndarray) -> np.ndarray:
    """The image, enlarged and turned by up to 15 degrees, in plain Python: each pixel takes the nearest one's value."""
    image = image.repeat(6, axis=0).repeat(6, axis=1)
    angle = math.radians(feedline.rng().uniform(-15, 15))
    sine, cosine = math.sin(angle), math.cos(angle)
    height, width = image.shape
    turned = np.zeros_like(image)
    for row in range(height):
        for column in range(width):
            y, x = row - (height - 1) / 2, column - (width - 1) / 2
            source_row = round(cosine * y - sine * x + (height - 1) / 2)
            source_column = round(sine * y + cosine * x + (width - 1) / 2)
            if 0 <= source_row < height and 0 <= source_column < width:
                turned[row, column] = image[source_row, source_column]
    return turned


def epoch(change: Callable[[np.ndarray], np.ndarray], backend: str) -> tuple[list[np.ndarray], float]:
    """The batches of the second epoch of changed images, and the seconds that it took: in the first, workers start."""
    digits = Subset(Digits(), range(IMAGES)).map(change, key=0)
    with DataLoader(digits, 16, shuffle=True, seed=1, num_workers=BACKENDS[backend], backend=backend) as loader:
        for _ in loader:
            pass
        start = time.perf_counter()
        batches = [images for images, _ in loader]
        return batches, time.perf_counter() - start


def main() -> None:
    """Print the seconds of each way, and whether the batches are the same."""
    print(f"seconds for an epoch of {IMAGES} images:\n")
    print(f"{'':24}{'alone':>10}{'2 threads':>12}{'2 processes':>14}")
    same = True
    for name, change in {"waiting for the disk": fetched, "arithmetic in Python": rotated}.items():
        epochs = [epoch(change, backend) for backend in BACKENDS]
        (alone, _), *others = epochs
        same &= all(np.array_equal(alone, batches) for batches, _ in others)
        print("{:24}{:10.2f}{:12.2f}{:14.2f}".format(name, *(seconds for _, seconds in epochs)))
    print(f"\nthe batches are the same, to the last bit: {same}")


if __name__ == "__main__":
    main()
