"""The second stage of a stream: mapped functions, collate and ``batch_transform``.

Guarantee: what comes of a batch is a function of its items and their positions alone; any worker may make it, any
number of times, before or after its neighbours. Each sample is made under a key of its own, distinct from the one that
its item was read under. A sample that fails says which it was; under "skip" the batch is shorter.
"""

from __future__ import annotations

import pickle
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from feedline.datasets.mapped import taken_apart
from feedline.engine.keys import Keys
from feedline.engine.making import add_note, all_failed, finish, located
from feedline.engine.policy import FailedSample
from feedline.engine.streams.reading import FINISHING
from feedline.engine.task import Batch, Outcome
from feedline.errors import WorkerError

if TYPE_CHECKING:
    from feedline.datasets.mapped import MapIterableDataset
    from feedline.engine.task import Allocator, Role, Task
    from feedline.order.plan import BatchPlan

__all__ = ["FinishMaker"]


class _Maps:
    """The functions of a stream, as `Keys` looks at a dataset: do they draw from global generators?"""

    def __init__(self, maps: tuple[MapIterableDataset, ...]) -> None:
        self.uses_global_rng = any(getattr(step.fn, "uses_global_rng", True) for step in maps)


class FinishMaker:
    """Finishes batches of items: the maker of stage "finish".

    A task's ``items`` are the batch's items, in order; its plan's ``position`` is the stream position of the first of
    them.

    Args:
        role: how batches are made.
        arena: where they are made.
        where: what an error's note says of the place.
        seeds_globals: as for `Keys`.
        pickled: whether items are bytes, each to be unpickled by itself.
    """

    def __init__(
        self, role: Role, arena: Allocator, *, where: str, seeds_globals: bool = True, pickled: bool = False
    ) -> None:
        self._recipe = recipe = role.recipe
        self._arena = arena
        self._where = where
        self._pickled = pickled
        _, self._maps = taken_apart(recipe.dataset)
        self._keys = Keys(replace(recipe, dataset=_Maps(self._maps)), seeds_globals=seeds_globals)

    def make(self, task: Task) -> Outcome:
        """The batch of a task's items, or what the user's code raised."""
        plan = task.plan
        failures: list[FailedSample] = []
        with self._keys(plan.epoch) as keys:
            try:
                value = self._value(task, keys, failures)
            except Exception as error:  # noqa: BLE001 -- the user's code may raise anything; raised again at its turn
                return Outcome(task, error=located(error, plan, self._where), failures=tuple(failures))
        return Outcome(task, Batch(value, len(task.items), plan.until), failures=tuple(failures))

    def give_up(self) -> None:
        """End the batch under way before its next sample. Any thread may say so."""
        self._keys.give_up()

    def _value(self, task: Task, keys: Keys, failures: list[FailedSample]) -> Any:
        recipe, start = self._recipe, task.plan.position
        samples, positions = task.items, range(start, start + len(task.items))
        if self._maps or self._pickled or task.fatal or not recipe.batched:
            samples, positions = self._samples(task, keys, failures)
        if not samples:
            raise all_failed(failures)
        if not recipe.batched:  # what is drawn now goes on under the key of the one sample
            return finish(recipe, self._arena, samples[0])
        keys.batch(start)
        return finish(recipe, self._arena, samples, positions)

    def _samples(self, task: Task, keys: Keys, failures: list[FailedSample]) -> tuple[list[Any], Any]:
        """The samples that could be made, and their positions."""
        plan, fatal = task.plan, dict(task.fatal)
        samples, positions = [], []
        for position, item in enumerate(task.items, plan.position):
            keys.sample(position, FINISHING)
            try:
                sample = self._sample(item, fatal.get(position))
            except Exception as error:  # the user's code may raise anything
                add_note(error, f"in sample {position} of the stream")
                failures.append(_failed(error, position, plan))
                if self._recipe.policy.action != "skip":
                    raise
            else:
                samples.append(sample)
                positions.append(position)
        return samples, positions

    def _sample(self, item: Any, fatal: str | None) -> Any:
        if fatal is not None:
            raise WorkerError(fatal)
        sample = pickle.loads(item) if self._pickled else item  # noqa: S301 -- a process of ours has written it
        for step in self._maps:
            sample = step.applied(sample)
        return sample


def _failed(error: Exception, position: int, plan: BatchPlan) -> FailedSample:
    return FailedSample(position, plan.epoch, plan.step, error)
