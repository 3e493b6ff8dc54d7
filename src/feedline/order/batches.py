"""Batch samplers: a sampler's indices in lists of a batch each.

Guarantee: the loader takes a `BatchSampler`'s sampler and its batch size apart, so that the order knows nothing of the
batch size; over one of our samplers it stays seekable.
"""

from __future__ import annotations

import zlib
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeGuard

from feedline.checks import integer
from feedline.order.batched import SeekableBatchSampler, check_yields_indices
from feedline.order.samplers import Sampler, SeekableSampler, seekable
from feedline.order.stratified import Strata, StratifiedOrder
from feedline.protocols import Sized

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import ArrayLike

__all__ = ["BatchSampler", "StratifiedBatchSampler", "cuts_alone", "unwrapped"]

_GROUP = 32  # a group is the least stretch of the order that holds every class: small enough for common batch sizes


class BatchSampler(Sampler[list[Any]]):
    """Lists of ``batch_size`` indices from any sampler or other iterable; the last may be shorter.

    Args:
        sampler: where the indices come from.
        batch_size: how many a list holds.
        drop_last: leave out a last, shorter list.

    Raises:
        ValueError: ``batch_size`` is not a positive integer, or ``drop_last`` no boolean.
        TypeError: ``sampler`` is one of ours that yields whole batches.

    Example:
        >>> list(BatchSampler(range(5), 2, drop_last=False))
        [[0, 1], [2, 3], [4]]
    """

    def __init__(
        self,
        sampler: Iterable[Any],
        batch_size: int,
        drop_last: bool,  # noqa: FBT001 -- torch's signature
    ) -> None:
        if not isinstance(drop_last, bool):
            raise ValueError(f"drop_last must be True or False, got {drop_last!r}")  # noqa: TRY004 -- as torch
        check_yields_indices(sampler)
        self.sampler = sampler
        self.batch_size = integer("batch_size", batch_size, least=1)
        self.drop_last = drop_last

    def __iter__(self) -> Iterator[list[Any]]:
        indices = iter(self.sampler)
        if isinstance(self.sampler, SeekableBatchSampler):  # a subclass of ours has one, which yields the lists
            yield from indices
            return
        while batch := list(islice(indices, self.batch_size)):
            if self.drop_last and len(batch) < self.batch_size:
                return
            yield batch

    def __len__(self) -> int:
        if not isinstance(self.sampler, Sized):
            raise TypeError(f"BatchSampler has no len(): {type(self.sampler).__name__} has no __len__")
        length = len(self.sampler)
        if isinstance(self.sampler, SeekableBatchSampler):
            return length
        return length // self.batch_size if self.drop_last else -(-length // self.batch_size)

    def set_epoch(self, epoch: int) -> None:
        """Hand the epoch to the sampler, if it takes one."""
        set_epoch = getattr(self.sampler, "set_epoch", None)
        if set_epoch is not None:
            set_epoch(epoch)


class _StratifiedSampler(SeekableSampler):
    """The order that `StratifiedBatchSampler` cuts into batches; it goes on to a multiple of ``multiple``."""

    fixed_length = False  # the multiple is the batch size: nothing but the epoch's end depends on it

    def __init__(self, strata: Strata, group_size: int, min_per_class: int, multiple: int, generator: Any) -> None:
        self.strata = strata
        self.group_size = group_size
        self.min_per_class = min_per_class
        self.multiple = multiple
        self.generator = generator
        self._checksum = zlib.crc32(strata.members.data, zlib.crc32(strata.counts.data))  # O(N), hence once

    @property
    def name(self) -> str:
        """With what shapes the order: the group, and how many samples each class has."""
        shape = f"group_size={self.group_size}, min_per_class={self.min_per_class}, {self._checksum:08x}"
        return f"StratifiedBatchSampler({shape})"

    def order(self, seed: int, epoch: int) -> StratifiedOrder:
        return StratifiedOrder(self.strata, self.group_size, self.min_per_class, seed, epoch, self.multiple)

    def pass_order(self, seed: int, epoch: int) -> StratifiedOrder:
        """The epoch up to where every sample was drawn, which no batch size shapes."""
        return StratifiedOrder(self.strata, self.group_size, self.min_per_class, seed, epoch)


