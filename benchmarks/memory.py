"""What 2 million path strings cost in memory with four worker processes: a PackedList, beside torch with a list.

Each measurement is a process of its own that runs one shuffled epoch; as the last batch arrives, the proportional set
sizes (PSS) of it and all that come of it are summed up, from ``/proc``. "For the strings" is that sum less the sum of
the same loader with a handful of strings; over the bytes of the PackedList it tells how many times they are held. torch
has a Python list: forked workers share it until they count references in it, which copies its pages.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.apart import answer_of
from benchmarks.figures import Figures, Probe, Quantity
from benchmarks.harness import Bar
from benchmarks.programs.memory import paths

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["REPEATS", "build"]

REPEATS = 5
_FEW = 8  # strings of a loader that holds next to none; one a worker at least, so that all of them work
_MOST = 1.2


def build(samples: int = 2_000_000, workers: int = 4, batch_size: int = 1_000) -> Iterator[Figures]:
    """The case; needs Linux."""
    from feedline import PackedList

    nbytes = PackedList(paths(samples)).nbytes

    def probe(library: str) -> Callable[[int], dict[str, float]]:
        def take(_round: int) -> dict[str, float]:
            full = answer_of("memory", library=library, samples=samples, workers=workers, batch_size=batch_size)
            few = answer_of("memory", library=library, samples=_FEW, workers=workers, batch_size=1)
            more = full["all processes"] - few["all processes"]
            return {**full, "for the strings": more, "times held": more / nbytes}

        return take

    yield Figures(
        name="memory",
        quantities=(
            Quantity("processes", "", 1, 0),
            Quantity("all processes", "MB", 1e-6, 0),
            Quantity("for the strings", "MB", 1e-6, 0),
            Quantity("times held", "", 1.0, 2),
        ),
        probes=(Probe("feedline PackedList", probe("feedline")), Probe("torch list", probe("torch"))),
        bars=(
            Bar("feedline PackedList", most=_MOST, quantity="times held"),
            Bar("feedline PackedList", "torch list", quantity="for the strings"),
        ),
        settings={"samples": samples, "batch_size": batch_size, "num_workers": workers, "list_nbytes": nbytes},
        warm_ups=0,
    )
