"""A pass of a user's own sampler, listed when it is first read.

Guarantee: the sampler is told the pass's number, if it has ``set_epoch``, finds the global generators seeded by (seed,
number), as in a `DataLoader`'s epoch of that number, and is read from its beginning to its end; the generators are left
as they were. Nothing is read of it before. Several threads may take; they read one pass at a time.
"""

from __future__ import annotations

import operator
import threading
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from feedline.generators import GlobalGenerators
from feedline.order.sequence import ListedOrder, check_span
from feedline.seeding import Stream, bulk_words

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["ListedPass"]

_READING = threading.RLock()  # passes that are read at once would mix what a sampler, and the generators, keep


@dataclass(frozen=True, slots=True, eq=False)
class ListedPass:
    """What a sampler yields in one pass: ``length`` integers, held from the first take on.

    Args:
        sampler: yields integers.
        length: how many.
        seed: from 0 to 2**64 - 1.
        epoch: the number of the pass.

    Example:
        >>> ListedPass({5: "a", 7: "b"}, length=2, seed=1, epoch=0).take(1, 2)
        array([7])
    """

    sampler: Any = field(repr=False)
    length: int
    seed: int
    epoch: int
    _indices: NDArray[np.int64] | None = field(init=False, repr=False, default=None)

    def take(self, start: int, stop: int) -> NDArray[np.int64]:
        """See `Order.take`; a read-only array.

        Raises:
            TypeError: the sampler yields something else than integers.
            ValueError: it yields more, or fewer, than ``length``.
            RuntimeError: it raises StopIteration where that does not mean its end.
        """
        check_span(start, stop, self.length)
        if self._indices is None:
            with _READING:
                if self._indices is None:  # as another thread may have read it meanwhile
                    indices = self._listed()
                    indices.flags.writeable = False
                    object.__setattr__(self, "_indices", indices)
        assert self._indices is not None
        return self._indices[start:stop]

    def _listed(self) -> NDArray[np.int64]:
        with GlobalGenerators() as generators:
            generators.seed(int(bulk_words(self.seed, self.epoch, Stream.SAMPLER.word(), 0, 1)[0]))
            try:
                set_epoch = getattr(self.sampler, "set_epoch", None)
                if set_epoch is not None:
                    set_epoch(self.epoch)
                items = iter(self.sampler)
            except StopIteration as error:  # it would end the loop as if all batches had come
                raise RuntimeError(
                    f"{type(self.sampler).__name__} raised StopIteration outside its iterator; raise an error of your "
                    f"own"
                ) from error
            listed = list(islice(items, self.length + 1))
        if len(listed) != self.length:
            number = f"more than {self.length}" if len(listed) > self.length else str(len(listed))
            raise ValueError(
                f"sampler must yield as many indices in each pass, {self.length}, got {number} of "
                f"{type(self.sampler).__name__} in pass {self.epoch}; give an iterable whose __iter__ begins anew"
            )
        try:
            return np.fromiter(map(operator.index, listed), dtype=np.int64, count=self.length)
        except (TypeError, OverflowError) as error:
            raise TypeError(
                f"sampler must yield integers below 2**63 for passes to be laid end to end, and "
                f"{type(self.sampler).__name__} does not ({error}); use a DataLoader, or number the samples"
            ) from error

    def __reduce__(self) -> tuple[object, ...]:
        """A copy is of the indices, and not of the sampler, which need not be fit to travel."""
        return ListedOrder, (self.take(0, self.length),)
