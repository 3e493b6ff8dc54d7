"""Nested samples: take an element, put another in its place, rebuild containers with new ones.

Guarantee: pure functions; no container handed in is ever changed. A container is a mapping, a named tuple, a
tuple, a dataclass instance, a list or another sequence; strings, bytes and arrays are leaves.
"""

from __future__ import annotations

import copy
import dataclasses
import operator
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "Kind",
    "child_place",
    "get_item",
    "keys_of",
    "kind_of",
    "map_leaves",
    "rebuild",
    "replace_item",
    "values_of",
]


class Kind(Enum):
    """The kinds of container; the value is how an error calls them."""

    MAPPING = "mapping"
    NAMED_TUPLE = "named tuple"
    TUPLE = "tuple"
    DATACLASS = "dataclass"
    SEQUENCE = "sequence"


def kind_of(value: object) -> Kind | None:
    """What kind of container ``value`` is, or None for a leaf.

    Example:
        >>> kind_of({"x": 1}), kind_of((1, 2)), kind_of("text")
        (<Kind.MAPPING: 'mapping'>, <Kind.TUPLE: 'tuple'>, None)
    """
    if isinstance(value, tuple):
        return Kind.NAMED_TUPLE if hasattr(value, "_fields") else Kind.TUPLE
    if isinstance(value, Mapping):
        return Kind.MAPPING
    if isinstance(value, str | bytes | bytearray | memoryview):
        return None
    if isinstance(value, Sequence):
        return Kind.SEQUENCE
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return Kind.DATACLASS
    return None


def keys_of(container: Any) -> list[Any]:
    """The keys of a mapping, the field names of a named tuple or dataclass, the positions of a sequence.

    Example:
        >>> keys_of({"image": 0, "label": 1}), keys_of((7, 8))
        (['image', 'label'], [0, 1])
    """
    match kind_of(container):
        case Kind.MAPPING:
            return list(container)
        case Kind.NAMED_TUPLE:
            return list(container._fields)
        case Kind.DATACLASS:
            return [field.name for field in dataclasses.fields(container)]
        case Kind.TUPLE | Kind.SEQUENCE:
            return list(range(len(container)))
    raise TypeError(_not_a_container(container))


def values_of(container: Any) -> list[Any]:
    """The elements of a container in the order of `keys_of`.

    Example:
        >>> values_of({"image": 0, "label": 1})
        [0, 1]
    """
    match kind_of(container):
        case Kind.MAPPING:
            return [container[key] for key in container]
        case Kind.DATACLASS:
            return [getattr(container, name) for name in keys_of(container)]
        case None:
            raise TypeError(_not_a_container(container))
    return list(container)


def child_place(place: str, container: object, key: object) -> str:
    """How errors name the element ``key`` of the container at ``place``.

    Example:
        >>> child_place("sample", {"image": 0}, "image")
        "sample['image']"
    """
    if kind_of(container) in {Kind.NAMED_TUPLE, Kind.DATACLASS}:
        return f"{place}.{key}"
    return f"{place}[{key!r}]"


def get_item(sample: Any, key: Any) -> Any:
    """The element ``key`` of a sample.

    Args:
        sample: a tuple, list or other sequence (``key``: a position, negative from the end), a mapping
            (``key``: one of its keys), a dataclass instance (``key``: a field's name) or a named tuple
            (either).
        key: which element.

    Raises:
        KeyError: no such key or field.
        IndexError: no such position.
        TypeError: the sample is no container, or ``key`` is not of a type that names its elements.

    Example:
        >>> get_item({"image": "pixels", "label": 3}, "label")
        3
    """
    if type(sample) is dict and key in sample:
        return sample[key]
    if type(sample) is tuple and type(key) is int and -len(sample) <= key < len(sample):
        return sample[key]
    checked = _checked_key(sample, key)
    if kind_of(sample) in {Kind.NAMED_TUPLE, Kind.DATACLASS}:
        return getattr(sample, checked)
    return sample[checked]


def replace_item(sample: Any, key: Any, value: Any) -> Any:
    """A new container of the sample's type, equal to it but for the element ``key``, which is ``value``.

    The other elements are the same objects. A dataclass goes through `dataclasses.replace`, hence its
    ``__post_init__`` runs; other types keep what `rebuild` keeps.

    Args:
        sample: as for `get_item`; it is not changed.
        key: as for `get_item`; it must exist.
        value: the new element.

    Raises:
        KeyError, IndexError, TypeError: as `get_item`.
        ValueError: the field of a dataclass is not an argument of its constructor.

    Example:
        >>> replace_item((1, 2, 3), -1, "last")
        (1, 2, 'last')
    """
    if type(sample) is dict and key in sample:
        return {**sample, key: value}
    checked = _checked_key(sample, key)
    if kind_of(sample) is Kind.DATACLASS:
        return dataclasses.replace(sample, **{checked: value})
    return rebuild(
        sample,
        [value if key == checked else old for key, old in zip(keys_of(sample), values_of(sample), strict=True)],
    )


