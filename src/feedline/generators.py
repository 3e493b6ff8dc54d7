"""The global generators of Python, NumPy and torch: seeded for the user's code, and put back.

Guarantee (contract 2): after the context their states are to the last bit what they were before it; when contexts of
several threads overlap, what they were before the first is there after the last. (What code draws from global state
while another thread does the same is nobody's to foresee.)
"""

from __future__ import annotations

import random
import sys
import threading
from typing import Any, NamedTuple, Self

import numpy as np

__all__ = ["GlobalGenerators", "own_globals", "seed_globals", "torch_generator"]

_LARGEST_TORCH_SEED = (1 << 63) - 1


def seed_globals(value: int, torch_generator: Any = None) -> None:
    """Seed Python's and NumPy's global generators, and one of torch's if it is given, from one 64-bit number."""
    random.seed(value)
    np.random.seed(value & 0xFFFFFFFF)  # noqa: NPY002 -- the global state is the point; it takes 32 bits
    if torch_generator is not None:
        torch_generator.manual_seed(value & _LARGEST_TORCH_SEED)


def torch_generator() -> Any:
    """Torch's default generator, if something imported torch."""
    return getattr(sys.modules.get("torch"), "default_generator", None)


class _States(NamedTuple):
    """The states of all of them, NumPy's with the bit generator that it belongs to."""

    python: Any
    bits: Any
    numpy: Any
    torch: Any
    torch_state: Any

    @classmethod
    def now(cls) -> Self:
        """The present states; torch's only if something else imported it."""
        torch = torch_generator()
        bits = np.random.get_bit_generator()  # type: ignore[attr-defined]  # absent from NumPy's stubs
        numpy_state = np.random.get_state(legacy=False)  # noqa: NPY002 -- the global state is the point
        return cls(random.getstate(), bits, numpy_state, torch, None if torch is None else torch.get_state())

    def restore(self) -> None:
        """Put them back; NumPy's by putting back the bit generator, which nobody used in between."""
        random.setstate(self.python)
        np.random.set_bit_generator(self.bits)  # type: ignore[attr-defined]
        if self.numpy.get("has_gauss"):  # changing the bit generator forgets the second of a pair of normal numbers
            np.random.set_state(self.numpy)  # noqa: NPY002 -- as above
        if self.torch is not None:
            self.torch.set_state(self.torch_state)


class _Lent:
    """How many contexts are entered in this process, and what the first of them found.

    Attributes:
        are_ours: whether this process is a worker's, where nobody misses the states that were found.
    """

    are_ours = False
    lock = threading.Lock()
    count = 0
    found: _States | None = None


def own_globals() -> None:
    """From now on global generators need not be put back: this process is there for the user's samples alone."""
    _Lent.are_ours = True


class GlobalGenerators:
    """The global generators, lent to the user's code and put back as they were found.

    For code written for other libraries, which draws from global state. Within the context `seed` sets all of them. An
    object is for one thread, and may be entered again and again.

    Args:
        keep: whether the next entry goes on where the last one stopped, instead of with whatever state is found.
    """

    def __init__(self, *, keep: bool = False) -> None:
        self._keep = keep
        self._bits = np.random.MT19937(0)
        self._kept: _States | None = None
        self._found: _States | None = None

    def __enter__(self) -> Self:
        self._torch = torch_generator()
        if _Lent.are_ours and not self._keep:
            return self
        with _Lent.lock:
            self._found = _States.now()
            if _Lent.count == 0:
                _Lent.found = self._found
            _Lent.count += 1
        np.random.set_bit_generator(self._bits)  # type: ignore[attr-defined]
        if self._kept is not None:
            self._kept.restore()
        return self

    def seed(self, value: int) -> None:
        """Seed all of them from one 64-bit number."""
        seed_globals(value, self._torch)

    def __exit__(self, *_: object) -> None:
        found, self._found = self._found, None
        if found is None:
            return
        if self._keep:
            self._kept = _States.now()
        with _Lent.lock:
            _Lent.count -= 1
            if _Lent.count == 0 and _Lent.found is not None:
                found, _Lent.found = _Lent.found, None
            found.restore()
