"""Which part of a value cannot be sent between processes, named by the attribute path that leads to it.

Guarantee: what is followed is what would be pickled (the parts of each object's reduction), depth first, an
object's attributes before its class. Nothing is looked at before pickling has failed.
"""

from __future__ import annotations

import copyreg
import dataclasses
import functools
import io
import pickle
from types import CellType, CodeType, FunctionType, MethodType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from feedline.engine.processes.handles import Refused, article, name_of
from feedline.engine.processes.pickling import ShippingPickler
from feedline.errors import CannotShip

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

Named = tuple[str, Any]

__all__ = ["FROM_WORKER", "TO_WORKER", "Way", "explained", "path_to"]

_LEAVES = (int, float, complex, str, bytes, bytearray, type(None), type(...), CodeType, pickle.PickleBuffer)
_CLOSED = {  # packages whose objects are named as a whole: nobody knows them by their parts
    "asyncio", "bz2", "concurrent", "gzip", "lzma", "multiprocessing", "queue", "socket", "subprocess", "tarfile",
    "tempfile", "threading", "zipfile",
}  # fmt: skip


class Way(NamedTuple):
    """Where something was to be sent.

    Attributes:
        words: as messages say it.
        remedy: for a part that cannot be sent there.
    """

    words: str
    remedy: str


TO_WORKER = Way(
    "to a worker process",
    "make it in the worker (in worker_init_fn, or at first use), leave it out with __getstate__, "
    "or use backend='thread'",
)
FROM_WORKER = Way("from a worker process", "return arrays, numbers or text, or use backend='thread'")


def explained(value: Any, name: str, error: Exception, way: Way = TO_WORKER) -> CannotShip:
    """The error that names the part of ``value`` at fault for ``error``, which pickling it raised."""
    is_deep = isinstance(error.__cause__, RecursionError)  # no part is at fault, and paths would be endless
    for path, obj, whole, parts in () if is_deep else _walk(value, name):
        if isinstance(parts, Exception):
            return _caused(path, _reason(obj, whole, parts), way, parts)
    return _caused(name, f"{type(error).__name__}: {error}", way._replace(remedy="use backend='thread'"), error)


def path_to(value: Any, name: str, part: Any) -> str:
    """The attribute path from ``value``, which is called ``name``, to a part of it."""
    return next((path for path, obj, _, _ in _walk(value, name) if obj is part), name)


def _caused(path: str, reason: str, way: Way, cause: Exception) -> CannotShip:
    path = path or "what workers need"
    error = CannotShip(f"{path} cannot be sent {way.words}: {reason}; {way.remedy}", path, reason, way.remedy)
    error.__cause__ = cause
    return error


def _reason(obj: Any, whole: Any, error: Exception) -> str:
    if whole is not None:
        return f"it is {article(name_of(type(whole)))}"
    if isinstance(error, Refused):
        return str(error)
    what = "a class" if isinstance(obj, type) else article(name_of(type(obj)))
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_globals.get("__name__") in (__name__, copyreg.__name__):
        trace = trace.tb_next
    if trace is None:  # refused by the interpreter
        return f"it is {what}"
    return f"it is {what}, and pickling it raised {type(error).__name__}: {error}"


def _walk(value: Any, name: str) -> Iterator[tuple[str, Any, Any, Any]]:
    """Each part once, with its path, what it is a part of that is named as a whole, and its parts, or an error."""
    pickler = ShippingPickler(io.BytesIO(), forked=True)
    with pickler.spawning():
        seen: dict[int, Any] = {}  # keeps what reductions make, so that ids stay theirs
        stack: list[Iterator[tuple[str, Any, Any]]] = [iter([(name, value, None)])]
        while stack:
            path, obj, whole = next(stack[-1], (None, None, None))
            if path is None:
                stack.pop()
                continue
            if isinstance(obj, _LEAVES) or id(obj) in seen:
                continue
            seen[id(obj)] = obj
            if whole is None and type(obj).__module__.partition(".")[0] in _CLOSED:
                whole = obj
            try:
                parts = list(_parts(obj, path, pickler))
            except Exception as error:  # noqa: BLE001 -- a user's __getstate__ may raise anything
                yield path, obj, whole, error
                continue
            yield path, obj, whole, parts
            stack.append(iter([(path if whole is not None else part, child, whole) for part, child in parts]))


def _parts(obj: Any, path: str, pickler: ShippingPickler) -> Iterable[Named]:
    """The parts that would be pickled for an object, with their paths."""
    if type(obj) in _PARTS:
        return _PARTS[type(obj)](obj, path)
    if type(obj) is np.ndarray and obj.dtype.hasobject:
        return _members(obj.flat, f"{path}.flat")
    reduction = _reduction(obj, pickler)
    if isinstance(reduction, str) or reduction is NotImplemented:
        return []
    if isinstance(obj, FunctionType):
        return _function_parts(obj, reduction[2], path)
    return _reduction_parts(obj, reduction, path)


