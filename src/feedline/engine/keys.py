"""Under which key the code of a batch runs: the seam between making and `feedline.seeding`.

Guarantee (contract 2): before each sample, and before collate, all randomness is keyed to it; global generators are
seeded too where code may draw from them, saved before the batch and put back after it.
"""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from feedline.protocols import uses_global_rng
from feedline.seeding import GlobalGenerators, Scope, open_scope

if TYPE_CHECKING:
    from collections.abc import Iterator

    from feedline.engine.task import Recipe

__all__ = ["Keying", "Keys"]

_BATCH_INDEX = -1  # the index part of a batch's own key; samples have theirs from 0 on


class Keys:
    """The keys of one batch while it is being made."""

    __slots__ = ("_generators", "_scope", "_seeds_batch", "_seeds_samples")

    def __init__(self, scope: Scope, generators: GlobalGenerators | None, keying: Keying) -> None:
        self._scope = scope
        self._generators = generators
        self._seeds_samples = generators is not None and keying.seeds_samples
        self._seeds_batch = generators is not None and keying.seeds_batch

    def sample(self, position: int, index: Any) -> None:
        """Key all randomness to a sample."""
        self._scope.enter(position, index)
        if self._seeds_samples:
            assert self._generators is not None
            self._generators.seed(self._scope.global_seed())

    def batch(self, position: int) -> None:
        """Key all randomness to a batch, by its first position: for collate and ``batch_transform``."""
        self._scope.enter(position, _BATCH_INDEX)
        if self._seeds_batch:
            assert self._generators is not None
            self._generators.seed(self._scope.global_seed())


class Keying:
    """Decides once for a recipe whether its code may draw from global generators; opens the keys of each batch."""

    def __init__(self, recipe: Recipe) -> None:
        self._seed = recipe.seed
        functions = [recipe.collate_fn] + ([recipe.batch_transform] if recipe.batch_transform else [])
        self.seeds_samples = uses_global_rng(recipe.dataset)
        self.seeds_batch = any(_may_draw(function) for function in functions)

    @contextmanager
    def open(self, epoch: int) -> Iterator[Keys]:
        """The keys of a batch of this epoch; leaving restores the global generators."""
        with open_scope(self._seed, epoch) as scope:
            if not (self.seeds_samples or self.seeds_batch):
                yield Keys(scope, None, self)
                return
            with GlobalGenerators() as generators:
                yield Keys(scope, generators, self)


def _may_draw(function: Any) -> bool:
    """Whether a function may draw from a global generator: ours do not, others unless they say so."""
    declared = getattr(function, "uses_global_rng", None)
    if declared is not None:
        return bool(declared)
    inner = function.func if isinstance(function, partial) else function
    return not str(getattr(inner, "__module__", "")).startswith("feedline.")
