"""Exceptions of a worker, on their way to the parent.

Guarantee (contract 7): whatever the user's code raised, something arrives that can be raised: the exception as itself,
with its own type, arguments, attributes, notes and chain; or, where its class cannot travel, a `WorkerError` that names
it. The worker's traceback arrives with it, as text, at the root of the chain. What is sent was unpickled there before.

An exception is taken apart (class, arguments, attributes) and put together again without its ``__init__``, so that it
does not matter which arguments that takes. Only one that cannot be rebuilt in this way pickles itself. Frames, and with
them the worker's memory, stay there.
"""

from __future__ import annotations

import io
import pickle
import reprlib
import sys
import traceback
import types
import weakref
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import cloudpickle

from feedline.engine.policy import FailedSample
from feedline.engine.processes.returning import ReturningPickler, came_from_parent
from feedline.errors import WorkerError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["RemoteTraceback", "pack_error", "pack_failures", "unpack_error", "unpack_failures"]

_LONGEST = 1 << 20  # characters of a text: a message longer than that is data
_LARGEST = 16 << 20  # bytes of an exception's attributes: an image that is wrong may come along, a dataset may not
_MOST = 1000  # exceptions in a chain: what a chain of a thousand does not tell, one of ten thousand does not either
_HEAP_TYPE = 1 << 9  # of a class's flags: it was not built into the interpreter, or an extension, as a static type

_OURS = str(Path(__file__).parents[2])
_cause, _context, _suppress, _args, _dict = (
    BaseException.__dict__[name] for name in ("__cause__", "__context__", "__suppress_context__", "args", "__dict__")
)  # used directly: a class may refuse assignments, as a frozen dataclass does
_repr = reprlib.Repr()
_repr.maxother = _repr.maxstring = 1000


class RemoteTraceback(Exception):  # noqa: N818 -- it is shown as the cause of an error, not as one
    """The traceback of an exception in the worker where it was raised, as text: ``str()`` of it is that text."""


class _Node(NamedTuple):
    """An exception of a chain.

    Attributes:
        name: of its class.
        message: its text.
        body: class, arguments and attributes; None where they cannot travel.
        notes: its notes, and what was left behind.
        cause, context: places of other nodes.
        suppress: its ``__suppress_context__``.
        members: places of the exceptions of a group.
    """

    name: str
    message: str
    body: bytes | None
    notes: tuple[str, ...]
    cause: int | None
    context: int | None
    suppress: bool
    members: tuple[int, ...]


# ------------------------------------------------------------------------------------------------------ in the worker


def pack_error(error: BaseException) -> bytes:
    """An exception as bytes, with its chain, for `unpack_error`. Raises no ``Exception``, whatever ``error`` is."""
    errors = _reachable(error)
    places = {id(each): place for place, each in enumerate(errors)}
    return pickle.dumps((_cut(_traceback(error)), [_node(each, places) for each in errors]), 5)


def pack_failures(failures: Iterable[FailedSample]) -> bytes:
    """Failed samples as bytes, for `unpack_failures`; an index that cannot travel is replaced by its ``repr``."""
    return pickle.dumps(
        [(_packed_index(each.index), each.epoch, each.step, pack_error(each.error)) for each in failures], 5
    )


def _packed_index(index: Any) -> bytes:
    try:
        return _tested(index)
    except Exception:  # noqa: BLE001 -- the user's classes may raise anything
        return pickle.dumps(_repr.repr(index), 5)


def _reachable(error: BaseException) -> list[BaseException]:
    """The exception, and all that it is chained to or groups: each once, however they refer to each other."""
    errors, seen = [error], {id(error)}
    for each in errors:  # grows on the way
        for other in (each.__cause__, each.__context__, *_members(each)):
            if other is not None and id(other) not in seen and len(errors) < _MOST:
                seen.add(id(other))
                errors.append(other)
    return errors


