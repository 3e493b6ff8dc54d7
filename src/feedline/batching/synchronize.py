"""Streams of different rates on one time line, as a batch: `synchronize_collate`.

Guarantee: a value is taken from the stream, or lies between two neighbours of it; nothing is extrapolated,
and what no value stands for is marked as such.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from feedline.batching.alignment import align, in_place
from feedline.batching.collate import checked_batch
from feedline.batching.leaves import common_dtype
from feedline.batching.nodes import Layout
from feedline.batching.refusals import differing_shapes, differing_types, unknown_type
from feedline.errors import CollateError
from feedline.frameworks import from_numpy

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from feedline.batching.alignment import Alignment, Array, Method

__all__ = ["Synchronized", "synchronize_collate"]

_METHODS = ("nearest", "previous", "linear")


class Synchronized(NamedTuple):
    """A batch of streams on a common time line of T times.

    Attributes:
        timestamps: (B, T) float64, in seconds; NaN behind the end of samples with fewer times.
        streams: for each stream its values (B, T, ...); NaN (floats), NaT (dates) or zero where not valid.
        valid: for each stream (B, T) bool, where its values are valid.

    Example:
        >>> from feedline import synchronize_collate
        >>> drive = {"camera": ([0.0, 1.0], [10, 11]), "speed": ([0.9], [3.0])}
        >>> batch = synchronize_collate([drive], reference="camera", tolerance_s=0.5)
        >>> batch.timestamps, batch.streams["speed"], batch.valid["speed"]
        (array([[0., 1.]]), array([[nan,  3.]]), array([[False,  True]]))
    """

    timestamps: Any
    streams: dict[str, Any]
    valid: dict[str, Any]


class _Stream(NamedTuple):
    times: Array  # (T,) float64
    values: Array  # (T, ...)


def synchronize_collate(
    batch: Iterable[Mapping[str, Any]],
    *,
    reference: Any,
    method: Method | Mapping[str, Method] = "nearest",
    tolerance_s: float | Mapping[str, float] | None = None,
) -> Synchronized:
    """The batch of samples of several streams, such as camera, IMU and GPS, each with a rate of its own.

    Each stream is brought to the times of the reference. Times are in seconds, on one clock within a sample.
    Samples may have different numbers of reference times: shorter ones are padded at the end, with timestamps
    NaN and nothing valid. Of equal timestamps in a stream, the last one counts.

    Args:
        batch: samples, mappings from a stream's name to ``(timestamps, values)``: timestamps (n,) in order,
            values (n, ...), n of any size for each stream and sample. An empty stream is valid nowhere.
        reference: the name of the stream whose timestamps are taken, and whose values stay as they are; or
            the timestamps (T,) in order, for all samples.
        method: for all streams, or by name for each of them but the reference: ``"nearest"`` (in time; the
            earlier of two equally near), ``"previous"`` (the last one not later), both of which keep the
            dtype; ``"linear"`` between the two neighbours, which makes integers float64. Nothing is
            extrapolated.
        tolerance_s: a value further from its time is not used (``"linear"``: neither of the neighbours may
            be); by name as ``method``; None for any distance.

    Returns:
        A `Synchronized`; streams of torch tensors or JAX arrays come back as these.

    Raises:
        ValueError: an argument breaks its rule; there is no sample.
        CollateError: timestamps out of order, of another number than the values, or not finite; streams that
            differ between samples in name, dtype or the shape of a value.
        TypeError: a sample is no mapping, a stream no pair, or ``"linear"`` is asked of what are no numbers.

    Example:
        >>> drive = {"camera": ([0.0, 0.5], [10, 11]), "speed": ([0.0, 1.0], [3.0, 5.0])}
        >>> synchronize_collate([drive], reference="camera", method="linear").streams["speed"]
        array([[3., 4.]])
    """
    samples = list(checked_batch(batch))
    columns = _columns(samples)
    streams = {
        name: [_read(pair, f"sample[{name!r}]", i) for i, pair in enumerate(column)] for name, column in columns.items()
    }
    targets = _targets(reference, streams, len(samples))
    own = reference if isinstance(reference, str) else None
    methods = _by_stream("method", method, streams, own)
    tolerances = _by_stream("tolerance_s", math.inf if tolerance_s is None else tolerance_s, streams, own)
    _check_settings(methods, tolerances)

    result = Synchronized(_padded(targets), {}, {})
    for name, column in streams.items():
        sources = [
            in_place(len(times)) if name == own else align(one.times, times, methods[name], tolerances[name])
            for one, times in zip(column, targets, strict=True)
        ]
        dtype = _dtype(column, name, linear=methods.get(name) == "linear")
        out, valid = _gather(column, sources, result.timestamps.shape, dtype)
        like = columns[name][0][1]
        result.streams[name], result.valid[name] = from_numpy(out, like), from_numpy(valid, like)
    return result


def _columns(samples: list[Any]) -> dict[str, list[Any]]:
    """The samples' pairs by stream."""
    for i, sample in enumerate(samples):
        if not isinstance(sample, Mapping):
            raise TypeError(
                "synchronize_collate needs samples {name: (timestamps, values)}, "
                f"got {type(sample).__name__} at index {i}"
            )
    layout = Layout(samples[0], "sample")
    rows = [layout.elements(i, sample) for i, sample in enumerate(samples)]
    return {name: [row[at] for row in rows] for at, name in enumerate(layout.keys)}


