"""The course of a loader through its epochs: which is next, where the present one stands, and the next one begun early.

Guarantee (contract 3): the state speaks of what was delivered by the iterator that last took a ``next()``. An epoch is
taken at an iterator's first ``next()``; one that was begun early is used only if it is what is asked for, of the
dataset as it is.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from feedline.datasets.shuffled import stream_name
from feedline.epoch import Epoch
from feedline.order.batched import BatchOrder, SeekableBatchSampler
from feedline.order.cursor import NAME_LENGTH, Cursor
from feedline.order.samplers import known_order, seekable
from feedline.order.undivided import warn_if_repeated
from feedline.protocols import length_of
from feedline.seeding import checked_seed, draw_seed, seed_from, shared_seed

if TYPE_CHECKING:
    from collections.abc import Callable

    from feedline.engine.task import Recipe
    from feedline.epoch import Surroundings
    from feedline.order.sequence import Order

    MakesRecipe = Callable[[int, Order | BatchOrder | None], Recipe]

__all__ = ["Course", "Source"]


@dataclass(frozen=True, slots=True)
class Source:
    """Where the order of an epoch comes from.

    Attributes:
        sampler: a sampler, or the user's batch sampler; None for a stream.
        batches: whether it decides itself what a batch is.
        generator: of the user's, from which a seed is drawn; or None.
        is_divided: whether a shard was given, or found: else several processes would all take every sample.
        dataset: which a stream's own order is named after.
    """

    sampler: Any
    batches: bool
    generator: Any
    is_divided: bool = True
    dataset: Any = None

    @property
    def is_stream(self) -> bool:
        """Whether the dataset has its own order."""
        return self.sampler is None

    @property
    def name(self) -> str:
        """What a state calls it."""
        if self.is_stream:
            return stream_name(self.dataset)[:NAME_LENGTH]
        ours = seekable(self.sampler)
        return (type(self.sampler).__name__ if ours is None else ours.name)[:NAME_LENGTH]

    @property
    def length(self) -> int | None:
        """Items in an epoch, where it is known and the order is ours to seek in."""
        ours = seekable(self.sampler)
        unknown = self.is_stream or self.batches or (ours is not None and not ours.fixed_length)
        return None if unknown else length_of(self.sampler)

    def order(self, seed: int, epoch: int) -> Order | BatchOrder | None:
        """The order of an epoch, where it is known beforehand."""
        if isinstance(self.sampler, SeekableBatchSampler):
            return BatchOrder(self.sampler.order(seed, epoch))
        return None if self.batches or self.is_stream else known_order(self.sampler, seed, epoch)

    def sequence(self, order: Order | BatchOrder, cursor: Cursor) -> Order | BatchOrder:  # noqa: ARG002 -- an endless loader's depends on it
        """What the epoch that a cursor stands in is cut from, by the epoch's order."""
        return order

    def beginning(self, epoch: int, present: Cursor | None, span: int) -> int:  # noqa: ARG002 -- as above
        """The position at which an epoch begins.

        Args:
            epoch: which.
            present: where the last epoch that was taken stands, if one was.
            span: how many items all ranks take in a step.
        """
        return 0

    def requested_epoch(self) -> int | None:
        """The epoch that was set at the sampler itself since the last one began."""
        ours = seekable(self.sampler)
        return None if ours is None else ours.requested_epoch()

    def set_epoch(self, epoch: int) -> None:
        """Tell a sampler of the user's that counts epochs itself."""
        if seekable(self.sampler) is None and hasattr(self.sampler, "set_epoch"):
            self.sampler.set_epoch(epoch)

    def draw_seed(self, world_size: int) -> int:
        """A seed, for a run that was given none."""
        ours = seekable(self.sampler)
        generator = self.generator if self.generator is not None or ours is None else ours.generator
        if world_size > 1:
            return shared_seed(generator)
        return draw_seed() if generator is None else seed_from(generator)


