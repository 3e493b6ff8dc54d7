"""The passes of a sampler, by their number: what an endless loader lays end to end.

Guarantee: a pass is an epoch of its sampler, without what only fills the epoch's last batch. The pass that is being
read is kept, and the one before it; several threads may read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from feedline.order.listed_pass import ListedPass
from feedline.order.samplers import known_order, seekable
from feedline.protocols import length_of
from feedline.seeding import Stream, bulk_words

if TYPE_CHECKING:
    from feedline.order.sequence import Order

__all__ = ["Passes", "pass_order"]

_KEPT = 2  # what is read, and what the end of the epoch before is read from meanwhile
_LATER_PASS = 1  # detail of Stream.PASS; 0 is that of `Permutations`


@runtime_checkable
class _Filled(Protocol):
    """A sampler whose epochs are longer than a pass, to fill the last batch."""

    def pass_order(self, seed: int, epoch: int) -> Order:
        """The epoch without what fills the last batch."""


def pass_order(sampler: object, seed: int, number: int) -> Order | None:
    """The order of pass ``number``: that of the epoch, without what a sampler adds to fill its last batch.

    A user's own sampler is not read before the order is. None where it has no length.

    Example:
        >>> pass_order([3, 1], seed=0, number=5).take(0, 2)
        array([3, 1])
    """
    if seekable(sampler) is not None and isinstance(sampler, _Filled):
        return sampler.pass_order(seed, number)
    known = known_order(sampler, seed, number)
    length = length_of(sampler) if known is None else None
    return known if length is None else ListedPass(sampler, length, seed, number)


class Passes:
    """The passes of a sampler, keyed by seed and epoch. A copy, or a pickled one, begins with none kept.

    Args:
        sampler: one for which `pass_order` is known.

    Example:
        >>> from feedline.order.samplers import RandomSampler
        >>> passes = Passes(RandomSampler(range(3)))
        >>> sorted(passes.endless(1, 7).take(0, 3).tolist())
        [0, 1, 2]
    """

    def __init__(self, sampler: Any) -> None:
        self._sampler = sampler
        self._kept: tuple[tuple[tuple[int, int], Order], ...] = ()

    def endless(self, seed: int, number: int) -> Order:
        """Pass ``number`` of the one sequence: epoch ``number`` of the sampler."""
        return self._order(seed, number)

    def virtual(self, seed: int, epoch: int, number: int) -> Order:
        """Pass ``number`` of a virtual epoch with an order of its own.

        The first is the sampler's epoch, each later one that of another seed: word ``number`` of a stream of the epoch.
        """
        if number:
            seed = int(bulk_words(seed, epoch, Stream.PASS.word(_LATER_PASS), number, 1)[0])
        return self._order(seed, epoch)

    def _order(self, seed: int, epoch: int) -> Order:
        key = seed, epoch
        kept = self._kept
        for known, order in kept:
            if known == key:
                return order
        found = pass_order(self._sampler, seed, epoch)
        assert found is not None
        self._kept = (*kept, (key, found))[-_KEPT:]  # replaced as one object, for threads that meet here
        return found

    def __reduce__(self) -> tuple[object, ...]:
        return Passes, (self._sampler,)