def _members(error: BaseException) -> tuple[BaseException, ...]:
    return error.exceptions if isinstance(error, BaseExceptionGroup) else ()


def _node(error: BaseException, places: dict[int, int]) -> _Node:
    body, remarks = _body(error)
    return _Node(
        name=_name(type(error)),
        message=_message(error),
        body=body,
        notes=(*_notes(error), *remarks),
        cause=places.get(id(error.__cause__)),
        context=places.get(id(error.__context__)),
        suppress=error.__suppress_context__,
        members=tuple(places[id(each)] for each in _members(error) if id(each) in places),
    )


def _body(error: BaseException) -> tuple[bytes | None, list[str]]:
    """Class, arguments and attributes, as bytes that were unpickled for a test, and what was left behind."""
    for pack in (_whole, _by_itself, _in_part):
        remarks: list[str] = []
        try:
            body = pack(error, remarks)
            copy = _revived(body, _members(error))
            if type(copy) is type(error) and (pack is not _by_itself or str(copy) == str(error)):
                return body, remarks
        except Exception:  # noqa: BLE001, S112 -- the user's classes may raise anything; the next way may do
            continue
    return None, []


def _whole(error: BaseException, _: list[str]) -> bytes:
    """All of the exception."""
    return _dumped((type(error), *_parts(error)))


def _by_itself(error: BaseException, _: list[str]) -> bytes:
    """What the exception's class makes of itself when it is pickled: some of C can be made in no other way."""
    return _dumped(error, itself=error)


def _in_part(error: BaseException, remarks: list[str]) -> bytes:
    """The exception with texts in place of what cannot travel."""
    args, fields = _parts(error)
    args = tuple(_or_text(value, f"argument {place}", remarks) for place, value in enumerate(args))
    fields = {name: _or_text(value, f"attribute {name!r}", remarks) for name, value in fields.items()}
    return _dumped((type(error), args, fields))


def _or_text(value: Any, what: str, remarks: list[str]) -> Any:
    try:
        _tested(value)
    except Exception as error:  # noqa: BLE001 -- as above
        remarks.append(f"{what} is a text here: it stayed in the worker ({type(error).__name__}: {_message(error)})")
        return _repr.repr(value)
    return value


def _parts(error: BaseException) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments, and the attributes by name: those in ``__dict__``, slots and the built-in classes' own."""
    fields: dict[str, Any] = {}
    for name, slot in _slots(type(error)).items():
        with suppress(AttributeError):  # it was not set
            fields[name] = _cut(slot.__get__(error))
    fields |= {name: _cut(value) for name, value in _dict.__get__(error).items() if name != "__notes__"}
    args = (error.message,) if isinstance(error, BaseExceptionGroup) else error.args  # a group's members are nodes
    return tuple(map(_cut, args)), fields


def _slots(cls: type[BaseException]) -> dict[str, Any]:
    """The descriptors of what an exception keeps outside of its ``__dict__``, but for what all have, or all groups."""
    found: dict[str, Any] = {}
    for base in cls.__mro__:
        if base in (BaseExceptionGroup, BaseException):
            break
        for name, attribute in vars(base).items():
            if isinstance(attribute, types.MemberDescriptorType | types.GetSetDescriptorType) and name[:2] != "__":
                found.setdefault(name, attribute)
    if issubclass(cls, AttributeError):
        found.pop("obj", None)  # the object that lacks the attribute may be a whole dataset
    return found


class _Bounded(io.BytesIO):
    """What an exception may weigh, at most."""

    def write(self, data: Any, /) -> int:
        if self.tell() + memoryview(data).nbytes > _LARGEST:
            raise ValueError(f"it is larger than {_LARGEST >> 20} MiB")
        return super().write(data)


