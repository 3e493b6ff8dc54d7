"""How batches of an iterable-style dataset are made: in its own order, each sample once.

Guarantee: a stream is read in order by one reader, never duplicated. Resuming reads it again up to the position that
was delivered; another rank's samples are read and passed over. After an error, or Ctrl-C, the samples already read
are not lost: the next batch begins with them.
"""

from __future__ import annotations

import types
import warnings
from typing import TYPE_CHECKING, Any

from feedline.engine.keys import Keys
from feedline.engine.making import add_note, finish, located
from feedline.engine.policy import FailedSample
from feedline.engine.task import Batch, Outcome
from feedline.errors import FeedlineError
from feedline.order.plan import Dealer
from feedline.protocols import length_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from feedline.engine.arena import Arena
    from feedline.engine.task import Recipe, Task
    from feedline.order.plan import BatchPlan, Cut, Geometry

__all__ = ["StreamMaker"]

_IN_A_ROW = 1000  # samples of a stream that may fail one after the other: beyond, its source is lost, not a sample
_OPENING = -2  # the index part of the key under which a stream is opened; samples have theirs from 0 on


class StreamMaker:
    """Makes the batches of one epoch of an iterable-style dataset, in order, whatever step it is asked for.

    Args:
        recipe: how batches are made.
        arena: where they are made.
        geometry: how the stream is cut and dealt.
        origin: the global position at which this geometry began.
        position: how many samples were delivered before.
    """

    def __init__(self, recipe: Recipe, arena: Arena, geometry: Geometry, *, origin: int, position: int) -> None:
        self._arena = arena
        self._recipe = recipe
        self._geometry = geometry
        self._step = (position - origin) // geometry.span
        self._origin = origin
        self._keys = Keys(recipe)
        self._reader = _Reader(recipe, position, geometry.shard.world_size - 1)
        self._dealer: Dealer[Any] | None = None
        self._dealt: tuple[list[Any], Cut] | None = None  # kept until the batch is made: Ctrl-C may come in between

    def make(self, task: Task) -> Outcome:
        """The next batch, or what the user's code raised; neither when the stream has ended."""
        batch = error = None
        with self._keys(task.plan.epoch) as keys:
            try:
                batch = self._batch(task.plan, keys)
            except Exception as raised:  # noqa: BLE001 -- the user's code may raise anything; raised again at its turn
                error = located(raised, task.plan)
        self._dealt = None
        failures = self._reader.take_failures()
        if batch is not None and failures:
            batch = batch._replace(samples=batch.samples + len(failures))
        return Outcome(task, batch, error, failures)

    def _batch(self, plan: BatchPlan, keys: Keys) -> Batch | None:
        reader = self._reader
        reader.enter(plan, keys)
        if self._dealer is None:
            reader.open()
            head, step = reader.head, self._step
            self._dealer = Dealer(reader, self._geometry, origin=self._origin, step=step, head=head)
        if self._dealt is None:
            self._dealt = next(self._dealer, None)
        if self._dealt is None:
            reader.warn_if_used_up(plan.epoch)
            return None
        samples, cut = self._dealt
        if not self._recipe.batched:
            return Batch(finish(self._recipe, self._arena, samples[0]), 1, cut.until)
        keys.batch(cut.start)
        return Batch(finish(self._recipe, self._arena, samples), len(samples), cut.until)


class _Reader:
    """The stream's samples, each read under its own key. No generator function: an error would end it for good.

    Args:
        recipe: how batches are made.
        position: how many samples to pass over.
        keep: how many of the first of those to keep in ``head``.
    """

    def __init__(self, recipe: Recipe, position: int, keep: int) -> None:
        self._dataset = recipe.dataset
        self._skips = recipe.policy.action == "skip"
        self._promised = length_of(recipe.dataset)
        self._samples: Iterator[Any] | None = None
        self._plan: BatchPlan | None = None
        self._keys: Keys | None = None
        self._failures: list[FailedSample] = []
        self._in_a_row = 0
        self._position = position
        self._keep = keep
        self.head: list[Any] = []

    def enter(self, plan: BatchPlan, keys: Keys) -> None:
        """Read on for this batch, under its keys."""
        self._plan, self._keys = plan, keys

    def take_failures(self) -> tuple[FailedSample, ...]:
        """The samples that failed since the last call."""
        failures, self._failures = tuple(self._failures), []
        return failures

    def open(self) -> None:
        """Begin the stream anew and pass over what was read before."""
        assert self._keys is not None
        self._keys.sample(0, _OPENING)
        samples = iter(self._dataset)
        passed = failed = 0
        while passed < self._position:
            self._keys.sample(passed, passed)
            try:
                sample = next(samples)
            except StopIteration:
                raise FeedlineError(
                    f"the state says that {self._position} samples were delivered, but the stream ended after "
                    f"{passed}; resume with the dataset that the state was taken from"
                ) from None
            except Exception:
                failed += 1
                if _is_over(samples) or failed > _IN_A_ROW:
                    raise
                continue  # it was raised, or skipped, before
            if passed < self._keep:
                self.head.append(sample)
            passed, failed = passed + 1, 0
        self._samples = samples

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        assert self._keys is not None
        while True:
            if self._samples is None:
                self.open()
            assert self._samples is not None
            self._keys.sample(self._position, self._position)
            try:
                sample = next(self._samples)
            except StopIteration:
                raise
            except Exception as error:  # noqa: BLE001 -- as above
                self._fail(error, self._samples)
                continue
            except BaseException:
                wraps = type(self._samples).__module__ in {"builtins", "itertools"}
                if self._samples is not self._dataset and (wraps or _is_over(self._samples)):
                    self._samples = None  # Ctrl-C ended a generator, maybe one inside map() or chain(): open it anew
                raise
            self._position += 1
            self._in_a_row = 0
            self._warn_if_longer()
            return sample

    def _fail(self, error: Exception, samples: Iterator[Any]) -> None:
        """Note a sample that failed, and raise its error unless the stream can go on without it."""
        assert self._plan is not None
        add_note(error, f"in sample {self._position} of the stream")
        self._failures.append(FailedSample(self._position, self._plan.epoch, self._plan.step, error))
        self._in_a_row += 1
        if self._in_a_row > _IN_A_ROW:
            add_note(error, f"{self._in_a_row} samples in a row failed: the stream is given up")
            self._in_a_row = 0
            raise error
        if not self._skips or _is_over(samples):
            raise error

    def _warn_if_longer(self) -> None:
        if self._promised is not None and self._position == self._promised + 1:
            warnings.warn(
                f"the dataset's len() is {self._promised}, but it goes on beyond that; len(loader) is too small",
                stacklevel=2,
            )

    def warn_if_used_up(self, epoch: int) -> None:
        """Say so when an epoch after the first is empty because the dataset is an iterator and not an iterable."""
        if epoch and self._position == 0 and self._samples is self._dataset:
            warnings.warn(
                f"epoch {epoch} is empty: the dataset is an iterator, which an earlier epoch has used up; give an "
                f"iterable, whose __iter__ begins anew",
                stacklevel=2,
            )


def _is_over(iterator: object) -> bool:
    """Whether an iterator is a generator that has ended: after an error it would only say that it is at its end."""
    return isinstance(iterator, types.GeneratorType) and iterator.gi_frame is None
