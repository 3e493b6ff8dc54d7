"""Fetch, transform, collate: how a batch of a map-style dataset is made.

Guarantee: each sample is made under its own key (contract 2) and written once, straight into the batch where collate
is ours (contract 5). An exception of the user's code arrives as itself, with a note that says which sample it was
(contract 7). Global generators are left as they were found.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from feedline.batching import BatchWriter, default_collate
from feedline.datasets import TensorDataset
from feedline.engine.keys import Keys
from feedline.engine.policy import FailedSample
from feedline.engine.task import Batch, Outcome
from feedline.errors import CollateError, FeedlineError
from feedline.protocols import gather_of, getitems_of
from feedline.seeding import Stream, below, bulk_words

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from feedline.engine.arena import Arena
    from feedline.engine.task import Recipe, Task
    from feedline.order.plan import BatchPlan

__all__ = ["MapMaker", "add_note", "dress", "located"]

_Layout = list[tuple[tuple[int, ...], Any]]  # of each array of a batch: the shape of a sample, and the dtype
_ATTEMPTS = 10  # replacements tried for one sample before its error is raised: that many bad draws mean a bad dataset


def add_note(error: BaseException, text: str) -> None:
    """Say where an error happened, once: an exception object may be raised again by the user's code."""
    if text not in getattr(error, "__notes__", ()):
        error.add_note(text)


def located(error: Exception, plan: BatchPlan) -> Exception:
    """The error, saying where it happened.

    A StopIteration becomes a RuntimeError: leaving ``next()`` it would end the epoch as if all had been delivered.
    """
    if isinstance(error, StopIteration):
        stopped = RuntimeError(
            f"the dataset, or a function of the loader, raised StopIteration (epoch {plan.epoch}, step {plan.step}); "
            f"raise IndexError or an error of your own"
        )
        stopped.__cause__ = error
        return stopped
    add_note(error, f"while making epoch {plan.epoch}, step {plan.step}, in the main process")
    return error


def dress(recipe: Recipe, samples: Any, indices: Sequence[Any] | None = None, *, arena: Arena | None = None) -> Any:
    """Collate the samples and transform the batch; an error of collate names the dataset's index where it is known."""
    try:
        if arena is not None and recipe.collate_fn is default_collate and len(samples):
            batch = _stacked(samples, len(samples), arena)
        else:
            batch = recipe.collate_fn(samples)
    except CollateError as error:
        _name_sample(error, indices)
        raise
    return batch if recipe.batch_transform is None else recipe.batch_transform(batch)


def _stacked(samples: Iterable[Any], size: int, arena: Arena) -> Any:
    """What `default_collate` makes of samples, each written at once into memory of the arena."""
    writer = BatchWriter(size, allocate=arena.empty)
    for sample in samples:
        writer.add(sample)
    return writer.finish() if len(writer) else None


def _name_sample(error: CollateError, indices: Sequence[Any] | None) -> None:
    position = error.position
    if indices is not None and position is not None and position < len(indices):
        add_note(error, f"index {position} of the batch is sample {indices[position]!r} of the dataset")