def _padded(targets: Sequence[Array]) -> Array:
    timestamps = np.full((len(targets), max(map(len, targets))), np.nan)
    for row, times in zip(timestamps, targets, strict=True):
        row[: len(times)] = times
    return timestamps


def _read(pair: Any, place: str, index: int) -> _Stream:
    """One stream of one sample, checked."""
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise TypeError(f"{place} must be a pair (timestamps, values), got {type(pair).__name__} at index {index}")
    times, values = np.asarray(pair[0], dtype=np.float64), np.asarray(pair[1])
    if values.dtype.hasobject:
        raise unknown_type(place, index, values, why=f" and dtype {values.dtype}")
    why = _why_no_time_line(times)
    if why is not None:
        raise CollateError(f"timestamps of {place} must be {why} at index {index}", index)
    if values.ndim == 0 or len(values) != len(times):
        raise CollateError(
            f"{place} must have a value for each of its {len(times)} timestamps, "
            f"got values of shape {values.shape} at index {index}",
            index,
        )
    return _Stream(times, values)


def _why_no_time_line(times: Array) -> str | None:
    """What is wrong with timestamps, in the words of an error; None if nothing is."""
    if times.ndim != 1:
        return f"of shape (n,), got {times.shape}"
    if not np.isfinite(times).all():
        return f"finite, got {times[~np.isfinite(times)][0]}"
    back = np.flatnonzero(np.diff(times) < 0)
    if len(back):
        return f"in order (sort the stream), got {times[back[0] + 1]} after {times[back[0]]}"
    return None


def _targets(reference: Any, streams: Mapping[str, list[_Stream]], count: int) -> Sequence[Array]:
    """The times of each sample that all streams are brought to."""
    if isinstance(reference, str):
        if reference not in streams:
            raise ValueError(f"reference must be one of the streams {list(streams)}, got {reference!r}")
        return [stream.times for stream in streams[reference]]
    times = np.asarray(reference, dtype=np.float64)
    why = _why_no_time_line(times)
    if why is not None:
        raise ValueError(f"reference must be a stream's name or timestamps {why}")
    return [times] * count


def _by_stream(argument: str, setting: Any, streams: Mapping[str, Any], own: str | None) -> dict[str, Any]:
    """A setting for each stream but the reference."""
    names = [name for name in streams if name != own]
    if not isinstance(setting, Mapping):
        return dict.fromkeys(names, setting)
    if set(names) != set(setting) - {own}:
        raise ValueError(f"{argument} must be given for each of the streams {names}, got {list(setting)}")
    return {name: setting[name] for name in names}


def _check_settings(methods: Mapping[str, Any], tolerances: Mapping[str, Any]) -> None:
    for method in methods.values():
        if method not in _METHODS:
            raise ValueError(f"method must be one of {_METHODS}, got {method!r}")
    for tolerance in tolerances.values():
        if not isinstance(tolerance, int | float | np.number) or not tolerance >= 0:
            raise ValueError(f"tolerance_s must be a number of seconds from 0 up, got {tolerance!r}")


def _telling(column: list[_Stream]) -> list[int]:
    """The samples that say what a value is like: an empty stream, as ([], []), does not."""
    return [i for i, stream in enumerate(column) if len(stream.times)] or [0]


def _dtype(column: list[_Stream], name: str, *, linear: bool) -> np.dtype[Any]:
    """The dtype of a stream's batch."""
    place, (start, *others) = f"sample[{name!r}]", _telling(column)
    first = column[start].values
    dtype = np.result_type(first.dtype)
    for i in others:
        values = column[i].values
        if values.shape[1:] != first.shape[1:]:
            remedy = "only first axes may differ"
            raise differing_shapes(place, i, first.shape, values.shape, earlier=start, remedy=remedy)
        common = common_dtype(dtype, values.dtype)
        if common is None:
            raise differing_types(place, i, f"values of {dtype}", f"values of {values.dtype}")
        dtype = common
    if linear and dtype.kind not in "biufc":
        raise TypeError(f"method 'linear' needs numbers, got {place} of dtype {dtype}; use 'nearest'")
    return np.dtype(np.float64) if linear and dtype.kind in "biu" else dtype


def _gather(
    column: list[_Stream], sources: list[Alignment], shape: tuple[int, ...], dtype: np.dtype[Any]
) -> tuple[Array, Array]:
    """One stream's values (B, T, ...) and their validity (B, T)."""
    telling = _telling(column)
    out = np.zeros((*shape, *column[telling[0]].values.shape[1:]), dtype)
    if dtype.kind in "fcmM":
        out[...] = np.nan if dtype.kind in "fc" else np.array("NaT", dtype=dtype)
    valid = np.zeros(shape, dtype=np.bool_)
    for i in telling:
        width = len(sources[i].valid)
        valid[i, :width] = sources[i].valid
        sources[i].write(column[i].values, out[i, :width])
    return out, valid
