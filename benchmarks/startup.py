"""Time to the first batch with two worker processes, and again in the second epoch, for each start method.

Each measurement is a process of its own that runs a script with a small dataset in memory. The first batch: from before
the loader is built to the first batch, starting the forkserver included, importing NumPy, feedline and torch excluded.
Where torch is imported, workers that do not come of a fork of this process import it too: what torch's import took in
the same process is subtracted in "beyond the import". Workers stay for epoch 2, also torch's.
"""

from __future__ import annotations

import multiprocessing
from typing import TYPE_CHECKING

from benchmarks.apart import answer_of
from benchmarks.figures import Figures, Probe, Quantity
from benchmarks.harness import Bar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["REPEATS", "build"]

REPEATS = 5
_METHODS = tuple(
    method for method in ("forkserver", "spawn", "fork") if method in multiprocessing.get_all_start_methods()
)
_QUANTITIES = (
    Quantity("first batch", "ms", 1e3),
    Quantity("import of torch", "ms", 1e3),
    Quantity("beyond the import", "ms", 1e3),
    Quantity("epoch 2", "ms", 1e3, 2),
)
_COLD_S = 0.25
_BEYOND_IMPORT_S = 0.15
_AGAIN_S = 0.005


def build(samples: int = 1_000, methods: Sequence[str] = _METHODS) -> Iterator[Figures]:
    """A case for each start method that this system has."""
    for method in methods:
        bars = [
            Bar("feedline", "torch", least=1.0, quantity="first batch"),
            Bar("feedline", most=_AGAIN_S, quantity="epoch 2"),
        ]
        if method == _METHODS[0]:  # the default
            bars.append(Bar("feedline, NumPy only", most=_COLD_S, quantity="first batch"))
            bars.append(Bar("feedline", most=_BEYOND_IMPORT_S, quantity="beyond the import"))
        yield Figures(
            name="startup",
            label=method,
            quantities=_QUANTITIES,
            probes=(
                Probe("feedline, NumPy only", _probe("feedline", method, samples, with_torch=False)),
                Probe("feedline", _probe("feedline", method, samples, with_torch=True)),
                Probe("torch", _probe("torch", method, samples, with_torch=True)),
            ),
            bars=tuple(bars),
            settings={"samples": samples, "batch_size": 16, "num_workers": 2},
        )


def _probe(library: str, method: str, samples: int, *, with_torch: bool) -> Callable[[int], dict[str, float]]:
    arguments = {"library": library, "method": method, "with_torch": with_torch, "samples": samples}
    return lambda _round: answer_of("startup", **arguments)