def _reduction(obj: Any, pickler: ShippingPickler) -> Any:
    """What pickle would ask for, in its order."""
    reduction = pickler.reducer_override(obj)
    if reduction is not NotImplemented or isinstance(obj, type | FunctionType):
        return reduction
    reduce = pickler.dispatch_table.get(type(obj))
    return obj.__reduce_ex__(5) if reduce is None else reduce(obj)


def _reduction_parts(obj: Any, reduction: tuple[Any, ...], path: str) -> Iterator[Named]:
    function, args, state, items, pairs, *_ = (*reduction, None, None, None)
    each: Any
    if function is getattr:
        yield f"{path}.__self__", args[0]
        return
    yield from _state_parts(obj, state, path)
    for place, each in enumerate(items or ()):
        yield f"{path}[{place}]", each
    yield from _items(pairs or (), path)
    yield path, function
    dot = "." if path else ""
    names = [f"{dot}{name}" for name in getattr(obj, "_fields", ())] if isinstance(obj, tuple) else []
    for place, each in enumerate(args):
        if each is type(obj):
            yield f"{path}.__class__", each
        elif isinstance(obj, tuple) and type(each) is tuple:
            yield from ((f"{path}{part}", member) for part, member in zip(_named(names, each), each, strict=True))
        elif names and len(args) == len(names) + 1:
            yield f"{path}{names[place - 1]}", each
        elif not isinstance(obj, type) or place == 2:
            yield f"{path}.__reduce__()[1][{place}]" if not isinstance(obj, type) else f"{path}.__bases__", each


def _named(names: list[str], members: tuple[Any, ...]) -> list[str]:
    return names if len(names) == len(members) else [f"[{place}]" for place in range(len(members))]


def _state_parts(obj: Any, state: Any, path: str) -> Iterable[Named]:
    if isinstance(state, tuple) and len(state) == 2 and all(part is None or type(part) is dict for part in state):
        return [named for part in state for named in _attributes(part or {}, path)]  # __dict__ and slots
    if type(state) is dict:
        return _attributes(state, path)
    if type(state) is list and dataclasses.is_dataclass(obj) and len(state) == len(dataclasses.fields(obj)):
        return _attributes({field.name: each for field, each in zip(dataclasses.fields(obj), state, strict=True)}, path)
    return [] if state is None else [(f"{path}.__getstate__()", state)]


def _function_parts(function: Any, state: tuple[Any, Any], path: str) -> Iterator[Named]:
    """What a function that travels by value takes along."""
    attributes, slots = state
    yield from _attributes(attributes, path)
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        yield f"{path}.<closure>[{name!r}]", cell
    yield from _items(slots["__globals__"].items(), f"{path}.<globals>")
    yield f"{path}.__defaults__", function.__defaults__
    yield f"{path}.__kwdefaults__", function.__kwdefaults__
    yield f"{path}.__annotations__", function.__annotations__


def _attributes(state: dict[Any, Any], path: str) -> list[Named]:
    return [(f"{path}.{name}" if path else str(name), each) for name, each in state.items()]


def _items(pairs: Iterable[Any], path: str) -> list[Named]:
    listed = list(pairs)
    found = [(f"{path}[{key!r}]" if path else str(key), each) for key, each in listed]
    return found + [(f"{path}.<key {key!r}>", key) for key, _ in listed if not isinstance(key, _LEAVES)]


def _members(members: Iterable[Any], path: str) -> list[Named]:
    return [(f"{path}[{place}]", each) for place, each in enumerate(members)]


def _partial_parts(obj: Any, path: str) -> list[Named]:
    keywords = _items(obj.keywords.items(), f"{path}.keywords")
    return [(f"{path}.func", obj.func), *_members(obj.args, f"{path}.args"), *keywords, *_attributes(vars(obj), path)]


def _method_parts(obj: Any, path: str) -> list[Named]:
    return [(f"{path}.__self__", obj.__self__), (f"{path}.__func__", obj.__func__)]


_PARTS: dict[type, Callable[[Any, str], list[Named]]] = {
    **dict.fromkeys((list, tuple, set, frozenset), _members),
    dict: lambda obj, path: _items(obj.items(), path),
    CellType: lambda obj, path: [] if obj == CellType() else [(path, obj.cell_contents)],
    functools.partial: _partial_parts,
    MethodType: _method_parts,
}
