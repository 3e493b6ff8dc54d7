"""How long the first packing of a process takes: a script as users have it, run by `benchmarks/packing.py`.

Arguments (JSON): kernels ("cached": as numba left them when it compiled them before; "new": compiled in this process;
"none": numba is not there), sequences, median, row_length. Prints, as JSON and in seconds, what the first call of
`feedline.pack_sequences` takes, importing numba included, and the second.
"""

from __future__ import annotations

import json
import os
import sys
import time
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def lengths_of(sequences: int, median: int, row_length: int, seed: int) -> NDArray[np.int64]:
    """Lengths drawn from a log-normal with a sigma of 1, at least 1, those longer than a row truncated to it."""
    drawn = np.rint(np.random.default_rng(seed).lognormal(np.log(median), 1.0, sequences)).astype(np.int64)
    return np.minimum(np.maximum(drawn, 1), row_length)


def main(kernels: str, *, sequences: int, median: int, row_length: int) -> None:
    """Measure, and print the answer."""
    from feedline import pack_sequences

    lengths = lengths_of(sequences, median, row_length, 0)
    answer = {}
    with TemporaryDirectory() as folder:
        if kernels == "new":
            os.environ["NUMBA_CACHE_DIR"] = folder
        if kernels == "none":
            sys.modules["numba"] = None  # type: ignore[assignment]  # importing it fails, as where it is not installed
        for call in ("first call", "second call"):
            begin = time.perf_counter()
            pack_sequences(lengths, row_length)
            answer[call] = time.perf_counter() - begin
    print(json.dumps(answer))


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