class MapMaker:
    """Makes the batches of a map-style dataset."""

    def __init__(self, recipe: Recipe, arena: Arena) -> None:
        self._recipe = recipe
        self._arena = arena
        self._layout: _Layout | None = None
        self._keys = Keys(recipe)
        self._tolerant = recipe.policy.action != "raise"
        self._writes = recipe.batched and recipe.collate_fn is default_collate
        self._gather = _columns(recipe.dataset) if self._writes else None
        self._getitems = getitems_of(recipe.dataset) if recipe.batched else None

    def make(self, task: Task) -> Outcome:
        """The batch of a task, or what the user's code raised."""
        plan = task.plan
        failures: list[FailedSample] = []
        with self._keys(plan.epoch) as keys:
            try:
                batch = self._whole(plan, keys) or self._one_by_one(plan, keys, failures)
            except Exception as error:  # noqa: BLE001 -- the user's code may raise anything; raised again at its turn
                return Outcome(task, error=located(error, plan), failures=tuple(failures))
        return Outcome(task, batch, failures=tuple(failures))

    def _whole(self, plan: BatchPlan, keys: Keys) -> Batch | None:
        """The batch by ``gather`` or ``__getitems__``; None where there is neither, or a bad sample among them."""
        try:
            if self._gather is not None and isinstance(plan.indices, np.ndarray):
                keys.batch(plan.position)
                batch = self._gathered(self._gather, plan.indices)
                transform = self._recipe.batch_transform
                return Batch(batch if transform is None else transform(batch), len(plan.indices), plan.until)
            if self._getitems is None:
                return None
            indices = _listed(plan)
            keys.sample(plan.position, indices[0])
            samples = self._getitems(indices)
        except Exception:
            if self._tolerant:  # one by one, to find the bad one
                return None
            raise
        if len(samples) != len(indices):
            raise ValueError(
                f"dataset.__getitems__ must return one sample for each of the {len(indices)} indices, "
                f"got {len(samples)} samples"
            )
        keys.batch(plan.position)
        return Batch(dress(self._recipe, samples, indices, arena=self._arena), len(indices), plan.until)

    def _gathered(self, gather: Callable[..., Any], indices: NDArray[np.int64]) -> Any:
        """The batch at ``indices``: in memory of the arena, where it is made of plain arrays."""
        if self._layout is None:
            self._layout = _layout(gather(indices[:1]))
        if not self._layout:
            return gather(indices)
        out = tuple([self._arena.empty((len(indices), *shape), dtype) for shape, dtype in self._layout])
        try:
            return gather(indices, out)
        except Exception:  # noqa: BLE001 -- the arrays may have changed, or it takes no ``out``: without, it will say
            self._layout = None
            return gather(indices)

    def _one_by_one(self, plan: BatchPlan, keys: Keys, failures: list[FailedSample]) -> Batch:
        made: list[Any] = []  # the indices of the samples that could be made
        samples = self._samples(plan, keys, failures, made)
        try:
            value = _stacked(samples, len(plan.indices), self._arena) if self._writes else list(samples)
        except CollateError as error:
            _name_sample(error, made)
            raise
        if not made:
            raise _all_failed(failures)
        if self._recipe.batched:
            keys.batch(plan.position)
        if not self._writes:
            value = dress(self._recipe, value if self._recipe.batched else value[0], made)
        elif self._recipe.batch_transform is not None:
            value = self._recipe.batch_transform(value)
        return Batch(value, len(plan.indices), plan.until)

    def _samples(self, plan: BatchPlan, keys: Keys, failures: list[FailedSample], made: list[Any]) -> Iterator[Any]:
        """The samples one by one, those that fail dealt with by the policy."""
        dataset, policy = self._recipe.dataset, self._recipe.policy
        for position, wanted in enumerate(_listed(plan), plan.position):
            index, attempt = wanted, 0
            while True:
                keys.sample(position, index)
                try:
                    sample = dataset[index]
                except StopIteration as error:
                    raise RuntimeError(  # a StopIteration would end this generator
                        f"dataset[{index!r}] raised StopIteration; raise IndexError or an error of your own"
                    ) from error
                except Exception as error:  # the user's code may raise anything
                    failures.append(FailedSample(index, plan.epoch, plan.step, error))
                    attempt += 1
                    if policy.action == "raise" or (policy.action == "replace" and attempt > _ATTEMPTS):
                        add_note(error, f"in sample index {index!r}")
                        raise
                    if policy.action == "skip":
                        break
                    index = self._spare(plan, position, attempt)
                else:
                    made.append(index)
                    yield sample
                    break

    def _spare(self, plan: BatchPlan, position: int, attempt: int) -> Any:
        """Another index, drawn by the sample's position and the number of the attempt."""
        stream = Stream.REPLACEMENT.word(attempt)
        word = int(bulk_words(self._recipe.seed, plan.epoch, stream, position, 1)[0])
        order = self._recipe.order
        if order is None or order.length is None:
            return _listed(plan)[below(word, len(plan.indices))]
        at = below(word, order.length)
        return int(order.take(at, at + 1)[0])


def _layout(batch: Any) -> _Layout:
    """The shape of a sample and the dtype of each array of a batch; empty where it is more than a tuple of arrays."""
    if type(batch) is tuple and all(type(part) is np.ndarray for part in batch):
        return [(part.shape[1:], part.dtype) for part in batch]
    return []


def _listed(plan: BatchPlan) -> Sequence[Any]:
    """The indices as Python integers, or as the user's sampler gave them."""
    listed: Sequence[Any] = plan.indices.tolist() if isinstance(plan.indices, np.ndarray) else plan.indices
    return listed


def _all_failed(failures: list[FailedSample]) -> FeedlineError:
    first = failures[0]
    error = FeedlineError(
        f"all {len(failures)} samples of the batch failed (epoch {first.epoch}, step {first.step}); the first was "
        f"index {first.index!r}: {type(first.error).__name__}: {first.error}"
    )
    error.__cause__ = first.error
    return error


def _columns(dataset: Any) -> Callable[[Any], Any] | None:
    """How a whole batch is taken at once: by the dataset's ``gather``, or by rows of an array of numbers."""
    if type(dataset) in (np.ndarray, np.memmap) and dataset.dtype != object and dataset.ndim > 0:
        rows = TensorDataset(dataset)
        return lambda indices: rows.gather(indices)[0]
    return gather_of(dataset)