class _Pickler(ReturningPickler):
    """Pickles exceptions as their parts, and classes that cannot be imported by their name first."""

    def __init__(self, file: io.BytesIO, itself: BaseException | None) -> None:
        super().__init__(file, protocol=5)
        self._itself = itself

    def reducer_override(self, obj: Any) -> Any:
        cls = type(obj)
        if issubclass(cls, BaseException) and obj is not self._itself:
            parts, members = _parts(obj), _members(obj)
            return _blank, (cls, parts[0] if members else (), members), parts, None, None, _fill
        if (
            issubclass(cls, type)
            and not came_from_parent(obj)
            and (obj.__module__ == "__main__" or _named(obj.__module__, obj.__qualname__) is not obj)
        ):
            _known[obj.__module__, obj.__qualname__] = obj
            return _class, (obj.__module__, obj.__qualname__, _definition(obj))
        return super().reducer_override(obj)


def _dumped(value: Any, itself: BaseException | None = None) -> bytes:
    file = _Bounded()
    _Pickler(file, itself).dump(value)
    return file.getvalue()


def _tested(value: Any) -> bytes:
    data = _dumped(value)
    pickle.loads(data)  # noqa: S301 -- our own bytes
    return data


def _definition(cls: type) -> bytes | None:
    """The class by value, for a process that does not have it under its name."""
    try:
        return cast("bytes", cloudpickle.dumps(cls, protocol=5))
    except Exception:  # noqa: BLE001 -- it holds anything; most often it is not needed
        return None


def _cut(value: Any) -> Any:
    """A text or bytes beyond the limit, cut in the middle, with a remark; anything else as it is."""
    if type(value) not in (str, bytes) or len(value) <= _LONGEST:
        return value
    half = _LONGEST // 2
    remark = f" [... {len(value) - 2 * half} more were cut ...] "
    return value[:half] + (remark if isinstance(value, str) else remark.encode()) + value[-half:]


def _traceback(error: BaseException) -> str:
    try:
        return "".join(_summary(error).format())
    except Exception as failure:  # noqa: BLE001 -- it asks the exception for its text and its notes
        missing = f"(no traceback: {_name(type(failure))} while it was formatted)"
        return f"{_name(type(error))}: {_message(error)}\n{missing}\n"


def _summary(error: BaseException) -> traceback.TracebackException:
    """The tracebacks of a chain, each from the user's first line on."""
    summary = traceback.TracebackException(type(error), error, error.__traceback__, compact=True)
    chain = [summary]
    for each in chain:  # grows on the way
        chain += filter(None, (each.__cause__, each.__context__, *(each.exceptions or ())))
        del each.stack[: next((n for n, frame in enumerate(each.stack) if not frame.filename.startswith(_OURS)), 0)]
    return summary


def _notes(error: BaseException) -> list[str]:
    notes = _dict.__get__(error).get("__notes__")
    return [_cut(note) for note in notes if isinstance(note, str)] if isinstance(notes, list | tuple) else []


def _message(error: BaseException) -> str:
    try:
        return cast("str", _cut(str(error)))
    except Exception as failure:  # noqa: BLE001 -- the user's classes may raise anything
        return f"<its str() raised {_name(type(failure))}>"


def _name(cls: type) -> str:
    try:
        return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"
    except Exception:  # noqa: BLE001 -- so may its metaclass
        return "an exception"


# ------------------------------------------------------------------------------------------------------ in the parent


def unpack_error(data: bytes) -> Exception:
    """The exception that `pack_error` packed; what cannot be rebuilt here is a `WorkerError` with its text.

    Where something else than an ``Exception`` was packed, a ``SystemExit`` say, that comes back.
    """
    text, nodes = pickle.loads(data)  # noqa: S301 -- of our own worker, by a private pipe
    made: dict[int, BaseException] = {}
    error = _made(nodes, 0, made)
    for place, node in enumerate(nodes):
        each = _made(nodes, place, made)
        _context.__set__(each, None if node.context is None else _made(nodes, node.context, made))
        _cause.__set__(each, None if node.cause is None else _made(nodes, node.cause, made))
        _suppress.__set__(each, node.suppress)
        if node.notes:
            _dict.__get__(each)["__notes__"] = list(node.notes)
    _cause.__set__(_root(error), RemoteTraceback(text))
    return cast("Exception", error)


