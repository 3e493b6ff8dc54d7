"""Values of a stream at given times: nearest, previous, or linear between neighbours.

Guarantee: pure functions. Of several values with the same timestamp, the last one counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = np.ndarray[Any, Any]

__all__ = ["Alignment", "Method", "align", "in_place"]

Method = Literal["nearest", "previous", "linear"]


@dataclass(frozen=True, slots=True)
class Alignment:
    """Where the values at some times (T,) come from: ``valid`` (T,) says which times have one.

    At a valid time the value lies at the fraction ``weight`` of the way from stream value ``before`` to
    ``after``.
    """

    before: NDArray[np.int64]
    after: NDArray[np.int64]
    weight: NDArray[np.float64]
    valid: NDArray[np.bool_]

    def write(self, values: Array, out: Array) -> None:
        """Write the valid times' values (T, ...) to ``out`` (T, ...), and leave the others as they are."""
        whole = self.valid & (self.weight == 0)
        out[whole] = values[self.before[whole]]
        between = self.valid & (self.weight != 0)
        if between.any():
            low, high = values[self.before[between]], values[self.after[between]]
            exact = np.result_type(values.dtype, np.float64)
            low, high = low.astype(exact), high.astype(exact)
            weight = self.weight[between].reshape(-1, *(1,) * (values.ndim - 1))
            out[between] = low + weight * (high - low)


def in_place(count: int) -> Alignment:
    """A stream on its own time line: every value stands where it is."""
    index = np.arange(count)
    return Alignment(index, index, np.zeros(count), np.ones(count, dtype=np.bool_))


def align(times: NDArray[np.float64], targets: NDArray[np.float64], method: Method, tolerance_s: float) -> Alignment:
    """Where the values of a stream at ``targets`` come from.

    Args:
        times: the stream's timestamps in seconds, in order.
        targets: the times asked for, in seconds.
        method: ``"nearest"`` (the earlier of two equally near), ``"previous"`` (the last one not later), or
            ``"linear"`` (between the last one not later and the first one later).
        tolerance_s: how far from its time a value may be that is used.

    Example:
        >>> align(np.array([0.0, 1.0]), np.array([0.25, 2.0]), "linear", np.inf).valid
        array([ True, False])
    """
    count = len(times)
    if not count:
        nowhere = np.zeros(len(targets), dtype=np.int64)
        return Alignment(nowhere, nowhere, np.zeros(len(targets)), np.zeros(len(targets), dtype=np.bool_))
    before = np.searchsorted(times, targets, side="right") - 1
    low = _last_of_equals(times, np.maximum(before, 0))
    high = _last_of_equals(times, np.minimum(before + 1, count - 1))
    to_low, to_high = np.abs(targets - times[low]), np.abs(times[high] - targets)
    weight = np.zeros(len(targets))
    if method == "nearest":
        low = np.where(to_high < to_low, high, low)
        valid = np.minimum(to_low, to_high) <= tolerance_s
    elif method == "previous":
        valid = (before >= 0) & (to_low <= tolerance_s)
    else:
        exact = times[low] == targets
        between = (before >= 0) & (before + 1 < count) & ~exact
        np.divide(to_low, times[high] - times[low], out=weight, where=between)
        valid = exact | (between & (np.maximum(to_low, to_high) <= tolerance_s))
    return Alignment(low, high, weight, valid)


def _last_of_equals(times: NDArray[np.float64], index: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.searchsorted(times, times[index], side="right") - 1
