"""Errors that say where: what Feedline itself raises about data, state and order.

Guarantee: each survives pickling with its message and what it carries, and so arrives from a worker as it was raised.
Errors in arguments are the built-in ``ValueError``, ``TypeError`` and ``IndexError``. Errors of user code arrive
as themselves. Everything else that goes wrong with data is a `FeedlineError`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import os

__all__ = [
    "CannotShip",
    "CollateError",
    "CorruptSample",
    "DatasetChanged",
    "FeedlineError",
    "StateError",
    "WorkerError",
]


class FeedlineError(Exception):
    """The base of every error about data, files, state or order that Feedline raises itself."""


class CorruptSample(FeedlineError):  # noqa: N818 -- the surface's name: what is wrong is the sample
    """A file or record does not hold what its format promises.

    Args:
        message: what was expected and what was found.
        path: the file, or None for bytes in memory.
        offset: the byte at which the expectation failed, or None where it concerns the file as a whole.

    Example:
        >>> raise CorruptSample("expected 16 bytes of header, found 3", path="train.idx", offset=0)
        Traceback (most recent call last):
        ...
        feedline.errors.CorruptSample: train.idx, byte 0: expected 16 bytes of header, found 3
    """

    def __init__(self, message: str, *, path: str | os.PathLike[str] | None = None, offset: int | None = None) -> None:
        self.message = message
        self.path = path
        self.offset = offset
        super().__init__(message)

    def __str__(self) -> str:
        place = "data in memory" if self.path is None else str(self.path)
        if self.offset is not None:
            place += f", byte {self.offset}"
        return f"{place}: {self.message}"

    def __reduce__(self) -> tuple[object, ...]:
        return _corrupt_sample, (self.message, self.path, self.offset)


def _corrupt_sample(message: str, path: str | os.PathLike[str] | None, offset: int | None) -> CorruptSample:
    """Rebuild from positional parts: exceptions do not pickle keyword arguments by themselves."""
    return CorruptSample(message, path=path, offset=offset)


class DatasetChanged(FeedlineError, RuntimeError):  # noqa: N818 -- the surface's name: an event, not a fault
    """The dataset's length is not what this epoch, or this state, was planned for."""


class StateError(FeedlineError, ValueError):
    """A state handed to ``load_state_dict`` is damaged, or belongs to another loader."""


class WorkerError(FeedlineError, RuntimeError):
    """A worker died, hung or could not be started."""


class CannotShip(FeedlineError, TypeError):  # noqa: N818 -- the surface's name: what is wrong is the object
    """A part of the dataset cannot be sent to a worker process, or a part of a batch cannot be sent from one.

    Args:
        message: all of it.
        path: the attribute path of the part.
        reason: what is wrong with it.
        remedy: what to do about it.
    """

    def __init__(self, message: str, path: str = "", reason: str = "", remedy: str = "") -> None:
        self.path = path
        self.reason = reason
        self.remedy = remedy
        super().__init__(message)

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (*self.args, self.path, self.reason, self.remedy)


class CollateError(FeedlineError, ValueError, RuntimeError):
    """Samples cannot be stacked into one batch: ValueError as NumPy raises it, RuntimeError as torch does.

    Args:
        message: which part of the samples, at which indices of the batch, and what to do about it.
        position: the place in the batch of the sample that does not fit the ones before it, or None where the
            batch as a whole is at fault.
    """

    def __init__(self, message: str, position: int | None = None) -> None:
        self.position = position
        super().__init__(message)

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (*self.args, self.position)
