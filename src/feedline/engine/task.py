"""The task: one batch to be made, named by epoch and step, and what came of it.

Guarantee (contract 4): a task is frozen and idempotent. Running it twice, anywhere, gives the same batch to the last
bit (for code that reads no other state), since all randomness is keyed by what the plan says.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from feedline.batching import default_collate

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from feedline.engine.policy import ErrorPolicy, FailedSample
    from feedline.order.batched import BatchOrder
    from feedline.order.plan import BatchPlan, Geometry
    from feedline.order.sequence import Order

# What is made anew for every batch is a named tuple: frozen like a dataclass, at a third of the time.

__all__ = ["Allocator", "Batch", "Maker", "Outcome", "Recipe", "Role", "StreamStart", "Stretch", "Task"]


@dataclass(frozen=True, slots=True)
class Recipe:
    """How the batches of an epoch are made, whoever makes them.

    Attributes:
        dataset: map-style or iterable-style.
        collate_fn: makes a batch of a list of samples; without batching, converts the one sample.
        batched: whether batches are made at all (``batch_size`` or ``batch_sampler`` given).
        batch_transform: applied to each batch, or None.
        seed: the run's seed.
        policy: what happens to a sample that cannot be made.
        order: the epoch's order, or None where only a user's sampler knows it. Replacements are drawn from it.
    """

    dataset: Any
    collate_fn: Callable[[Any], Any]
    batched: bool
    batch_transform: Callable[[Any], Any] | None
    seed: int
    policy: ErrorPolicy
    order: Order | BatchOrder | None = None

    @property
    def writes(self) -> bool:
        """Whether samples are written into the batch as they come, since collate is ours."""
        return self.batched and self.collate_fn is default_collate


@dataclass(frozen=True, slots=True)
class StreamStart:
    """Where the reading of a stream begins, and how it is cut.

    Attributes:
        geometry: how the stream is cut and dealt.
        origin: the global position at which this geometry began.
        position: how many samples were delivered before.
        stage: what is done of the work: all of it, or only one of the two stages that it falls into, reading the items
            (in order) and finishing them (anywhere: mapped functions, collate, ``batch_transform``).
        reader: which of several readers this is; each has every ``readers``-th shard, from number ``reader`` on.
        readers: how many readers there are. More than one only for stage "read" of a stream that has shards.
        pickled: whether items go from stage to stage as bytes, one object each, since workers share no memory.
    """

    geometry: Geometry
    origin: int
    position: int
    stage: Literal["whole", "read", "finish"] = "whole"
    reader: int = 0
    readers: int = 1
    pickled: bool = False


@dataclass(frozen=True, slots=True)
class Role:
    """What a worker does for one epoch: makes batches by a recipe, of a stream from its start on.

    Attributes:
        recipe: how batches are made. Its ``order`` is of the epoch; all else is the same from epoch to epoch.
        epoch: the epoch.
        stream: where a stream begins; None for a map-style dataset.
    """

    recipe: Recipe
    epoch: int
    stream: StreamStart | None = None


class Stretch(NamedTuple):
    """What a reader of a stream is to read.

    Attributes:
        start: after how many items it begins.
        size: how many items to read.
        failed: the indices of samples that failed since ``start`` and were told of: a new reader passes over them.
    """

    start: int
    size: int
    failed: tuple[Any, ...] = ()


class Task(NamedTuple):
    """One batch to be made.

    Attributes:
        plan: which.
        attempt: how many workers have died, or hung, over it.
        fatal: the positions of samples that are known to kill their worker, each with what happened; they are not read
            again, but count as failed.
        items: for a stage of a stream: the `Stretch` to be read, or the items to be finished, one for each of the
            plan's indices, which are then positions in the stream.
    """

    plan: BatchPlan
    attempt: int = 0
    fatal: tuple[tuple[int, str], ...] = ()
    items: Any = None


class Batch(NamedTuple):
    """A batch that was made.

    Attributes:
        value: what the training loop gets.
        samples: how many samples were read for it, those that failed and were skipped among them.
        until: the global position up to which the epoch is done with it.
        nbytes: the memory of its arrays, where the executor knows it.
    """

    value: Any
    samples: int
    until: int
    nbytes: int = 0


class Outcome(NamedTuple):
    """What came of a task: a batch, an error of the user's code, or neither: the stream had ended.

    Attributes:
        task: what was to be done.
        batch: the batch, if one was made.
        error: what the user's code raised, if it did.
        failures: the samples that could not be made, whether or not a batch came of the others.

    What comes of a `Stretch` has both where it is an error: the batch is empty and says where the reader stands.
    """

    task: Task
    batch: Batch | None = None
    error: Exception | None = None
    failures: tuple[FailedSample, ...] = ()


class Allocator(Protocol):
    """Memory for a batch: an `Arena`, or a slot in shared memory."""

    def empty(self, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        """A new array, uninitialised, C-contiguous."""


class Maker(Protocol):
    """Makes batches by a recipe, in whatever process or thread it lives."""

    def make(self, task: Task) -> Outcome:
        """What comes of a task. Of the user's code only what is no ``Exception`` (Ctrl-C) is raised."""
