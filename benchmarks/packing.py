"""Sequences packed into rows of a fixed length: the waste, beside cutting and padding, and the time.

Part of the benchmark `order`. Lengths are drawn anew in each round from a log-normal with a sigma of 1; those longer
than a row are truncated to it. Waste is the share of all positions that is padding, split the share of sequences that
are in more than one row. Cut: all sequences one after the other, cut into rows. Padded: each in a row of its own. The
waste of the first thousand sequences by themselves is shown too: a million have a short one for every gap.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.apart import answer_of
from benchmarks.figures import Figures, Probe, Quantity
from benchmarks.harness import Bar
from benchmarks.programs.packing import lengths_of
from benchmarks.report import version_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

__all__ = ["MEDIANS", "ROW_LENGTH", "packing_cases"]

ROW_LENGTH = 2_048
MEDIANS = (256, 512, 900, 1_500)
_MOST_UNDER_HALF = 0.01
_MOST_OVER_HALF = 0.02
_MOST_FIRST_FIT = 0.03
_MOST_S = 2.0
_FEW = 1_000


def packing_cases(sequences: int, medians: Sequence[int] = MEDIANS, row_length: int = ROW_LENGTH) -> Iterator[Figures]:
    """A case for each median length, and one for the first call of a process."""
    for median in medians:
        yield _waste(sequences, median, row_length)
    yield _first_call(sequences, medians[-1], row_length)


def _waste(sequences: int, median: int, row_length: int) -> Figures:
    def probe(name: str, shares_of: Callable[[NDArray[np.int64], int], dict[str, float]]) -> Probe:
        def take(number: int) -> dict[str, float]:
            lengths = lengths_of(sequences, median, row_length, number)
            return {**shares_of(lengths, row_length), "of 1,000": shares_of(lengths[:_FEW], row_length)["waste"]}

        return Probe(name, take)

    most = _MOST_UNDER_HALF if 2 * median < row_length else _MOST_OVER_HALF
    truncated = float((lengths_of(sequences, median, row_length, 0) == row_length).mean())
    return Figures(
        name="order",
        label=f"packing, median {median}",
        quantities=(
            Quantity("waste", "%", 100.0, 3),
            Quantity("of 1,000", "%", 100.0, 2),
            Quantity("split", "%", 100.0, 1),
            Quantity("time", "ms", 1e3, 0),
        ),
        probes=(
            probe("best-fit", partial(packed, strategy="best-fit")),
            probe("first-fit", partial(packed, strategy="first-fit")),
            probe("cut", cut),
            probe("padded", padded),
        ),
        bars=(
            Bar("best-fit", most=most, quantity="waste"),
            Bar("first-fit", most=_MOST_FIRST_FIT, quantity="waste"),
            Bar("best-fit", most=_MOST_S, quantity="time"),
            Bar("first-fit", most=_MOST_S, quantity="time"),
        ),
        settings={
            "sequences": sequences,
            "row_length": row_length,
            "median": median,
            "truncated": f"{truncated:.1%}",
            "numba": version_of("numba") or "not installed",
        },
    )


def packed(lengths: NDArray[np.int64], row_length: int, strategy: Any) -> dict[str, float]:
    """The waste of our packing, and the time it takes."""
    from feedline import pack_sequences

    begin = time.perf_counter()
    packing = pack_sequences(lengths, row_length, strategy=strategy)
    seconds = time.perf_counter() - begin
    return {"waste": checked_waste(packing, lengths), "split": 0.0, "time": seconds}


def checked_waste(packing: Any, lengths: NDArray[np.int64]) -> float:
    """The waste as counted row by row.

    Raises:
        RuntimeError: not every sequence is whole in one row, or a row is overfull.
    """
    filled = np.add.reduceat(packing.lengths, packing.offsets[:-1])
    indices = packing.sequences
    each_once = len(indices) == len(lengths) and (np.bincount(indices, minlength=len(lengths)) == 1).all()
    if not each_once or (packing.lengths != lengths[indices]).any() or filled.max() > packing.row_length:
        raise RuntimeError(
            f"{len(lengths)} sequences must each be in one row of at most {packing.row_length}: got "
            f"{len(indices)} pieces in {packing.num_rows} rows of up to {filled.max()}"
        )
    return 1 - float(filled.mean()) / packing.row_length


def cut(lengths: NDArray[np.int64], row_length: int) -> dict[str, float]:
    """All sequences one after the other, cut into rows: only the last row has padding."""
    ends = np.cumsum(lengths)
    rows = -(-int(ends[-1]) // row_length)
    split = (ends - lengths) // row_length != (ends - 1) // row_length
    return {"waste": 1 - int(ends[-1]) / (rows * row_length), "split": float(split.mean())}


def padded(lengths: NDArray[np.int64], row_length: int) -> dict[str, float]:
    """Each sequence in a row of its own."""
    return {"waste": 1 - float(lengths.mean()) / row_length, "split": 0.0}


def _first_call(sequences: int, median: int, row_length: int) -> Figures:
    def probe(name: str, kernels: str) -> Probe:
        arguments = {"sequences": sequences, "median": median, "row_length": row_length}
        return Probe(name, lambda _round: answer_of("packing", kernels=kernels, **arguments))

    compiled = {"compiled before": "cached", "compiled now": "new"} if version_of("numba") else {}
    return Figures(
        name="order",
        label="first packing of a process",
        quantities=(Quantity("first call", "ms", 1e3, 0), Quantity("second call", "ms", 1e3, 0)),
        probes=tuple(probe(name, kernels) for name, kernels in {**compiled, "without numba": "none"}.items()),
        bars=tuple(Bar(name, most=_MOST_S, quantity="first call") for name in compiled),
        settings={
            "sequences": sequences,
            "row_length": row_length,
            "median": median,
            "numba": version_of("numba") or "not installed",
        },
    )
