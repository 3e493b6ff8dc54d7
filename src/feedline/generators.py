"""The global generators of Python, NumPy and torch: seeded for the user's code, and put back.

Guarantee (contract 2): after the context their states are to the last bit what they were before it.
"""

from __future__ import annotations

import random
import sys
from typing import Any, Self

import numpy as np

__all__ = ["GlobalGenerators"]

_LARGEST_TORCH_SEED = (1 << 63) - 1


class GlobalGenerators:
    """The global generators of Python, NumPy and torch, lent to the user's code and put back as they were found.

    For code written for other libraries, which draws from global state. Within the context `seed` sets all of them;
    leaving restores their states, NumPy's by changing the generator under its functions, which is the cheaper way.
    torch is taken only if something else imported it. An object is for one thread, and may be entered again and again.

    Args:
        keep: whether the next entry goes on where the last one stopped, instead of with whatever state is found.
    """

    def __init__(self, *, keep: bool = False) -> None:
        self._keep = keep
        self._bits = np.random.MT19937(0)
        self._kept: tuple[Any, Any, Any] | None = None

    def __enter__(self) -> Self:
        self._torch = getattr(sys.modules.get("torch"), "default_generator", None)
        self._found_bits = np.random.get_bit_generator()  # type: ignore[attr-defined]  # absent from NumPy's stubs
        self._found = self._states()
        np.random.set_bit_generator(self._bits)  # type: ignore[attr-defined]
        if self._kept is not None:
            self._restore(self._kept)
        return self

    def seed(self, value: int) -> None:
        """Seed all of them from one 64-bit number."""
        random.seed(value)
        np.random.seed(value & 0xFFFFFFFF)  # noqa: NPY002 -- the global state is the point; it takes 32 bits
        if self._torch is not None:
            self._torch.manual_seed(value & (_LARGEST_TORCH_SEED))

    def __exit__(self, *_: object) -> None:
        if self._keep:
            self._kept = self._states()
        np.random.set_bit_generator(self._found_bits)  # type: ignore[attr-defined]
        self._restore(self._found)

    def _states(self) -> tuple[Any, Any, Any]:
        numpy_state = np.random.get_state(legacy=False)  # noqa: NPY002 -- as above
        return random.getstate(), numpy_state, None if self._torch is None else self._torch.get_state()

    def _restore(self, states: tuple[Any, Any, Any]) -> None:
        """Put states back; the bit generator of NumPy's, which belongs to it, is in place and unchanged."""
        python_state, numpy_state, torch_state = states
        random.setstate(python_state)
        if numpy_state.get("has_gauss"):  # changing the bit generator forgets the second of a pair of normal numbers
            np.random.set_state(numpy_state)  # noqa: NPY002 -- as above
        if torch_state is not None:
            assert self._torch is not None
            self._torch.set_state(torch_state)
