"""The task: one batch to be made, named by epoch and step, and what came of it.

Guarantee (contract 4): a task is frozen and idempotent. Running it twice, anywhere, gives the same batch to the last
bit (for code that reads no other state), since all randomness is keyed by what the plan says.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from feedline.batching import default_collate

if TYPE_CHECKING:
    from collections.abc import Callable

    from feedline.engine.policy import ErrorPolicy, FailedSample
    from feedline.order.plan import BatchPlan
    from feedline.order.sequence import Order

# What is made anew for every batch is a named tuple: frozen like a dataclass, at a third of the time.

__all__ = ["Batch", "Maker", "Outcome", "Recipe", "Task"]


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
    order: Order | None = None

    @property
    def writes(self) -> bool:
        """Whether samples are written into the batch as they come, since collate is ours."""
        return self.batched and self.collate_fn is default_collate


class Task(NamedTuple):
    """One batch to be made."""

    plan: BatchPlan


class Batch(NamedTuple):
    """A batch that was made.

    Attributes:
        value: what the training loop gets.
        samples: how many samples were read for it, those that failed and were skipped among them.
        until: the global position up to which the epoch is done with it.
    """

    value: Any
    samples: int
    until: int


class Outcome(NamedTuple):
    """What came of a task: a batch, an error of the user's code, or neither: the stream had ended.

    Attributes:
        task: what was to be done.
        batch: the batch, if one was made.
        error: what the user's code raised, if it did.
        failures: the samples that could not be made, whether or not a batch came of the others.
    """

    task: Task
    batch: Batch | None = None
    error: Exception | None = None
    failures: tuple[FailedSample, ...] = ()


class Maker(Protocol):
    """Makes batches by a recipe, in whatever process or thread it lives."""

    def make(self, task: Task) -> Outcome:
        """What comes of a task. Of the user's code only what is no ``Exception`` (Ctrl-C) is raised."""
