"""A batch written sample by sample: `BatchWriter`.

Guarantee (contract 5): a sample's arrays and numbers are written once, at once, into their place in the
batch, and the sample is not kept; samples are never gathered and stacked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from feedline.batching.leaves import Space
from feedline.batching.nodes import learn
from feedline.checks import integer

if TYPE_CHECKING:
    from collections.abc import Iterable

    from feedline.batching.leaves import Allocate, Node

__all__ = ["BatchWriter"]


class BatchWriter:
    """Writes samples into a batch of at most ``size``; the first sample teaches the layout.

    `add` either writes a sample or raises and leaves the batch as it was (a dtype may have become wider). Not
    for use by several threads.

    Args:
        size: the number of samples there is room for.
        allocate: gives the memory of an array of the batch, by shape and dtype; uninitialised memory will do. It is
            called again for an array whose dtype must become wider, and the array given before is dropped.

    Raises:
        ValueError: ``size`` is not a positive integer.

    Example:
        >>> writer = BatchWriter(3)
        >>> writer.add((np.zeros(2), 1))
        >>> writer.add((np.ones(2), 2))
        >>> writer.finish()
        (array([[0., 0.],
               [1., 1.]]), array([1, 2]))
    """

    __slots__ = ("_count", "_room", "_root", "_space")

    def __init__(self, size: int, *, allocate: Allocate = np.empty) -> None:
        self._room = integer("size", size, least=1)
        self._space = Space(self._room, allocate)
        self._root: Node | None = None
        self._count = 0

    def __len__(self) -> int:
        """The number of samples added."""
        return self._count

    def add(self, sample: Any) -> None:
        """Write the next sample into its place.

        Raises:
            ValueError: the batch is full, or finished.
            CollateError: the sample does not stack with those before it.
            TypeError: it holds a value that no batch is made of.
        """
        i = self._count
        if i >= self._room:
            raise ValueError(
                f"a batch of {self._space.size} takes no more samples once it is full or finished; "
                "write them with another BatchWriter"
            )
        root = self._root
        if root is None:
            root = learn(sample, self._space, "sample")
            root.put(i, sample)
            self._root = root
        else:
            root.put(i, sample)
        self._count = i + 1

    def extend(self, samples: Iterable[Any]) -> None:
        """`add` each sample, in turn, as it comes.

        Raises:
            ValueError, CollateError, TypeError: as `add` does; the samples before are added.
        """
        samples = iter(samples)
        if self._root is None:
            for first in samples:
                self.add(first)
                del first  # a sample lives no longer than until it is written
                break
            else:
                return
        assert self._root is not None
        put, room, i = self._root.put, self._room, self._count
        try:
            for sample in samples:
                if i >= room:
                    self.add(sample)  # which says that there is no room
                put(i, sample)
                i += 1
                del sample  # or it would live while the next one is made
        finally:
            self._count = i

    def finish(self) -> Any:
        """The batch of the samples added: views of the memory's beginning where they are fewer than ``size``.

        The writer lets go of the batch.

        Raises:
            ValueError: no sample was added, or the batch was handed out already.
        """
        if self._root is None:
            raise ValueError("cannot collate an empty batch")
        root, self._root = self._root, None
        self._room = 0
        return root.finish(self._count)
