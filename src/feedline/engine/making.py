"""Fetch, transform, collate: how a batch of a map-style dataset is made.

Guarantee: each sample is made under its own key (contract 2) and written once, straight into the batch where collate
is ours (contract 5). An exception of the user's code arrives as itself, with a note that says which sample it was
(contract 7). Global generators are left as they were found.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from feedline.batching import BatchWriter, EmptyBatchError
from feedline.datasets import Subset, TensorDataset
from feedline.engine.keys import GivenUp, Keys
from feedline.engine.policy import FailedSample
from feedline.engine.task import Batch, Outcome, Task
from feedline.errors import CollateError, FeedlineError, WorkerError
from feedline.order.batched import BatchOrder
from feedline.protocols import gather_of, getitems_of
from feedline.seeding import Stream, below, bulk_words

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from feedline.engine.task import Allocator, Recipe
    from feedline.order.plan import BatchPlan

__all__ = ["MapMaker", "add_note", "all_failed", "finish", "is_empty", "located", "no_exception"]

_ATTEMPTS = 10  # replacements tried for one sample before its error is raised: that many bad draws mean a bad dataset


def add_note(error: BaseException, text: str) -> None:
    """Say where an error happened, once: an exception object may be raised again by the user's code."""
    if text not in getattr(error, "__notes__", ()):
        error.add_note(text)


def located(error: Exception, plan: BatchPlan, where: str = "the main process") -> Exception:
    """The error, saying where it happened: for which batch, and in which worker.

    A StopIteration becomes a RuntimeError: leaving ``next()`` it would end the epoch as if all had been delivered.
    """
    if isinstance(error, StopIteration):
        stopped = RuntimeError(
            f"the dataset, or a function of the loader, raised StopIteration (epoch {plan.epoch}, step {plan.step}); "
            f"raise IndexError or an error of your own"
        )
        stopped.__cause__ = error
        return stopped
    add_note(error, f"while making epoch {plan.epoch}, step {plan.step}, in {where}")
    return error


def no_exception(error: BaseException, plan: BatchPlan, where: str) -> WorkerError:
    """The error for what is no ``Exception``, SystemExit or KeyboardInterrupt, of the user's code in a worker."""
    failed = WorkerError(
        f"the code of epoch {plan.epoch}, step {plan.step} raised {type(error).__name__} in {where}; raise an "
        f"Exception instead"
    )
    failed.__cause__ = error
    return failed


def finish(recipe: Recipe, arena: Allocator, samples: Any, indices: Sequence[Any] | None = None) -> Any:
    """Collate the samples and transform the batch; an error of collate names the dataset's index where it is known.

    A collate function of the user's that leaves nothing gives an empty batch, which is not transformed.
    """
    try:
        if recipe.writes and len(samples):
            batch = _stacked(samples, len(samples), arena)
        else:
            batch = recipe.collate_fn(samples)
            if recipe.batched and is_empty(batch):
                return batch
    except EmptyBatchError:
        if recipe.writes or not recipe.batched:
            raise
        return None
    except CollateError as error:
        _name_sample(error, indices)
        raise
    return batch if recipe.batch_transform is None else recipe.batch_transform(batch)


def is_empty(batch: Any) -> bool:
    """Whether a batch holds nothing: None, or a container or array of length 0.

    Example:
        >>> is_empty(None), is_empty({}), is_empty(np.zeros((0, 3))), is_empty(np.array(0))
        (True, True, True, False)
    """
    if batch is None:
        return True
    shape = getattr(batch, "shape", None)
    if shape is not None:
        return len(shape) > 0 and shape[0] == 0
    return isinstance(batch, list | tuple | dict) and len(batch) == 0


def _stacked(samples: Iterable[Any], size: int, arena: Allocator) -> Any:
    """What `default_collate` makes of samples, each written at once into memory of the arena."""
    writer = BatchWriter(size, allocate=arena.empty)
    writer.extend(samples)
    return writer.finish() if len(writer) else None


def _name_sample(error: CollateError, indices: Sequence[Any] | None) -> None:
    position = error.position
    if indices is not None and position is not None and position < len(indices):
        add_note(error, f"index {position} of the batch is sample {indices[position]!r} of the dataset")


