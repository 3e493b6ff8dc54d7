"""An epoch whose batches are fixed beforehand: they are what is dealt to ranks, each as a whole.

Guarantee: a `BatchOrder` numbers the batches of one epoch; laid end to end they are an `Order` of samples, so that
every sample has its global position, whichever rank gets its batch.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from feedline.order.samplers import SeekableSampler
from feedline.order.sequence import check_span

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

    from feedline.order.sequence import CutOrder, Order

__all__ = ["BatchOrder", "SeekableBatchSampler", "check_yields_indices", "samples_of"]


@dataclass(frozen=True, slots=True, eq=False)
class BatchOrder:
    """One epoch's sequence of batches.

    Attributes:
        samples: the batches laid end to end.
    """

    samples: CutOrder

    @property
    def length(self) -> int | None:
        """How many batches the epoch has; None where it is endless."""
        return self.samples.batches

    def batch(self, number: int) -> NDArray[np.int64]:
        """The indices of a batch: int64, shape (batch,), fresh or read-only.

        Raises:
            IndexError: the epoch has no such batch.
        """
        check_span(number, number + 1, self.length)
        return self.samples.take(*self.samples.bounds(number))

    def placed(self, unit: int) -> tuple[NDArray[np.int64], int]:
        """The batch at a place in the sequence that repeats for ever, and the global position of its first sample."""
        batches = self.length
        lap, number = (0, unit) if batches is None else divmod(unit, batches)
        before = lap * (self.samples.length or 0) if lap else 0  # of an endless sequence it costs the pass at its end
        return self.batch(number), before + self.samples.bounds(number)[0]


class SeekableBatchSampler(SeekableSampler):
    """The base of our samplers that decide what a batch is: iterating gives lists, and the length counts them."""

    @abstractmethod
    def order(self, seed: int, epoch: int) -> CutOrder:
        """The epoch's batches laid end to end."""

    def __len__(self) -> int:
        return self.order(0, 0).batches or 0

    def _items(self, order: Any) -> Iterator[Any]:
        batches = BatchOrder(order)
        for number in range(batches.length or 0):
            yield batches.batch(number).tolist()


def check_yields_indices(sampler: object) -> None:
    """Refuse a sampler of ours that decides what a batch is where one of single indices is needed.

    Raises:
        TypeError: it is one.
    """
    if isinstance(sampler, SeekableBatchSampler):
        raise TypeError(
            f"sampler must yield indices, got one that yields whole batches ({sampler.name:.40}); give the batch "
            f"sampler that it belongs to, as batch_sampler="
        )


def samples_of(order: Order | BatchOrder) -> Order:
    """An epoch's sequence of samples, whatever it is dealt by."""
    return order.samples if isinstance(order, BatchOrder) else order
