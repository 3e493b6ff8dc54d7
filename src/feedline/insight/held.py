"""Generators of random numbers that the user's objects hold: found by looking, in attributes, containers and closures.

Guarantee: no code of the user's is run (no property is read, nothing is called), and nothing is changed.
"""

from __future__ import annotations

import random
import sys
import types
from contextlib import contextmanager, suppress
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["held_generators", "kept"]

_MOST_OBJECTS = 20_000  # looked at: a dataset may hold millions, of which the first tell
_MOST_ITEMS = 1000  # of one container
_READING = ("__getitem__", "__getitems__", "__iter__", "__call__")  # methods whose variables are looked at
_CONTAINERS = (dict, list, tuple, set, frozenset)
_LEAVES = (str, bytes, bytearray, int, float, complex, type(None), type, types.ModuleType, random.SystemRandom)


def held_generators(parts: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """The generators that are reached from ``parts``, each once, with the path that leads to it.

    Those that all code shares (of ``random``, ``numpy.random`` and torch) are none of them: the loader seeds these.
    Variables of a function, or of a method that reads samples, are written as its attributes.

    Example:
        >>> generator = random.Random(0)
        >>> [path for path, _ in held_generators({"dataset": {"augment": [generator.uniform]}})]
        ["dataset['augment'][0]"]
    """
    found: list[tuple[str, Any]] = []
    shared = {id(generator) for generator in _shared_generators()}
    seen: dict[int, Any] = {}  # by identity; the values keep what is made on the way alive
    waiting = list(parts.items())
    for path, value in waiting:  # grows as it goes: breadth first, hence by the shortest path
        if id(value) in seen or isinstance(value, _LEAVES) or hasattr(type(value), "__dlpack__"):
            continue
        seen[id(value)] = value
        if _is_generator(value):
            if id(value) not in shared:
                found.append((path, value))
        elif len(waiting) < _MOST_OBJECTS:
            waiting += _children(path, value)
    return found


def _is_generator(value: object) -> bool:
    kinds: tuple[Any, ...] = (random.Random, np.random.Generator, np.random.RandomState, np.random.BitGenerator)
    torch = getattr(sys.modules.get("torch"), "Generator", None)
    return isinstance(value, kinds if torch is None else (*kinds, torch))


def _shared_generators() -> list[Any]:
    numpy_state: Any = np.random.rand
    python_state: Any = random.random
    torch_state = getattr(sys.modules.get("torch"), "default_generator", None)
    return [python_state.__self__, numpy_state.__self__, torch_state]


def _children(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    """What a value holds, each with its path."""
    if _is_ours(value):
        return
    if isinstance(value, types.FunctionType):
        yield from _variables(path, value)
    elif isinstance(value, types.MethodType | types.BuiltinMethodType):
        yield path, getattr(value, "__func__", None)
        yield path, value.__self__
    elif isinstance(value, partial):
        yield path, value.func
        yield from _items(path, value.args)
        yield from ((f"{path}.{name}", item) for name, item in value.keywords.items())
    else:
        if isinstance(value, _CONTAINERS):
            yield from _items(path, value)
        yield from _attributes(path, value)
        for name in _READING:
            method = getattr(type(value), name, None)
            if isinstance(method, types.FunctionType):
                yield path, method


def _is_ours(value: Any) -> bool:
    """Whether it is what `feedline.rng` draws from, or a function of ours: neither is the user's."""
    module = getattr(value if isinstance(value, types.FunctionType) else type(value), "__module__", None)
    name = str(module)
    return name == "feedline.seeding" or (isinstance(value, types.FunctionType) and name.startswith("feedline."))


def _variables(path: str, function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    """What a function refers to: by its closure, its defaults and its module."""
    code = function.__code__
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield f"{path}.{name}", cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    yield from _items(path, function.__defaults__ or ())
    yield from ((f"{path}.{name}", item) for name, item in (function.__kwdefaults__ or {}).items())
    names = function.__globals__
    yield from ((f"{path}.{name}", names[name]) for name in code.co_names if name in names)


def _items(path: str, container: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(container, dict):  # by the class's own methods: a subclass's are code of the user's
        for key, item in islice(dict.items(container), _MOST_ITEMS):
            yield f"{path}[{key!r}]" if type(key) in {str, int} else path, item
        return
    base: Any = next(base for base in _CONTAINERS if isinstance(container, base))
    for place, item in enumerate(islice(base.__iter__(container), _MOST_ITEMS)):
        yield f"{path}[{place}]", item


def _attributes(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    with suppress(AttributeError):  # it has none; getattr would ask the user's __getattr__
        yield from ((f"{path}.{name}", item) for name, item in object.__getattribute__(value, "__dict__").items())
    for cls in type(value).__mro__:
        slots = cls.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            slot = cls.__dict__.get(name)
            if isinstance(slot, types.MemberDescriptorType):
                try:
                    yield f"{path}.{name}", slot.__get__(value)
                except AttributeError:  # not assigned yet
                    continue


@contextmanager
def kept(generators: list[Any]) -> Iterator[None]:
    """A context after which the generators are where they were before it."""
    states = [_state_of(generator) for generator in generators]
    try:
        yield
    finally:
        for generator, state in zip(generators, states, strict=True):
            _restore(generator, state)


def _state_of(generator: Any) -> Any:
    if isinstance(generator, random.Random):
        return generator.getstate()
    if isinstance(generator, np.random.Generator):
        return generator.bit_generator.state
    if isinstance(generator, np.random.BitGenerator):
        return generator.state
    return generator.get_state()


def _restore(generator: Any, state: Any) -> None:
    if isinstance(generator, random.Random):
        generator.setstate(state)
    elif isinstance(generator, np.random.Generator):
        generator.bit_generator.state = state
    elif isinstance(generator, np.random.BitGenerator):
        generator.state = state
    else:
        generator.set_state(state)