class MapMaker:
    """Makes the batches of a map-style dataset. Not for use by several threads.

    Args:
        recipe: how batches are made.
        arena: where they are made.
        where: what an error's note says of the place: ``"worker 1"``.
        seeds_globals: as for `Keys`.
    """

    def __init__(
        self, recipe: Recipe, arena: Allocator, *, where: str = "the main process", seeds_globals: bool = True
    ) -> None:
        self._recipe = recipe
        self._arena = arena
        self._where = where
        self._keys = Keys(recipe, seeds_globals=seeds_globals)
        self._tolerant = recipe.policy.action != "raise"
        rows = _rows(recipe.dataset, arena) if recipe.writes else None
        self._gather = rows or (gather_of(recipe.dataset) if recipe.writes else None)
        # Rows of arrays, and no code of the user's: keys would cost a tenth of a batch of images for nothing.
        self._rows = rows if recipe.batch_transform is None else None
        self._getitems = getitems_of(recipe.dataset) if recipe.batched else None

    def make(self, task: Task) -> Outcome:
        """The batch of a task, or what the user's code raised."""
        plan = task.plan
        if self._rows is not None and isinstance(plan.indices, np.ndarray) and not task.fatal:
            try:
                return Outcome(task, Batch(self._rows(plan.indices), len(plan.indices), plan.until))
            except Exception as error:  # noqa: BLE001 -- arrays may be of a kind that raises anything
                if not self._tolerant:
                    return Outcome(task, error=located(error, plan, self._where))
        failures: list[FailedSample] = []
        with self._keys(plan.epoch) as keys:
            try:
                batch = None if task.fatal else self._whole(plan, keys)
                batch = batch or self._one_by_one(task, keys, failures)
            except Exception as error:  # noqa: BLE001 -- the user's code may raise anything; raised again at its turn
                return Outcome(task, error=located(error, plan, self._where), failures=tuple(failures))
        return Outcome(task, batch, failures=tuple(failures))

    def read(self, plan: BatchPlan, put: Callable[[Any], None]) -> None:
        """Give each of a plan's samples to ``put``, made under its own key. Raises what the user's code raises."""
        with self._keys(plan.epoch) as keys:
            for sample in self._plain(plan, keys, []):
                put(sample)

    def complete(self, task: Task, value: Any) -> Outcome:
        """What comes of a task whose samples are collated already."""
        plan, transform = task.plan, self._recipe.batch_transform
        if transform is not None:
            with self._keys(plan.epoch) as keys:
                try:
                    keys.batch(plan.position)
                    value = transform(value)
                except Exception as error:  # noqa: BLE001 -- as above
                    return Outcome(task, error=located(error, plan, self._where))
        return Outcome(task, Batch(value, len(plan.indices), plan.until))

    def give_up(self) -> None:
        """End the batch under way before its next sample, by `GivenUp`. Any thread may say so."""
        self._keys.give_up()

    def _whole(self, plan: BatchPlan, keys: Keys) -> Batch | None:
        """The batch by ``gather`` or ``__getitems__``; None where there is neither, or a bad sample among them."""
        recipe, indices = self._recipe, plan.indices
        if self._gather is not None and isinstance(indices, np.ndarray):
            keys.sample(plan.position, int(indices[0]))
            value = self._tried(self._gather, indices)
            if value is None:
                return None
            if recipe.batch_transform is not None:
                keys.batch(plan.position)
                value = recipe.batch_transform(value)
            return Batch(value, len(indices), plan.until)
        if self._getitems is None:
            return None
        listed = _listed(plan)
        keys.sample(plan.position, listed[0])
        samples = self._tried(self._getitems, list(listed))  # theirs to change: what was asked for stays as it was
        if samples is None:
            return None
        if len(samples) != len(listed):
            raise ValueError(
                f"dataset.__getitems__ must return one sample for each of the {len(listed)} indices, "
                f"got {len(samples)} samples"
            )
        keys.batch(plan.position)
        return Batch(finish(recipe, self._arena, samples, listed), len(listed), plan.until)

    def _tried(self, read: Callable[[Any], Any], indices: Any) -> Any:
        """What reading many samples at once gives; None where it raises and the bad ones must be found one by one."""
        try:
            return read(indices)
        except Exception:
            if self._tolerant:
                return None
            raise

    def _one_by_one(self, task: Task, keys: Keys, failures: list[FailedSample]) -> Batch:
        recipe, plan = self._recipe, task.plan
        made: list[Any] | None = None  # the indices of the samples that could be made; None: all
        if self._tolerant or task.fatal:
            made = []
            samples = self._samples(task, keys, failures, made)
        else:
            samples = self._plain(plan, keys, failures)
        try:
            value = _stacked(samples, len(plan.indices), self._arena) if recipe.writes else list(samples)
        except CollateError as error:
            _name_sample(error, made or _listed(plan))
            raise
        if made is not None and not made:
            raise all_failed(failures)
        if not recipe.batched:
            return Batch(finish(recipe, self._arena, value[0]), 1, plan.until)
        keys.batch(plan.position)
        if not recipe.writes:
            value = finish(recipe, self._arena, value, made or _listed(plan))
        elif recipe.batch_transform is not None:
            value = recipe.batch_transform(value)
        return Batch(value, len(plan.indices), plan.until)

    def _plain(self, plan: BatchPlan, keys: Keys, failures: list[FailedSample]) -> Iterator[Any]:
        """The samples one by one; one that fails ends the batch. This loop is what a batch of small samples costs."""
        keys.check()
        dataset, scope, seeds = self._recipe.dataset, keys.scope, keys.seeds_samples
        entered: tuple[int, Any] = plan.position, None
        try:
            for entered in enumerate(_listed(plan), plan.position):
                scope.entered = entered
                if seeds:
                    keys.seed_globals()
                sample = dataset[entered[1]]
                if keys.given_up:  # the user's code may have forked this process: what would be written is shared
                    raise GivenUp  # noqa: TRY301 -- no Exception
                yield sample
        except StopIteration as error:
            raise _no_end(entered[1]) from error
        except Exception as error:  # the user's code may raise anything
            failures.append(FailedSample(entered[1], plan.epoch, plan.step, error))
            add_note(error, f"in sample index {entered[1]!r}")
            raise

    def _samples(self, task: Task, keys: Keys, failures: list[FailedSample], made: list[Any]) -> Iterator[Any]:
        """The samples one by one, those that fail dealt with by the policy."""
        plan, dataset, policy = task.plan, self._recipe.dataset, self._recipe.policy
        fatal: Sequence[str] = ()
        for position, wanted in enumerate(_listed(plan), plan.position):
            index, attempt = wanted, 0
            if task.fatal:
                fatal = [text for place, text in task.fatal if place == position]
            while True:
                keys.sample(position, index)
                try:
                    if attempt < len(fatal):  # replacements may be fatal too
                        raise WorkerError(fatal[attempt])  # noqa: TRY301 -- it fails as the sample would
                    sample = dataset[index]
                except StopIteration as error:
                    raise _no_end(index) from error
                except Exception as error:  # the user's code may raise anything
                    failures.append(FailedSample(index, plan.epoch, plan.step, error))
                    attempt += 1
                    if policy.action == "raise" or (policy.action == "replace" and attempt > _ATTEMPTS):
                        add_note(error, f"in sample index {index!r}")
                        raise
                    if policy.action == "skip":
                        break
                    index = self._replacement(plan, wanted, position, attempt)
                else:
                    keys.check()
                    made.append(index)
                    yield sample
                    break

    def _replacement(self, plan: BatchPlan, wanted: Any, position: int, attempt: int) -> Any:
        """Another index for ``wanted``, drawn by the sample's position and the number of the attempt."""
        stream = Stream.REPLACEMENT.word(attempt)
        word = int(bulk_words(self._recipe.seed, plan.epoch, stream, position, 1)[0])
        order = self._recipe.order
        if isinstance(order, BatchOrder):
            alike = order.samples.alike(wanted)
            return int(alike[below(word, len(alike))])
        if order is None or order.length is None:
            return _listed(plan)[below(word, len(plan.indices))]
        at = below(word, order.length)
        return int(order.take(at, at + 1)[0])