class Course:
    """The epochs of a loader, one after the other.

    Args:
        source: where their order comes from.
        around: what they share.
        seed: the run's seed; None: drawn when it is needed.
    """

    def __init__(self, source: Source, around: Surroundings, seed: int | None) -> None:
        self.seed = seed
        self._source = source
        self._around = around
        self._next_epoch = 0
        self._resume: Cursor | None = None
        self._before: Cursor | None = None  # where an epoch stood that is not `_last`: of a state, or another process
        self._last: Epoch | None = None
        self._early: Epoch | None = None
        self._fails_early: int | None = None  # an epoch that could not be begun early
        self._beginning = threading.RLock()  # iterators of several threads take different epochs

    def drawn_seed(self) -> int:
        """The run's seed, drawn now if it was not given."""
        if self.seed is None:
            self.seed = self._source.draw_seed(self._around.geometry.shard.world_size)
        return self.seed

    def cursor(self) -> Cursor:
        """Where the loader stands."""
        if self._last is not None and not self._last.ended:
            return self._last.cursor()
        return self._resume or self._start(self._next_epoch)

    def cursor_in(self, epoch: int) -> Cursor:
        """Where the loader stands in an epoch: at its beginning, unless it is the present one."""
        cursor = self.cursor()
        return cursor if cursor.epoch == epoch else self._start(epoch)

    def resume(self, state: dict[str, Any]) -> None:
        """Go on where a state was taken.

        Raises:
            StateError, DatasetChanged: it does not fit; nothing has changed then.
        """
        cursor = Cursor.from_state(state).resumed_by(self._start(0))
        if self.seed is None or cursor.seed is not None:
            self.seed = cursor.seed
        self._next_epoch = cursor.epoch
        self._resume = self._before = cursor
        self._last = None

    def set_epoch(self, epoch: int) -> None:
        """Make ``epoch`` the next one; a position to resume from is kept if it is of this epoch."""
        self._next_epoch = checked_seed(epoch, "epoch")
        if self._early is not None and self._early.number != epoch:
            self.forget_early()  # at once: workers shall not be at what nobody wants when the epoch begins
        self._source.set_epoch(epoch)
        if self._resume is not None and self._resume.epoch != epoch:
            self._resume = None

    def begin(self, recipe: MakesRecipe) -> Epoch:
        """The next epoch, at an iterator's first ``next()``, by a recipe of its seed and order."""
        epoch, before = None, self.position
        if not self._source.is_divided:
            warn_if_repeated(self._source.sampler)
        try:
            with self._beginning:
                before = self.position
                seed = self.drawn_seed()
                if (requested := self._source.requested_epoch()) is not None:
                    self.set_epoch(requested)
                cursor = replace(self._resume or self._start(self._next_epoch), seed=seed)
                made = recipe(seed, self._source.order(seed, cursor.epoch))
                epoch = self._begun_early(cursor, made) or Epoch(made, cursor, self._around)
                self._next_epoch, self._resume, self._early = cursor.epoch + 1, None, None
        except BaseException:
            if epoch is not None:  # Ctrl-C, as the lock was given back
                self.position = before
                epoch.close()
            raise
        return epoch

    def touch(self, epoch: Epoch, recipe: MakesRecipe) -> None:
        """Before each ``next()``: speak of this epoch from now on, and have the next one begun as it nears its end."""
        self._last = epoch
        if (
            epoch.is_planned
            and not epoch.ended
            and self._around.workers.prefetches_epochs
            and self._beginning.acquire(blocking=False)  # another thread may be taking the next epoch just now
        ):
            try:
                self._begin_early(epoch, recipe)
            finally:
                self._beginning.release()

    @property
    def position(self) -> tuple[int, Cursor | None, Cursor | None]:
        """The next epoch, where in it to go on, and where the present one stands: what a copy takes over."""
        return self._next_epoch, self._resume, self._present()

    @position.setter
    def position(self, position: tuple[int, Cursor | None, Cursor | None]) -> None:
        self._next_epoch, self._resume, self._before = position

    def close(self) -> None:
        """Give up what is under way."""
        self.forget_early()
        if self._last is not None:
            self._last.close()

    def forget_early(self) -> None:
        """Give up the next epoch, if it was begun."""
        with self._beginning:
            early, self._early = self._early, None
            if early is not None:
                early.close()

    def _present(self) -> Cursor | None:
        return self._before if self._last is None else self._last.cursor()

    def _start(self, epoch: int) -> Cursor:
        geometry = self._around.geometry
        begin = self._source.beginning(epoch, self._present(), geometry.span)
        return Cursor(
            seed=self.seed,
            epoch=epoch,
            position=begin,
            origin=begin,
            batch_size=geometry.batch_size,
            world_size=geometry.shard.world_size,
            length=self._source.length,
            sampler=self._source.name,
        )

    def _begin_early(self, epoch: Epoch, recipe: MakesRecipe) -> None:
        """Have one batch more of the next epoch made, for each that the present one does not take any more.

        Only by a sampler of ours: an order of the user's may change until its epoch begins. What fails is no matter of
        the present epoch: it is raised when the next one begins.
        """
        number = epoch.number + 1
        if number == self._fails_early:
            return
        if self._early is None and (
            number != self._next_epoch or self._resume is not None or seekable(self._source.sampler) is None
        ):
            return
        try:
            if self._early is None:
                order = self._source.order(self.drawn_seed(), number)
                made = recipe(self.drawn_seed(), order)
                self._early = Epoch(made, self._start(number), self._around, like=epoch)  # looked at when it begins
            self._early.prefetch(1)
        except Exception:  # noqa: BLE001 -- raised at its turn
            self._fails_early = number
            self.forget_early()

    def _begun_early(self, cursor: Cursor, recipe: Recipe) -> Epoch | None:
        """The epoch that was begun early, if it is the one asked for, of the dataset as it is."""
        self._fails_early = None
        early = self._early
        if early is None or (early.cursor() == cursor and early.is_current(recipe)):
            return early
        self.forget_early()
        return None