def rebuild(container: Any, values: Sequence[Any]) -> Any:
    """A container of the same type and keys with new elements, given in the order of `keys_of`.

    A ``defaultdict`` keeps its factory. A dataclass is copied field by field without running its
    ``__post_init__``: what it demands of a sample need not hold for a batch. A mapping whose type cannot be
    rebuilt comes back as a dict, a tuple as a tuple, any other sequence as a list.

    Raises:
        ValueError: more or fewer values than elements.
        TypeError: not a container.

    Example:
        >>> rebuild({"x": 1, "y": 2}, ["a", "b"])
        {'x': 'a', 'y': 'b'}
    """
    keys = keys_of(container)
    if len(keys) != len(values):
        raise ValueError(
            f"values must hold one value for each of the {len(keys)} elements of the "
            f"{type(container).__name__}, got {len(values)}"
        )
    match kind_of(container):
        case Kind.MAPPING:
            return _rebuild_mapping(container, dict(zip(keys, values, strict=True)))
        case Kind.NAMED_TUPLE:
            return container._make(values)
        case Kind.DATACLASS:
            clone = copy.copy(container)
            for name, value in zip(keys, values, strict=True):
                object.__setattr__(clone, name, value)  # frozen ones refuse their own
            return clone
        case Kind.TUPLE:
            return _constructed(type(container), values, tuple)
        case _:
            return _constructed(type(container), values, list)


def map_leaves(fn: Callable[[Any], Any], sample: Any, *, keep_types: bool = False) -> Any:
    """The same structure with ``fn`` applied to each leaf.

    Args:
        fn: what is applied.
        sample: a leaf, or containers of leaves.
        keep_types: a container whose type cannot be rebuilt (see `rebuild`) stays itself, leaves and all.

    Example:
        >>> map_leaves(str.upper, {"a": ("x", ["y"])})
        {'a': ('X', ['Y'])}
    """
    if kind_of(sample) is None:
        return fn(sample)
    made = rebuild(sample, [map_leaves(fn, value, keep_types=keep_types) for value in values_of(sample)])
    return sample if keep_types and type(made) is not type(sample) else made


def _rebuild_mapping(container: Any, new: dict[Any, Any]) -> Any:
    if type(container) is dict:
        return new
    try:
        # A shallow copy of another mapping may share its storage, unless the class says how it is copied.
        if not isinstance(container, dict) and not hasattr(container, "__copy__"):
            return type(container)(new)
        clone = copy.copy(container)
        for key, value in new.items():
            clone[key] = value  # not update(), which adds up in a Counter
    except Exception:  # noqa: BLE001 -- a user's class may refuse in any way; a dict holds the same
        return new
    return clone


def _constructed(cls: type, values: Sequence[Any], plain: type) -> Any:
    if cls is not plain:
        try:
            made = cls(values)
        except Exception:  # noqa: BLE001 -- as above
            return plain(values)
        if len(made) == len(values):
            return made
    return plain(values)


def _checked_key(sample: Any, key: Any) -> Any:
    """``key`` as it names an element of ``sample``: a key, a field's name, or a position from 0."""
    kind = kind_of(sample)
    if kind is None:
        raise TypeError(_not_a_container(sample))
    if kind is Kind.MAPPING:
        if key not in sample:
            raise KeyError(f"key must be one of {_listed(keys_of(sample))}, got {key!r}")
        return key
    if kind is Kind.DATACLASS or (kind is Kind.NAMED_TUPLE and isinstance(key, str)):
        if key not in keys_of(sample):
            raise KeyError(
                f"key must be one of the fields {_listed(keys_of(sample))} of {type(sample).__name__}, got {key!r}"
            )
        return key
    position = _position(sample, key)
    return sample._fields[position] if kind is Kind.NAMED_TUPLE else position


def _position(sample: Sequence[Any], key: Any) -> int:
    try:
        if isinstance(key, bool):
            raise TypeError  # noqa: TRY301 -- an integer to Python, a mistake here
        position = operator.index(key)
    except TypeError:
        raise TypeError(f"key must be an integer for a sample of type {type(sample).__name__}, got {key!r}") from None
    size = len(sample)
    if not -size <= position < size:
        allowed = f"from {-size} to {size - 1}" if size else "of an element, of which there is none,"
        raise IndexError(f"key must be a position {allowed} in a {type(sample).__name__} of {size}, got {position}")
    return position % size


def _listed(keys: list[Any]) -> str:
    shown = ", ".join(repr(key) for key in keys[:20])  # a message is to be read
    return f"{shown}, ..." if len(keys) > 20 else shown


def _not_a_container(sample: object) -> str:
    return (
        f"sample must be a tuple, list, mapping, named tuple or dataclass to have elements, "
        f"got {type(sample).__name__}; use key=None for the sample as a whole"
    )
