"""What the first sample teaches: a node for each container and leaf, into which later samples are put.

Guarantee: containers go through with their type; samples whose structure differs are refused by place and
index.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from feedline.batching.leaves import ArrayLeaf, ForeignLeaf, ListLeaf, NumberLeaf, Space, StackLeaf, as_array
from feedline.batching.refusals import (
    differing_keys,
    differing_lengths,
    differing_types,
    too_large,
    unknown_type,
)
from feedline.batching.registry import registered
from feedline.frameworks import is_foreign, stacking_of
from feedline.tree import Kind, child_place, keys_of, kind_of, rebuild, values_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from feedline.batching.leaves import Node

__all__ = ["Layout", "collate_values", "learn"]

_FLEXIBLE = "SUVMm"  # kinds whose scalars of one type differ in width or unit: their dtype is looked at each time


class Layout:
    """The structure of one container: its type and keys, which those of all samples must equal."""

    __slots__ = ("_skeleton", "cls", "keys", "kind", "place")

    def __init__(self, container: Any, place: str) -> None:
        self.cls = type(container)
        self.keys = keys_of(container)
        self.kind = kind_of(container)
        self.place = place
        self._skeleton = rebuild(container, [None] * len(self.keys))  # keeps no value of the sample alive

    def child_places(self) -> list[str]:
        """How errors name its elements."""
        return [child_place(self.place, self._skeleton, key) for key in self.keys]

    def check(self, i: int, value: Any) -> None:
        """Refuse a value of sample ``i`` that is not such a container."""
        if kind_of(value) is not self.kind or (self.kind is Kind.DATACLASS and not isinstance(value, self.cls)):
            raise differing_types(self.place, i, self.cls.__name__, type(value).__name__)
        keys = keys_of(value)
        if self.kind in {Kind.TUPLE, Kind.SEQUENCE}:
            if len(keys) != len(self.keys):
                raise differing_lengths(self.place, i, len(self.keys), len(keys))
        elif set(keys) != set(self.keys):
            missing = [key for key in self.keys if key not in keys]
            raise differing_keys(self.place, i, missing, [key for key in keys if key not in self.keys])
        elif self.kind is Kind.NAMED_TUPLE and keys != self.keys:
            raise differing_types(self.place, i, self.cls.__name__, type(value).__name__)

    def elements(self, i: int, value: Any) -> list[Any]:
        """The elements of sample ``i``'s container, in the order of the first one's keys."""
        self.check(i, value)
        return [value[key] for key in self.keys] if self.kind is Kind.MAPPING else values_of(value)

    def rebuild(self, values: list[Any]) -> Any:
        """A container of this type and these keys."""
        return rebuild(self._skeleton, values)


class _Container:
    """What all containers share: a node for each element, by its key."""

    __slots__ = ("children", "cls", "each", "keys", "layout", "length", "puts")

    def __init__(self, value: Any, space: Space, place: str) -> None:
        self.layout = Layout(value, place)
        self.cls = type(value)
        places = self.layout.child_places()
        self.children = [learn(part, space, at) for at, part in zip(places, values_of(value), strict=True)]
        self.length = len(self.children)
        self.puts = {key: child.put for key, child in zip(self.layout.keys, self.children, strict=True)}
        self.keys = self.puts.keys()
        self.each = list(self.puts.values())

    def finish(self, count: int) -> Any:
        return self.layout.rebuild([child.finish(count) for child in self.children])


class _SequenceNode(_Container):
    """Tuples, named tuples, lists."""

    __slots__ = ()

    def put(self, i: int, value: Any) -> None:
        if type(value) is not self.cls or len(value) != self.length:
            self.layout.check(i, value)
        for put, part in zip(self.each, value):  # noqa: B905 -- checked; strict=True costs 0.1 µs
            put(i, part)


class _MappingNode(_Container):
    """Dictionaries and their like, in any order of keys."""

    __slots__ = ()

    def put(self, i: int, value: Any) -> None:
        if type(value) is not self.cls or value.keys() != self.keys:
            self.layout.check(i, value)
        for key, put in self.puts.items():
            put(i, value[key])


class _DataclassNode(_Container):
    """Instances of a dataclass, by their fields."""

    __slots__ = ()

    def put(self, i: int, value: Any) -> None:
        if type(value) is not self.cls:
            self.layout.check(i, value)
        for name, put in self.puts.items():
            put(i, getattr(value, name))


_CONTAINERS: dict[Kind, type[_SequenceNode | _MappingNode | _DataclassNode]] = {
    Kind.MAPPING: _MappingNode,
    Kind.DATACLASS: _DataclassNode,
    Kind.NAMED_TUPLE: _SequenceNode,
    Kind.TUPLE: _SequenceNode,
    Kind.SEQUENCE: _SequenceNode,
}


def learn(value: Any, space: Space, place: str) -> Node:
    """The node for the part of a batch at ``place``; ``value``, the first sample's, is not yet put into it.

    Raises:
        TypeError: no batch is made of values of its type.
        CollateError: an integer that no dtype holds.
    """
    fn = registered(value)
    if fn is not None:
        return ListLeaf(type(value), space, place, fn)
    leaf = _learn_leaf(value, space, place)
    if leaf is not None:
        return leaf
    kind = kind_of(value)
    if kind is not None:
        return _CONTAINERS[kind](value, space, place)
    if is_foreign(value):
        return ForeignLeaf(value, space, place)
    raise unknown_type(place, 0, value)


def collate_values(values: Sequence[Any], place: str) -> Any:
    """The batch of the values, at least one, that stand at ``place`` in the samples."""
    node = learn(values[0], Space(len(values), np.empty), place)
    for i, value in enumerate(values):
        node.put(i, value)
    return node.finish(len(values))


def _learn_leaf(value: Any, space: Space, place: str) -> Node | None:
    if isinstance(value, np.ndarray):
        return ArrayLeaf(value, type(value), space, place)
    if isinstance(value, np.generic | bool | int | float | complex):
        return _learn_number(value, space, place)
    for text in (str, bytes, bytearray):
        if isinstance(value, text):
            return ListLeaf(text, space, place, None)
    stacking = stacking_of(value)
    return None if stacking is None else StackLeaf(value, stacking, space, place)


def _learn_number(value: Any, space: Space, place: str) -> Node:
    try:
        array = as_array(value)
    except OverflowError:
        raise too_large(place, 0, value) from None
    assert array is not None
    if array.dtype.kind in _FLEXIBLE:
        return ArrayLeaf(array, np.ndarray, space, place)
    return NumberLeaf(array, type(value), space, place)
