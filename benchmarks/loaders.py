"""Loaders with workers as contenders: started once, kept over all rounds, ended with the case.

Guarantee: a timed epoch finds the workers running and nothing made ahead. Feedline makes the first batches of the next
epoch while one ends, which torch does not; asking for another epoch than the next one discards them, and a worker that
is at one of them has time to end it.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from benchmarks.harness import Contender

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from contextlib import ExitStack

__all__ = ["feedline_contender", "torch_contender"]

_SETTLING_S = 0.1


def feedline_contender(ending: ExitStack, name: str, dataset: Any, **arguments: Any) -> Contender:
    """Feedline's loader, which ``ending`` closes."""
    import feedline

    loader: Any = ending.enter_context(feedline.DataLoader(dataset, seed=0, **arguments))

    def epoch(number: int) -> Iterable[Any]:
        loader.set_epoch(2 * number)
        time.sleep(_SETTLING_S)
        return loader

    return Contender(name, epoch)


def torch_contender(ending: ExitStack, name: str, dataset: Any, **arguments: Any) -> Contender:
    """Torch's loader, which ``ending`` closes."""
    import torch.utils.data

    loader = _Closed(torch.utils.data.DataLoader(dataset, persistent_workers=True, **arguments))
    ending.callback(loader.close)
    return Contender(name, lambda _number: loader)


class _Closed:
    """A loader that can be let go: torch ends its workers when their iterator is collected."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def __iter__(self) -> Iterator[Any]:
        return iter(self._loader)

    def close(self) -> None:
        self._loader = None