class StratifiedBatchSampler(BatchSampler):
    """Batches that hold each class in proportion, and at least ``min_per_class`` of each.

    The order is made of groups of a fixed size, in which every class has evenly spread places, so that any batch of at
    least a group's size holds them all, each within a few of its share. A class that would be too rare for
    ``min_per_class`` is drawn more often than its share; classes that run out begin again, until every sample was
    drawn once and, unless ``drop_last``, the last batch is whole.

    The order depends on the group, not on the batch size: batches of another size are cut from the same sequence, but
    for where it ends. By default that holds for batches of at least 32 or, where that is more, of twice the least
    batch that the classes allow. A smaller batch makes its own size the group, hence another order; a ``group_size``
    that fits in all the batch sizes to be used avoids that.

    Args:
        labels: shape (N,), the class of each sample: integers, strings or booleans.
        batch_size: how many indices a batch holds; not less than ``min_per_class`` times the number of classes.
        min_per_class: how many of each class a batch holds at least.
        group_size: the size of a group; None takes 32, more where the classes need it, less where the batch is smaller.
            Larger groups follow the true proportions of rare classes more closely.
        drop_last: leave out a last, shorter batch, instead of going on until it is whole.
        generator: as in `RandomSampler`.

    Raises:
        ValueError: the batch, or the group, is too small to hold each class, or larger than the batch.

    Example:
        >>> sampler = StratifiedBatchSampler([0] * 1000 + [1] * 10, batch_size=32)
        >>> all(any(index >= 1000 for index in batch) for batch in sampler)
        True
        >>> sampler.repeats
        46
    """

    def __init__(
        self,
        labels: ArrayLike,
        batch_size: int,
        *,
        min_per_class: int = 1,
        group_size: int | None = None,
        drop_last: bool = False,
        generator: Any = None,
    ) -> None:
        batch_size = integer("batch_size", batch_size, least=1)
        min_per_class = integer("min_per_class", min_per_class, least=0)
        strata = Strata.of(labels)
        needed = max(min_per_class, 1) * len(strata.counts)
        if batch_size < needed:
            raise ValueError(
                f"batch_size must be at least min_per_class * number of classes = {needed}, so that a batch can hold "
                f"each class, got {batch_size}"
            )
        if group_size is None:
            group_size = min(batch_size, max(_GROUP, 2 * needed))
        group_size = integer("group_size", group_size, least=1)
        if group_size > batch_size:
            raise ValueError(
                f"group_size must be at most batch_size = {batch_size}, so that a batch holds a whole group, "
                f"got {group_size}"
            )
        whole = StratifiedOrder(strata, group_size, min_per_class, 0, 0).length >= batch_size
        multiple = batch_size if whole and not drop_last else 1  # a batch larger than all of it holds all classes
        sampler = _StratifiedSampler(strata, group_size, min_per_class, multiple, generator)
        sampler.order(0, 0)  # checks the group against the classes
        super().__init__(sampler, batch_size, drop_last)
        self._stratified = sampler

    @property
    def repeats(self) -> int:
        """How many draws of an epoch, up to the last batch's end, repeat a sample of a class that ran out."""
        return self._stratified.order(0, 0).repeats


def cuts_alone(batch_sampler: object) -> TypeGuard[BatchSampler]:
    """Whether it does nothing but cut what its sampler yields; a subclass may iterate in its own way."""
    return isinstance(batch_sampler, BatchSampler) and type(batch_sampler).__iter__ is BatchSampler.__iter__


def unwrapped(batch_sampler: object) -> tuple[Any, int, bool] | None:
    """The sampler, batch size and drop_last of a `BatchSampler` of ours, else None.

    Where the sampler decides what a batch is, each counts as one item: a size of 1. A subclass of the user's, which may
    keep a state or count epochs, comes apart only over a sampler of ours.
    """
    if not cuts_alone(batch_sampler):
        return None
    ours = seekable(batch_sampler.sampler)
    if ours is None and type(batch_sampler) is not BatchSampler:
        return None
    size = 1 if isinstance(ours, SeekableBatchSampler) else batch_sampler.batch_size
    return batch_sampler.sampler, size, batch_sampler.drop_last
