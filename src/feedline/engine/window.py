"""The window: which batches may be under way, and which may leave.

Guarantee: pure bookkeeping, without threads, clocks or memory of its own. At most ``credits`` batches are under way or
waiting, and not many more bytes than that; each step leaves exactly once, in the order of admission (``in_order``) or
as it comes. A completion that is not expected (a second run of the same step) is refused, never delivered. Ctrl-C may
come anywhere: a change is made of statements in a row that call nothing, between which Python hears no signal.
"""

from __future__ import annotations

from typing import Generic, TypeVar

__all__ = ["Window"]

T = TypeVar("T")

_LOT = 4  # batches that are admitted together cost less each: half as much, where the caches have gone cold


class Window(Generic[T]):
    """Credits and order of the batches between plan and delivery.

    Args:
        credits: how many batches may be admitted and not yet released.
        in_order: release in the order of admission; otherwise in that of completion.
        max_nbytes: how much memory the batches that are admitted and not released may take, each reckoned as large as
            the largest so far; None: any. One batch may always be under way, however large.

    Attributes:
        free: how many more batches the credits allow.

    Example:
        >>> window = Window(credits=2)
        >>> window.admit(0), window.admit(1), window.may_admit
        (None, None, False)
        >>> window.complete(1, "second"), window.release()
        (True, None)
        >>> window.complete(0, "first"), window.release(), window.release()
        (True, 'first', 'second')
    """

    __slots__ = ("_completed", "_credits", "_in_order", "_largest", "_lot", "_max_nbytes", "_order", "_pending", "free")

    def __init__(self, credits: int, *, in_order: bool = True, max_nbytes: int | None = None) -> None:  # noqa: A002 -- the term for it
        if credits < 1:
            raise ValueError(f"credits must be a positive integer, got {credits}")
        self._credits = credits
        self.free = credits
        self._lot = max(1, min(_LOT, credits // 2))
        self._in_order = in_order
        self._max_nbytes = max_nbytes
        self._largest = 0
        self._order: dict[int, None] = {}  # steps in the order in which they leave
        self._pending: dict[int, None] = {}  # admitted, not completed
        self._completed: dict[int, T] = {}  # completed, not released

    @property
    def is_empty(self) -> bool:
        """Whether nothing is under way or waiting."""
        return self.free == self._credits

    @property
    def may_admit(self) -> bool:
        """Whether one more batch may be under way."""
        free = self.free
        if free == self._credits:
            return True
        if not free:
            return False
        return self._max_nbytes is None or (self._credits - free + 1) * self._largest <= self._max_nbytes

    @property
    def has_room(self) -> bool:
        """Whether as many credits are free as are worth the trouble of admitting batches: a few, at most half."""
        return self.free >= self._lot

    def __contains__(self, step: int) -> bool:
        """Whether a step was admitted and not released."""
        return step in self._pending or step in self._completed

    def admit(self, step: int) -> None:
        """Begin a step.

        Raises:
            RuntimeError: there is no credit, or the step is under way already.
        """
        if step in self._pending or step in self._completed:
            raise RuntimeError(f"step {step} admitted twice")
        if not self.may_admit:
            raise RuntimeError(
                f"step {step} admitted without credit: {self._credits - self.free} are under way, of {self._credits} "
                f"batches and {self._max_nbytes or 'any number of'} bytes"
            )
        self.free -= 1
        self._pending[step] = None
        if self._in_order:
            self._order[step] = None

    def complete(self, step: int, result: T, nbytes: int = 0) -> bool:
        """Take a step's result, and its size; False, and nothing changes, when the step is not under way (any more)."""
        if step not in self._pending:
            return False
        self._largest = max(self._largest, nbytes)
        del self._pending[step]
        self._completed[step] = result
        if not self._in_order:
            self._order[step] = None
        return True

    def release(self) -> T | None:
        """The next result to deliver; None where its step is still under way, or none is."""
        for step in self._order:
            if step in self._completed:
                result = self._completed[step]
                del self._order[step], self._completed[step]
                self.free += 1
                return result
            break
        return None

    def forget(self) -> None:
        """Drop the results that are not released; their steps stay where they are in the order."""
        self._pending |= dict.fromkeys(self._completed)
        self._completed = {}
