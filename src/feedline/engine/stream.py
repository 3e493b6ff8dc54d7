"""How batches of an iterable-style dataset are made: in its own order, each sample once.

Guarantee: a stream is read in order by one reader, never duplicated. Resuming reads it again up to the position that
was delivered; another rank's samples are read and passed over. After an error, or Ctrl-C, the samples already read
are not lost: the next batch begins with them.
"""

from __future__ import annotations

import types
import warnings
from typing import TYPE_CHECKING, Any

from feedline.engine.keys import Keying
from feedline.engine.making import add_note, dress
from feedline.engine.policy import FailedSample
from feedline.engine.task import Batch
from feedline.errors import FeedlineError
from feedline.order.plan import Dealer
from feedline.protocols import length_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from feedline.engine.keys import Keys
    from feedline.engine.task import Recipe
    from feedline.order.plan import BatchPlan, Geometry

__all__ = ["StreamMaker"]


class StreamMaker:
    """Makes the batches of one epoch of an iterable-style dataset, in order, whatever step it is asked for.

    Args:
        recipe: how batches are made.
        geometry: how the stream is cut and dealt.
        origin: the global position at which this geometry began.
        position: how many samples were delivered before.
    """

    def __init__(self, recipe: Recipe, geometry: Geometry, *, origin: int, position: int) -> None:
        self._recipe = recipe
        self._geometry = geometry
        self._origin = origin
        self._position = position
        self._keying = Keying(recipe)
        self._plan: BatchPlan | None = None
        self._keys: Keys | None = None
        self._failures: list[FailedSample] = []
        self._dealer: Dealer[Any] | None = None

    def make(self, plan: BatchPlan) -> Batch | None:
        """The next batch, or None when the stream has ended."""
        self._plan = plan
        with self._keying.open(plan.epoch) as self._keys:
            try:
                dealer = self._dealer
                if dealer is None:
                    dealer = self._dealer = self._open()
                dealt = next(dealer, None)
                if dealt is None:
                    return None
                samples, cut = dealt
                failures, self._failures = tuple(self._failures), []
                if self._recipe.batched:
                    self._keys.batch(cut.start)
                value = dress(self._recipe, samples if self._recipe.batched else samples[0])
                return Batch(value, len(samples), cut.until, failures)
            except StopIteration as error:
                raise RuntimeError(
                    f"a function of the loader raised StopIteration (epoch {plan.epoch}, step {plan.step}); "
                    f"raise an error of your own"
                ) from error
            except Exception as error:
                add_note(error, f"while making epoch {plan.epoch}, step {plan.step}, in the main process")
                raise

    def _open(self) -> Dealer[Any]:
        samples = _Samples(self._recipe, self._enter, self._fail)
        head: list[Any] = []
        for _ in range(self._position):
            try:
                sample = next(samples)
            except StopIteration:
                raise FeedlineError(
                    f"the state says that {self._position} samples were delivered, but the stream ended after "
                    f"{samples.position}; resume with the dataset that the state was taken from"
                ) from None
            if len(head) < self._geometry.shard.world_size - 1:
                head.append(sample)
        self._failures.clear()  # those of samples that were delivered before
        step = (self._position - self._origin) // self._geometry.span
        return Dealer(samples, self._geometry, origin=self._origin, step=step, head=head)

    def _enter(self, position: int) -> None:
        assert self._keys is not None
        self._keys.sample(position, position)

    def _fail(self, position: int, error: Exception) -> None:
        assert self._plan is not None
        self._failures.append(FailedSample(position, self._plan.epoch, self._plan.step, error))


class _Samples:
    """The stream's samples, each read under its own key. No generator function: an error would end it for good."""

    def __init__(self, recipe: Recipe, enter: Callable[[int], None], failed: Callable[[int, Exception], None]) -> None:
        self._enter = enter
        self._failed = failed
        self._skips = recipe.policy.action == "skip"
        self._samples = iter(recipe.dataset)
        self._promised = length_of(recipe.dataset)
        self.position = 0

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        while True:
            self._enter(self.position)
            try:
                sample = next(self._samples)
            except StopIteration:
                raise
            except Exception as error:
                add_note(error, f"in sample {self.position} of the stream")
                if not self._skips or _is_over(self._samples):
                    raise
                self._failed(self.position, error)
                continue
            self.position += 1
            if self._promised is not None and self.position == self._promised + 1:
                warnings.warn(
                    f"the dataset's len() is {self._promised}, but it goes on beyond that; len(loader) is too small",
                    stacklevel=2,
                )
            return sample


def _is_over(iterator: object) -> bool:
    """Whether an iterator is a generator that an error has ended: it would only say that it is at its end."""
    return isinstance(iterator, types.GeneratorType) and iterator.gi_frame is None