def _listed(plan: BatchPlan) -> Sequence[Any]:
    """The indices as Python integers, or as the user's sampler gave them."""
    listed: Sequence[Any] = plan.indices.tolist() if isinstance(plan.indices, np.ndarray) else plan.indices
    return listed


def _no_end(index: Any) -> RuntimeError:
    """What a StopIteration of the dataset's becomes: it would end the generator, as if all samples had come."""
    return RuntimeError(f"dataset[{index!r}] raised StopIteration; raise IndexError or an error of your own")


def all_failed(failures: list[FailedSample]) -> FeedlineError:
    """The error of a batch none of whose samples could be made."""
    first = failures[0]
    error = FeedlineError(
        f"all {len(failures)} samples of the batch failed (epoch {first.epoch}, step {first.step}); the first was "
        f"index {first.index!r}: {type(first.error).__name__}: {first.error}"
    )
    error.__cause__ = first.error
    return error


def _rows(dataset: Any, arena: Allocator) -> Callable[[Any], Any] | None:
    """How a batch of an array, or of an array dataset of ours, is taken into memory of the arena; None for all else."""
    if type(dataset) in (np.ndarray, np.memmap) and dataset.dtype != object and dataset.ndim > 0:
        single = TensorDataset(dataset)
        return lambda indices: single.gather_in(indices, arena.empty)[0]
    source = dataset
    while type(source) is Subset:
        source = source.dataset
    return (lambda indices: dataset.gather_in(indices, arena.empty)) if type(source) is TensorDataset else None