def unpack_failures(data: bytes) -> tuple[FailedSample, ...]:
    """The failed samples that `pack_failures` packed."""
    failures = pickle.loads(data)  # noqa: S301 -- as above
    return tuple(
        FailedSample(pickle.loads(index), epoch, step, unpack_error(error))  # noqa: S301 -- as above
        for index, epoch, step, error in failures
    )


def _made(nodes: list[_Node], place: int, made: dict[int, BaseException]) -> BaseException:
    """The exception of a node, without its chain; made once."""
    if place not in made:
        node = nodes[place]
        try:
            if node.body is None:
                raise TypeError("it cannot be pickled")  # noqa: TRY301 -- one way to say so
            members = tuple(_made(nodes, member, made) for member in node.members)
            made[place] = _revived(node.body, members)
        except Exception as error:  # noqa: BLE001 -- modules may be missing here, and the user's classes raise anything
            reason = f"the exception itself stayed in the worker: {_message(error)}"
            made[place] = WorkerError(f"a worker raised {node.name}: {node.message} ({reason})")
    return made[place]


def _root(error: BaseException) -> BaseException:
    """The exception that Python prints first: at the end of the causes and of the contexts that are shown."""
    seen = set()
    while id(error) not in seen:
        seen.add(id(error))
        shown = error.__context__ if error.__cause__ is None and not error.__suppress_context__ else error.__cause__
        if shown is None or id(shown) in seen:
            break
        error = shown
    return error


def _revived(body: bytes, members: tuple[BaseException, ...]) -> BaseException:
    made = pickle.loads(body)  # noqa: S301 -- our own bytes
    if isinstance(made, BaseException):
        return made
    cls, args, fields = made
    error = _blank(cls, args, members)
    _fill(error, (args, fields))
    return error


def _blank(cls: type[BaseException], args: tuple[Any, ...], members: tuple[BaseException, ...]) -> BaseException:
    """A new exception, made by the built-in class that it derives from: neither of the user's constructors runs."""
    base: Any = next(each for each in cls.__mro__ if not each.__flags__ & _HEAP_TYPE)
    made = base.__new__(cls, args[0], list(members)) if issubclass(cls, BaseExceptionGroup) else base.__new__(cls)
    return cast("BaseException", made)


def _fill(error: BaseException, parts: tuple[tuple[Any, ...], dict[str, Any]]) -> None:
    args, fields = parts
    if not isinstance(error, BaseExceptionGroup):
        _args.__set__(error, args)
    slots = _slots(type(error))
    for name, value in fields.items():
        if name not in slots:
            _dict.__get__(error)[name] = value
        elif getattr(error, name, _Bounded) is not value:  # None set by hand is not None by default: OSError shows it
            slots[name].__set__(error, value)


# Classes that were packed in this process: a worker that tests what it packed must find them, and not make them anew.
_known: weakref.WeakValueDictionary[tuple[str, str], type] = weakref.WeakValueDictionary()


def _class(module: str, qualname: str, definition: bytes | None) -> type:
    """A class that cannot be imported: the one of that name here, as the main module's, or else by its definition.

    By name first: cloudpickle finds the class that it sent out too, but then sets all its attributes to copies.
    """
    found = _known.get((module, qualname)) or _named(module, qualname)
    if isinstance(found, type):
        return found
    if definition is None:
        raise TypeError(f"its class {module}.{qualname} cannot be pickled")
    return cast("type", pickle.loads(definition))  # noqa: S301 -- our own bytes


def _named(module: str, qualname: str) -> Any:
    found: Any = sys.modules.get(module)
    for name in qualname.split("."):
        found = getattr(found, name, None)
    return found
