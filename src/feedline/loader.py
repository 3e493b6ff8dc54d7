"""The loader: checks its arguments, wires the stages, decides nothing else.

Guarantee: building a loader and calling ``iter()`` on it start nothing, draw nothing and read nothing (contract 8).
What it yields depends on dataset, seed, epoch and sampler only (contract 2).
"""

from __future__ import annotations

import weakref
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
)
from feedline.batching import default_collate, default_convert
from feedline.course import Course, Source
from feedline.delivery import deliverer
from feedline.engine.arena import Arena
from feedline.engine.task import Recipe
from feedline.epoch import Surroundings
from feedline.insight.digest import Digest
from feedline.insight.stats import Counters
from feedline.iterator import EpochIterator
from feedline.order.batched import SeekableBatchSampler
from feedline.order.batches import BatchSampler, unwrapped
from feedline.order.finding import Place, find
from feedline.order.plan import EpochPlan, Geometry
from feedline.order.sequence import SequentialOrder
from feedline.order.shard import UNSHARDED
from feedline.protocols import length_of
from feedline.seeding import checked_seed
from feedline.workers import WorkerOptions, Workers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from feedline.engine.policy import ErrorPolicy
    from feedline.insight.stats import Stats
    from feedline.order.batched import BatchOrder
    from feedline.order.sequence import Order
    from feedline.order.shard import Shard

__all__ = ["DataLoader"]

T_co = TypeVar("T_co", covariant=True)

