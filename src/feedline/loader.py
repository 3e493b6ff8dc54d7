"""The loader: checks its arguments, wires the stages, decides nothing else.

Guarantee: building a loader and calling ``iter()`` on it start nothing, draw nothing and read nothing (contract 8).
What it yields depends on dataset, seed, epoch and sampler only (contract 2).
"""

from __future__ import annotations

import threading
import weakref
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from feedline.arguments import (
    Sampling,
    checked_context,
    checked_dataset,
    checked_division,
    checked_flags,
    checked_functions,
    checked_policy,
    checked_rest,
    checked_shard,
    checked_workers,
    warn_of_workers,
)
from feedline.batching import default_collate, default_convert
from feedline.delivery import deliverer
from feedline.engine.arena import Arena
from feedline.engine.task import Recipe
from feedline.epoch import Epoch
from feedline.iterator import EpochIterator
from feedline.order.batches import BatchSampler, unwrapped
from feedline.order.cursor import NAME_LENGTH, Cursor
from feedline.order.plan import EpochPlan, Geometry
from feedline.order.samplers import known_order, seekable
from feedline.order.sequence import SequentialOrder
from feedline.protocols import length_of
from feedline.seeding import checked_seed, draw_seed, seed_from, shared_seed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from feedline.engine.policy import ErrorPolicy
    from feedline.order.shard import Shard

__all__ = ["DataLoader"]

T_co = TypeVar("T_co", covariant=True)

# What is assigned later would be used in part, or not at all.
_FIXED = {"dataset", "batch_size", "sampler", "batch_sampler", "drop_last", "persistent_workers", "shard"}
_FIXED |= {"pin_memory", "pin_memory_device", "device", "on_error"}
_OWN = ("_last", "_iterators", "_beginning", "_deliver", "_arena")  # what a copy in another process makes anew


