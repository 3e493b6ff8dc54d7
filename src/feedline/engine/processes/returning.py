"""The pickler for what goes back from a worker to its parent.

Guarantee: a class that came from the parent by value (of its main module, say) goes back as a name for the parent's own
class, which stays untouched. (By value it would come back as that class too, but with its methods replaced by copies
that no longer see the main module's variables.)
"""

from __future__ import annotations

import io
import weakref
from typing import Any

import cloudpickle
from cloudpickle import cloudpickle as _tracker  # it numbers the classes that travel by value; no public name

__all__ = ["ReturningPickler", "came_from_parent", "dumped", "note_classes"]

_from_parent: weakref.WeakSet[type] = weakref.WeakSet()


def note_classes() -> None:
    """Take all classes that have come by value so far for the parent's; to be called before any goes back."""
    _from_parent.update(list(_tracker._DYNAMIC_CLASS_TRACKER_BY_CLASS))  # noqa: SLF001


def came_from_parent(cls: type) -> bool:
    """Whether a class was sent by value."""
    return cls in _from_parent


def dumped(value: Any) -> bytes:
    """A value that goes back, or on to another worker, which has the same classes."""
    file = io.BytesIO()
    ReturningPickler(file, protocol=5).dump(value)
    return file.getvalue()


class ReturningPickler(cloudpickle.Pickler):  # type: ignore[misc,no-any-unimported,unused-ignore]  # untyped
    """cloudpickle's, but for the classes that the parent has."""

    def reducer_override(self, obj: Any) -> Any:
        """How an object is taken apart; NotImplemented: as it says itself."""
        if isinstance(obj, type) and came_from_parent(obj):
            return parents_class, (_tracker._get_or_create_tracker_id(obj),)  # noqa: SLF001
        return super().reducer_override(obj)


def parents_class(number: str) -> type:
    """The class that was sent under a number, in the process that sent it."""
    kind: type = _tracker._DYNAMIC_CLASS_TRACKER_BY_ID[number]  # noqa: SLF001
    return kind
