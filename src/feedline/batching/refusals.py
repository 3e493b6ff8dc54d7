"""The errors of collating: which part of the samples, at which indices of the batch, and what to do.

Guarantee: these functions make errors and raise none; the same wrong samples give the same words, wherever they stand.
"""

from __future__ import annotations

from feedline.errors import CollateError

__all__ = [
    "differing_keys",
    "differing_lengths",
    "differing_shapes",
    "differing_types",
    "too_large",
    "unknown_type",
]


def differing_shapes(
    place: str,
    index: int,
    before: tuple[int, ...],
    shape: tuple[int, ...],
    *,
    earlier: int | None = None,
    remedy: str = "use pad_collate or resize",
) -> CollateError:
    """An array whose shape is not that of the sample ``earlier``, by default of the one before it."""
    at = index - 1 if earlier is None else earlier
    return CollateError(
        f"cannot stack {place}: shapes {before} at index {at} and {shape} at index {index}; {remedy}",
        index,
    )


def differing_types(place: str, index: int, before: str, found: str) -> CollateError:
    """A value that does not stack with the ones before it, whatever its shape."""
    return CollateError(
        f"cannot stack {place}: {before} at index {index - 1} and {found} at index {index}; "
        "make them alike in the dataset or a transform, or give collate_fn=",
        index,
    )


def differing_lengths(place: str, index: int, before: int, found: int) -> CollateError:
    """A list or tuple with more or fewer elements than the ones before it."""
    return CollateError(
        f"cannot stack {place}: {before} elements at index {index - 1} and {found} at index {index}; "
        "use pad_collate or make them arrays",
        index,
    )


def differing_keys(place: str, index: int, missing: list[object], extra: list[object]) -> CollateError:
    """A mapping with other keys than the ones before it."""
    parts = [f"without {min(map(repr, missing))}"] if missing else []
    parts += [f"with {min(map(repr, extra))}"] if extra else []
    return CollateError(
        f"cannot stack {place}: index {index} is {' and '.join(parts)}, unlike index {index - 1}; "
        "give all samples the same keys",
        index,
    )


def unknown_type(place: str, index: int, value: object, *, why: str = "") -> TypeError:
    """A value of a type that no batch is made of."""
    name = type(value).__name__
    return TypeError(
        f"cannot collate {place} of type {name} at index {index}{why}: samples hold arrays, numbers, "
        f"strings and containers of these; give collate_fn=, or register_collate({name}, fn)"
    )


def too_large(place: str, index: int, value: object) -> CollateError:
    """A Python integer beyond every dtype, or with a sign that shares no dtype with those before it."""
    return CollateError(
        f"cannot stack {place}: no integer dtype holds {value} at index {index} and those before it; "
        "make them floats, or arrays of one dtype",
        index,
    )
