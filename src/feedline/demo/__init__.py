"""The demo: a network learns to tell images apart, from batches that Feedline loads.

`run` wires it: what to learn (`feedline.demo.problem`), the network (`feedline.demo.network`), the loop
(`feedline.demo.training`) and what is shown (`feedline.demo.screen`). To see how a training loop uses the loader, read
`feedline.demo.training.train`.
"""

from __future__ import annotations

import math
import shlex
from typing import TYPE_CHECKING

from feedline.demo.problem import digits, in_folder
from feedline.demo.screen import Screen
from feedline.demo.training import Settings, epochs_for, train

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["BATCH_SIZE", "run"]

BATCH_SIZE = 32
"""The default: small enough that the digits are learned in a few epochs."""


def run(data: Path | None, *, epochs: int | None, batch_size: int = BATCH_SIZE, seed: int) -> None:
    """Train, show how it goes, and sum up what loading cost.

    Args:
        data: a folder of images (see `feedline.datasets.folders.recognise`); None for the digits of the package.
        epochs: how many; None for as many as end soon, at most 20.
        batch_size: samples in a batch.
        seed: of the split, the weights and the order: the same one gives the same losses.

    Raises:
        FileNotFoundError: there is no such folder.
        FeedlineError: the folder is not recognised, or what it holds is damaged or too little.
        ImportError: rich is missing; or Pillow or OpenCV, where images are to be read.
    """
    screen = Screen()
    problem = digits(seed) if data is None else in_folder(data, seed)
    settings = Settings(epochs or epochs_for(problem), batch_size, seed)
    screen.begin(problem, settings, source=None if data is None else str(data))
    results = []
    with screen.progress(settings.epochs * math.ceil(len(problem.train) / batch_size)) as on_batch:
        for result in train(problem, settings, on_batch):
            screen.epoch(result)
            results.append(result)
    screen.end(results, settings, again=shlex.join(_command(data, epochs, batch_size, seed)))


def _command(data: Path | None, epochs: int | None, batch_size: int, seed: int) -> list[str]:
    """The command of this run, with the seed that it drew."""
    chosen = [] if data is None else ["--data", str(data)]
    chosen += [] if epochs is None else ["--epochs", str(epochs)]
    chosen += [] if batch_size == BATCH_SIZE else ["--batch-size", str(batch_size)]
    return ["feedline", "demo", *chosen, "--seed", str(seed)]
