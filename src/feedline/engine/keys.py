"""Under which key the code of a batch runs: the seam between making and `feedline.seeding`.

Guarantee (contract 2): before each sample, and before collate, all randomness is keyed to it; global generators are
seeded too where code may draw from them, saved before the batch and put back after it.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Self

from feedline.generators import GlobalGenerators
from feedline.protocols import uses_global_rng
from feedline.seeding import Scope

if TYPE_CHECKING:
    from feedline.engine.task import Recipe

__all__ = ["GivenUp", "Keys"]

_BATCH_INDEX = -1  # the index part of a batch's own key; samples have theirs from 0 on


class GivenUp(BaseException):  # no Exception: what catches errors is to let it pass
    """Nobody wants the batch any more: its making ends before the next sample."""


class Keys:
    """The keys of a batch while it is being made, as a context; one object serves all batches of a maker in turn.

    Decides once for a recipe whether its code may draw from global generators.

    Args:
        recipe: how batches are made.
        seeds_globals: whether global generators are seeded at all; not by threads, which would seed over each other.

    Attributes:
        given_up: whether the batch under way shall end: nothing of it is to be written any more.
        scope: what each sample is entered into.
        seeds_samples: whether global generators are seeded for each sample.
    """

    def __init__(self, recipe: Recipe, *, seeds_globals: bool = True) -> None:
        functions = [recipe.collate_fn] + ([recipe.batch_transform] if recipe.batch_transform else [])
        self.seeds_samples = seeds_globals and uses_global_rng(recipe.dataset)
        self._seeds_batch = seeds_globals and any(_may_draw(function) for function in functions)
        self._generators = GlobalGenerators() if self.seeds_samples or self._seeds_batch else None
        self._seed = recipe.seed
        self.scope = Scope()
        self.given_up = False

    def give_up(self) -> None:
        """End the batch under way before its next sample, by `GivenUp`, and all later ones. Any thread may say so."""
        self.given_up = True

    def __call__(self, epoch: int) -> Self:
        """These keys for a batch of an epoch; to be entered."""
        self.scope.begin(self._seed, epoch)
        return self

    def __enter__(self) -> Self:
        self.scope.__enter__()
        if self._generators is not None:
            self._generators.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._generators is not None:
            self._generators.__exit__(*exception)
        self.scope.__exit__(*exception)

    def check(self) -> None:
        """End the batch here if it was given up."""
        if self.given_up:
            raise GivenUp

    def sample(self, position: int, index: Any) -> None:
        """Key all randomness to a sample."""
        self.check()
        self.scope.enter(position, index)
        if self.seeds_samples:
            self.seed_globals()

    def batch(self, position: int) -> None:
        """Key all randomness to a batch, by its first position: for collate and ``batch_transform``."""
        self.check()
        self.scope.enter(position, _BATCH_INDEX)
        if self._seeds_batch:
            self.seed_globals()

    def seed_globals(self) -> None:
        """Seed the global generators for what is entered."""
        assert self._generators is not None
        self._generators.seed(self.scope.global_seed())


def _may_draw(function: Any) -> bool:
    """Whether a function may draw from a global generator: ours do not, others unless they say so."""
    declared = getattr(function, "uses_global_rng", None)
    if declared is not None:
        return bool(declared)
    inner = function.func if isinstance(function, partial) else function
    return not str(getattr(inner, "__module__", "")).startswith("feedline.")