# What is assigned later would be used in part, or not at all.
_FIXED = {"dataset", "batch_size", "sampler", "batch_sampler", "drop_last", "persistent_workers", "shard"}
_FIXED |= {"pin_memory", "pin_memory_device", "device", "on_error", "num_workers", "prefetch_factor", "timeout"}
_FIXED |= {"worker_init_fn", "multiprocessing_context", "backend", "in_order", "max_restarts", "generator"}
_FIXED |= {"batches_per_epoch", "reshuffle"}
_OWN = {"_course", "_workers", "_arena", "_iterators", "_digest"}  # what a copy in another process makes anew


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
        in_order: deliver batches in order, rather than as they are ready. A stream's always come in order.
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

        self.dataset = dataset
        self.sampler = sampler
        self.batch_sampler = batch_sampler
        self.batch_size = None if batch_sampler is not None or batch_size is None else int(batch_size)
        self.drop_last = drop_last
        self.shard = checked_shard(shard)
        self._batched = self.batch_size is not None or batch_sampler is not None
        whole = False  # whether a user's batch sampler decides what a batch is
        source, size, drops = sampler, self.batch_size or 1, drop_last
        if batch_sampler is not None:
            parts = unwrapped(batch_sampler)
            whole = parts is None
            source, size, drops = (batch_sampler, 1, False) if parts is None else parts
        elif self.batch_size is not None and not self._iterable:
            self.batch_sampler = BatchSampler(sampler, self.batch_size, drop_last)
        self._geometry = Geometry(size, drops, self.shard)
        self._source = Source(source, whole, generator, is_divided=self.shard is not UNSHARDED, dataset=dataset)
        checked_division(source, self.shard)
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
        self._seed_given = None if seed is None else checked_seed(seed)
        self._counters = Counters()
        self._wire()
        self._initialised = True

    def _wire(self) -> None:
        """Put the stages together; nothing starts. A copy in another process does it again."""
        self._arena = Arena()
        self._digest = Digest()
        options = WorkerOptions(
            backend=self.backend,
            num_workers=self.num_workers,
            prefetch_factor=self.prefetch_factor,
            timeout_s=self.timeout,
            worker_init_fn=self.worker_init_fn,
            context=self.multiprocessing_context,
            max_restarts=self.max_restarts,
            is_persistent=self.persistent_workers,
            in_order=self.in_order,
        )
        self._workers = Workers(options, self._arena, self._counters.restarted)
        around = Surroundings(
            workers=self._workers,
            geometry=self._geometry,
            sampler=self._source.sampler,
            batches=self._source.batches,
            sequence=self._source.sequence,
            deliver=deliverer(pin_memory=self.pin_memory, pin_memory_device=self.pin_memory_device, device=self.device),
            counters=self._counters,
            digest=self._digest,
        )
        self._course = Course(self._source, around, self._seed_given)
        self._iterators: weakref.WeakSet[EpochIterator] = weakref.WeakSet()

    def __setattr__(self, name: str, value: object) -> None:
        if name in _FIXED and getattr(self, "_initialised", False):
            raise ValueError(f"{name} should not be set after the loader is built; build another loader")
        super().__setattr__(name, value)

    # ------------------------------------------------------------------------------------------------------ iterating

    def __iter__(self) -> Iterator[T_co]:
        """An iterator over one epoch, which it takes at its first ``next()``."""
        iterator = EpochIterator(self._course, self._recipe, self.__len__)
        self._iterators.add(iterator)
        return iterator

    def __len__(self) -> int:
        """How many batches an epoch has on this rank.

        Raises:
            TypeError: the sampler, or the stream, has no length.
        """
        source = self.dataset if self._iterable else self._source.sampler
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
        order = self._source.order(self._course.drawn_seed(), epoch)
        if order is None:
            kind = type(self.dataset if self._iterable else self._source.sampler).__name__
            raise TypeError(f"plan() needs a sampler whose order is known beforehand; {kind} yields it as it goes")
        cursor = self._course.cursor_in(epoch)
        return EpochPlan(epoch, self._source.sequence(order, cursor), self._geometry, cursor.origin)

    def where(self, index: int, epoch: int) -> Place | None:
        """The ``(step, rank)`` that first has a sample in an epoch, as `plan` tells it; None where none has (any more).

        Raises:
            TypeError: as `plan`; or ``index`` is no integer.
        """
        return find(index, self.plan(epoch))

    def set_epoch(self, epoch: int) -> None:
        """Make ``epoch`` the next one. Without this call epochs count up by themselves.

        A position that `load_state_dict` set is kept if it is of this epoch.
        """
        self._course.set_epoch(epoch)

    def refresh(self) -> None:
        """Make the next epoch see what was changed in place inside the dataset.

        Worker processes have a copy of the dataset. That attributes were replaced is seen at the beginning of each
        epoch, and so is what was changed in place in arrays of our own array datasets. What is changed in place deeper
        inside a dataset of your own, in an array of 64 KiB or more, is not looked at: this call has all of it sent
        again. With threads, or without workers, the dataset is read where it is.
        """
        self._course.forget_early()
        self._workers.refresh()

    def stats(self) -> Stats:
        """What was delivered so far, and what failed, was passed over, or was begun anew."""
        return self._counters.snapshot()

    def digest(self) -> str:
        """A hash of the (epoch, step, indices) of what was handed out: 32 digits; see `feedline.add_digests`."""
        return str(self._digest)

    def close(self) -> None:
        """Stop everything that runs for this loader; iterators that are under way end with an error.

        Any thread may call it: one that waits for a batch of workers is woken.
        """
        iterators = list(self._iterators)
        for iterator in iterators:
            iterator.refuse()
        self._workers.close()
        for iterator in iterators:
            iterator.close()
        self._course.close()
        self._workers.close()
        self._arena.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---------------------------------------------------------------------------------------------------------- state

    @property
    def seed(self) -> int | None:
        """The seed that reproduces this run; None until one is drawn."""
        return self._course.seed

    def state_dict(self) -> dict[str, Any]:
        """Where the loader stands, as JSON values: what the iterator that last took a ``next()`` has delivered."""
        return self._course.cursor().to_state()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on, at the next iteration, where ``state`` was taken: same seed, same epoch, the rest of its samples.

        The batch size, the number of ranks and of workers may differ from then.

        Raises:
            StateError: the state is damaged, or of a loader with another kind of sampler; nothing has changed then.
            DatasetChanged: the epoch has another length than the state's; nothing has changed then.
        """
        self._course.resume(state)

    def _recipe(self, seed: int, order: Order | BatchOrder | None) -> Recipe:
        """How the batches of an epoch are made."""
        return Recipe(
            dataset=self.dataset,
            collate_fn=self.collate_fn,
            batched=self._batched,
            batch_transform=self.batch_transform,
            seed=seed,
            policy=self.on_error,
            order=order,
        )

    def __getstate__(self) -> dict[str, Any]:
        """What a copy in another process needs: not what is under way."""
        course = self._course
        kept = {name: value for name, value in self.__dict__.items() if name not in _OWN}
        return kept | {"_seed_given": course.seed, "_position": course.position}

    def __setstate__(self, state: dict[str, Any]) -> None:
        position = state.pop("_position")
        self.__dict__.update(state)
        self._wire()
        self._course.position = position

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
        whole = self._source.batches or isinstance(self._source.sampler, SeekableBatchSampler)
        batched = self._batched and not whole
        facts["batch_size"] = str(self._geometry.batch_size) if batched else "None"
        facts["sampler"] = self._source.name
        try:
            facts["batches"] = f"{len(self):,} an epoch"
        except TypeError:
            facts["batches"] = "unknown number"
        facts["seed"] = "drawn at the first batch" if self.seed is None else str(self.seed)
        facts["num_workers"] = str(self.num_workers)
        if self.shard.world_size > 1:
            facts["shard"] = f"rank {self.shard.rank} of {self.shard.world_size}"
        return facts

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value}' for name, value in self._facts().items())})"

    def _repr_html_(self) -> str:
        from html import escape

        rows = "".join(f"<tr><th>{name}</th><td>{escape(value)}</td></tr>" for name, value in self._facts().items())
        return f"<table><caption>feedline.{type(self).__name__}</caption>{rows}</table>"