class DataLoader(Generic[T_co]):
    """A dataset as a stream of batches, epoch after epoch.

    Iterating gives one epoch; the next iteration gives the next one, in another order if shuffled. What comes out is
    the same for equal dataset, seed, epoch and sampler. Batches are NumPy for NumPy samples, torch for torch samples,
    JAX for JAX samples, and belong to the caller (single samples are what the dataset gave).

    Args:
        dataset: anything with ``__getitem__`` and ``__len__``, or an iterable.
        batch_size: samples in a batch; None gives single samples.
        shuffle: whether each epoch has a random order.
        sampler: an iterable of what the dataset is asked for, one epoch at a time, instead of ``shuffle``.
        batch_sampler: an iterable of lists of that, a list a batch.
        num_workers: how many workers make batches; 0: the calling thread.
        collate_fn: makes a batch of a list of samples; None: `default_collate`, or `default_convert` for single
            samples.
        pin_memory: deliver page-locked torch tensors, where there is an accelerator.
        drop_last: leave out a last, shorter batch.
        timeout: seconds after which a batch is given up; 0: never.
        worker_init_fn: called in each worker with its number.
        multiprocessing_context: the start method of worker processes, or a context.
        generator: a ``random.Random``, ``numpy.random.Generator`` or ``torch.Generator`` from which the seed is drawn.
        prefetch_factor: batches made ahead per worker.
        persistent_workers: whether workers stay between epochs.
        pin_memory_device: the kind of accelerator that ``pin_memory`` is for.
        in_order: deliver batches in order, rather than as they are ready.
        seed: the seed of order and augmentation, an integer below 2⁶⁴. None draws one at the first ``next()``, from
            ``generator`` or Python's ``random``; with a shard it is rank 0's, or 0 where ranks cannot agree on one.
        backend: ``"auto"``, ``"serial"``, ``"thread"``, ``"process"`` or ``"ray"``: where workers run.
        batch_transform: a function applied to each batch after collate.
        on_error: ``"raise"``, ``"skip"``, ``"replace"`` or an `ErrorPolicy`: what to do with a sample that fails.
        max_restarts: how many dead workers are replaced.
        shard: None, ``(rank, world_size)``, a `Shard` or ``"auto"``: this process's part of each epoch.
        device: deliver torch tensors, or JAX arrays, on this device.

    Raises:
        ValueError: an argument is out of range, or contradicts another.
        TypeError: an argument is of the wrong type.

    Example:
        >>> loader = DataLoader(range(10), batch_size=4)
        >>> [batch.tolist() for batch in loader]
        [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    """

    def __init__(  # noqa: PLR0913, PLR0917 -- torch's signature, and what goes beyond it
        self,
        dataset: Any,
        batch_size: int | None = 1,
        shuffle: bool | None = None,  # noqa: FBT001 -- torch's signature
        sampler: Iterable[Any] | None = None,
        batch_sampler: Iterable[Any] | None = None,
        num_workers: int | str = 0,
        collate_fn: Callable[[Any], Any] | None = None,
        pin_memory: bool = False,  # noqa: FBT001, FBT002 -- torch's signature
        drop_last: bool = False,  # noqa: FBT001, FBT002 -- torch's signature
        timeout: float = 0,
        worker_init_fn: Callable[[int], None] | None = None,
        multiprocessing_context: Any = None,
        generator: Any = None,
        *,
        prefetch_factor: int | str | None = None,
        persistent_workers: bool | None = None,
        pin_memory_device: str = "",
        in_order: bool = True,
        seed: int | None = None,
        backend: str = "auto",
        batch_transform: Callable[[Any], Any] | None = None,
        on_error: str | ErrorPolicy = "raise",
        max_restarts: int = 8,
        shard: Shard | tuple[int, int] | str | None = None,
        device: Any = None,
    ) -> None:
        self._iterable = checked_dataset(dataset)
        checked_workers(
            num_workers,
            backend,
            timeout=timeout,
            prefetch_factor=prefetch_factor,
            persistent_workers=persistent_workers,
        )
        checked_functions(collate_fn=collate_fn, worker_init_fn=worker_init_fn, batch_transform=batch_transform)
        sampler = Sampling(dataset, batch_size, shuffle, sampler, batch_sampler, drop_last, generator).chosen()
        checked_flags(pin_memory=pin_memory, persistent_workers=persistent_workers, in_order=in_order)
        checked_rest(generator=generator, seed=seed, max_restarts=max_restarts, pin_memory_device=pin_memory_device)
        if num_workers != 0:
            warn_of_workers(num_workers)

        self.dataset = dataset
        self.sampler = sampler
        self.batch_sampler = batch_sampler
        self.batch_size = None if batch_sampler is not None or batch_size is None else int(batch_size)
        self.drop_last = drop_last
        self.shard = checked_shard(shard)
        self._batched = self.batch_size is not None or batch_sampler is not None
        self._batches = False  # whether a user's batch sampler decides what a batch is
        self._source, self._geometry = sampler, Geometry(self.batch_size or 1, drop_last, self.shard)
        if batch_sampler is not None:
            parts = unwrapped(batch_sampler)
            self._batches = parts is None
            self._source, size, drops = (batch_sampler, 1, False) if parts is None else parts
            self._geometry = Geometry(size, drops, self.shard)
        elif self.batch_size is not None and not self._iterable:
            self.batch_sampler = BatchSampler(sampler, self.batch_size, drop_last)
        checked_division(self._source, self.shard)
        self.collate_fn = collate_fn or (default_collate if self._batched else default_convert)
        self.num_workers = num_workers
        self.timeout = timeout
        self.worker_init_fn = worker_init_fn
        self.multiprocessing_context = checked_context(multiprocessing_context, num_workers)
        self.generator = generator
        self.prefetch_factor = 2 if prefetch_factor is None and num_workers != 0 else prefetch_factor
        self.persistent_workers = num_workers != 0 if persistent_workers is None else persistent_workers
        self.pin_memory = pin_memory
        self.pin_memory_device = pin_memory_device
        self.in_order = in_order
        self.backend = backend
        self.batch_transform = batch_transform
        self.on_error = checked_policy(on_error, iterable=self._iterable)
        self.max_restarts = max_restarts
        self.device = device
        self._seed = None if seed is None else checked_seed(seed)
        self._deliver = self._delivery()
        self._arena = Arena()
        self._next_epoch = 0
        self._resume: Cursor | None = None
        self._last: Epoch | None = None
        self._iterators: weakref.WeakSet[EpochIterator] = weakref.WeakSet()
        self._beginning = threading.RLock()
        self._initialised = True

    def __setattr__(self, name: str, value: object) -> None:
        if name in _FIXED and getattr(self, "_initialised", False):
            raise ValueError(f"{name} should not be set after the loader is built; build another loader")
        super().__setattr__(name, value)

    # ------------------------------------------------------------------------------------------------------ iterating

    def __iter__(self) -> Iterator[T_co]:
        """An iterator over one epoch, which it takes at its first ``next()``."""
        iterator = EpochIterator(self._begin, self._touch, self.__len__)
        self._iterators.add(iterator)
        return iterator

    def __len__(self) -> int:
        """How many batches an epoch has on this rank.

        Raises:
            TypeError: the sampler, or the stream, has no length.
        """
        source = self.dataset if self._iterable else self._source
        length = length_of(source)
        if length is None:
            raise TypeError(f"the number of batches is unknown: {type(source).__name__} has no length")
        return len(EpochPlan(0, SequentialOrder(length), self._geometry))

    def plan(self, epoch: int) -> EpochPlan:
        """Which samples make up each batch of an epoch: ``loader.plan(epoch)[step].indices``; nothing is loaded.

        Where no seed was given it is drawn now, with a shard by all ranks together.

        Raises:
            TypeError: the order is known only to a user's sampler, or a stream.
        """
        epoch = checked_seed(epoch, "epoch")
        order = None if self._batches else known_order(self._source, self._drawn_seed(), epoch)
        if order is None:
            kind = type(self.dataset if self._iterable else self._source).__name__
            raise TypeError(f"plan() needs a sampler whose order is known beforehand; {kind} yields it as it goes")
        cursor = self._cursor()
        return EpochPlan(epoch, order, self._geometry, cursor.origin if cursor.epoch == epoch else 0)

    def set_epoch(self, epoch: int) -> None:
        """Make ``epoch`` the next one. Without this call epochs count up by themselves.

        A position that `load_state_dict` set is kept if it is of this epoch.
        """
        self._next_epoch = checked_seed(epoch, "epoch")
        if seekable(self._source) is None and hasattr(self._source, "set_epoch"):
            self._source.set_epoch(epoch)
        if self._resume is not None and self._resume.epoch != epoch:
            self._resume = None

    def close(self) -> None:
        """Stop everything that runs for this loader; iterators that are under way end with an error."""
        for iterator in list(self._iterators):
            iterator.close()
        if self._last is not None:
            self._last.close()
        self._arena.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---------------------------------------------------------------------------------------------------------- state

    @property
    def seed(self) -> int | None:
        """The seed that reproduces this run; None until one is drawn."""
        return self._seed

    def state_dict(self) -> dict[str, Any]:
        """Where the loader stands, as JSON values: what the iterator that last took a ``next()`` has delivered."""
        return self._cursor().to_state()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on, at the next iteration, where ``state`` was taken: same seed, same epoch, the rest of its samples.

        The batch size, the number of ranks and of workers may differ from then.

        Raises:
            StateError: the state is damaged, or of a loader with another kind of sampler; nothing has changed then.
            DatasetChanged: the epoch has another length than the state's; nothing has changed then.
        """
        cursor = Cursor.from_state(state).resumed_by(self._start(0))
        if self._seed is None or cursor.seed is not None:
            self._seed = cursor.seed
        self._next_epoch = cursor.epoch
        self._resume = cursor
        self._last = None

    def _cursor(self) -> Cursor:
        if self._last is not None and not self._last.ended:
            return self._last.cursor()
        return self._resume or self._start(self._next_epoch)

    def _start(self, epoch: int) -> Cursor:
        return Cursor(
            seed=self._seed,
            epoch=epoch,
            position=0,
            origin=0,
            batch_size=self._geometry.batch_size,
            world_size=self.shard.world_size,
            length=self._epoch_length(),
            sampler=self._sampler_name(),
        )

    def _epoch_length(self) -> int | None:
        """Items in an epoch, where it is known and the order is ours to seek in."""
        ours = seekable(self._source)
        unknown = self._iterable or self._batches or (ours is not None and not ours.fixed_length)
        return None if unknown else length_of(self._source)

    def _sampler_name(self) -> str:
        if self._iterable:
            return "IterableDataset"
        ours = seekable(self._source)
        return (type(self._source).__name__ if ours is None else ours.name)[:NAME_LENGTH]

    def _drawn_seed(self) -> int:
        """The run's seed, drawn now if it was not given."""
        if self._seed is None:
            ours = seekable(self._source)
            generator = self.generator if self.generator is not None or ours is None else ours.generator
            if generator is not None:
                self._seed = seed_from(generator)
            else:
                self._seed = draw_seed() if self.shard.world_size == 1 else shared_seed()
        return self._seed

    def _begin(self) -> Epoch:
        """The next epoch, at an iterator's first ``next()``."""
        with self._beginning:  # iterators of several threads take different epochs
            seed = self._drawn_seed()
            ours = seekable(self._source)
            if ours is not None and (requested := ours.requested_epoch()) is not None:
                self.set_epoch(requested)
            cursor = self._resume or self._start(self._next_epoch)
            recipe = Recipe(
                dataset=self.dataset,
                collate_fn=self.collate_fn,
                batched=self._batched,
                batch_transform=self.batch_transform,
                seed=seed,
                policy=self.on_error,
                order=None if self._batches else known_order(self._source, seed, cursor.epoch),
            )
            epoch = Epoch(
                recipe,
                self._arena,
                self._geometry,
                replace(cursor, seed=seed),
                sampler=self._source,
                batches=self._batches,
                deliver=self._deliver,
            )
            self._next_epoch, self._resume = cursor.epoch + 1, None
            return epoch

    def _delivery(self) -> Callable[[Any], Any] | None:
        return deliverer(pin_memory=self.pin_memory, pin_memory_device=self.pin_memory_device, device=self.device)

    def _touch(self, epoch: Epoch) -> None:
        """Speak, in `state_dict`, of this epoch from now on."""
        if self._last is not epoch:
            self._last = epoch

    def __getstate__(self) -> dict[str, Any]:
        """What a copy in another process needs: not what is under way."""
        return self.__dict__ | dict.fromkeys(_OWN)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._iterators = weakref.WeakSet()
        self._beginning = threading.RLock()
        self._arena = Arena()
        self._deliver = self._delivery()

    # ---------------------------------------------------------------------------------------------------- appearance

    def _collate_batch(self, batch: list[Any]) -> Any:
        """The batch that ``collate_fn`` makes of a list of samples; ``()`` of none."""
        return self.collate_fn(batch) if batch else ()

    def _facts(self) -> dict[str, str]:
        """What there is to say about the loader in a line or a table."""
        facts = {"dataset": type(self.dataset).__name__}
        length = length_of(self.dataset)
        if length is not None:
            facts["dataset"] += f" of {length:,} samples"
        facts["batch_size"] = str(self._geometry.batch_size) if self._batched and not self._batches else "None"
        facts["sampler"] = self._sampler_name()
        try:
            facts["batches"] = f"{len(self):,} an epoch"
        except TypeError:
            facts["batches"] = "unknown number"
        facts["seed"] = "drawn at the first batch" if self._seed is None else str(self._seed)
        facts["num_workers"] = str(self.num_workers)
        if self.shard.world_size > 1:
            facts["shard"] = f"rank {self.shard.rank} of {self.shard.world_size}"
        return facts

    def __repr__(self) -> str:
        return f"DataLoader({', '.join(f'{name}={value}' for name, value in self._facts().items())})"

    def _repr_html_(self) -> str:
        from html import escape

        rows = "".join(f"<tr><th>{name}</th><td>{escape(value)}</td></tr>" for name, value in self._facts().items())
        return f"<table><caption>feedline.DataLoader</caption>{rows}</table>"
