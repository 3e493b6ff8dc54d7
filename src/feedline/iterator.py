"""What a loop holds of a loader: an iterator over one epoch.

Guarantee: it takes its epoch at its first ``next()``, not before. Several may be under way at once; one may be used by
several threads, one at a time.
"""

from __future__ import annotations

import sys
from threading import Lock, get_ident
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from feedline.course import Course, MakesRecipe
    from feedline.epoch import Epoch

__all__ = ["EpochIterator"]


class EpochIterator:
    """One epoch of a loader.

    Args:
        course: gives the epoch, at the first ``next()``, and is told of it before each batch.
        recipe: how the batches of an epoch are made.
        length: gives the number of batches of an epoch.
    """

    def __init__(self, course: Course, recipe: MakesRecipe, length: Callable[[], int]) -> None:
        self._course = course
        self._recipe = recipe
        self._length = length
        self._lock = Lock()
        self._owner: int | None = None
        self._closed = False
        self._epoch: Epoch | None = None

    def __iter__(self) -> Iterator[Any]:
        return self

    def __len__(self) -> int:
        return self._length()

    def __next__(self) -> Any:
        thread = get_ident()
        if self._owner == thread:
            raise RuntimeError("next() was called on an iterator by code that this iterator runs: use another iterator")
        epoch = None
        try:
            with self._lock:
                self._owner = thread
                try:
                    if self._closed:
                        raise RuntimeError("the loader was closed: iterate over it again for a new epoch")
                    current = self._epoch
                    if current is None:
                        current = self._epoch = self._first()
                    self._course.touch(current, self._recipe)
                    current.make_ready()
                    value = current.hand_over()
                    epoch = current  # which has handed it over
                finally:
                    self._owner = None
        except BaseException:  # Ctrl-C, as the lock was given back
            if epoch is not None:
                with self._lock:
                    epoch.take_back(value)
            raise
        return value

    def _first(self) -> Epoch:
        try:
            return self._course.begin(self._recipe)
        except StopIteration as error:  # it would end a loop that has not begun
            raise RuntimeError(
                "the sampler raised StopIteration when it was opened; raise an error of your own"
            ) from error

    def refuse(self) -> None:
        """From now on each ``next()`` is an error; one that is under way elsewhere ends when it can."""
        self._closed = True

    def close(self) -> None:
        """Stop what the epoch started; a further ``next()`` is an error. Waits for a batch under way elsewhere."""
        self._closed = True
        if self._owner == get_ident():  # the batch under way is what closes the loader
            self._stop()
            return
        with self._lock:
            self._stop()

    def __del__(self, _is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        """After ``break`` nothing of the epoch goes on. At the interpreter's exit, workers end by themselves."""
        epoch = getattr(self, "_epoch", None)  # absent where building it was interrupted
        if epoch is not None and not _is_finalizing():  # a default value: the module's names may be gone
            epoch.close()

    def _stop(self) -> None:
        if self._epoch is not None:
            self._epoch.close()
