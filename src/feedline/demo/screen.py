"""What the demo shows: lines and a progress bar on a terminal, the lines alone elsewhere.

Guarantee: what is written where no terminal is has no control characters, and each line is written whole as soon as
it is known. What comes from outside (names of collections and of folders) cannot change the terminal.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from feedline.extras import require

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from feedline.demo.problem import Problem
    from feedline.demo.training import EpochResult, Settings

__all__ = ["Screen"]


class Screen:
    """The standard output, dressed by rich.

    Raises:
        ImportError: rich is not installed.
    """

    def __init__(self) -> None:
        require("rich", extra="cli", purpose="feedline demo")
        from rich.console import Console

        self._console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)

    def begin(self, problem: Problem, settings: Settings, source: str | None) -> None:
        """Say what is about to be learned, and head the table of epochs."""
        self._line(problem.name if source is None else f"{problem.name}, from {source}", style="bold")
        shape = " x ".join(str(extent) for extent in problem.image_shape)
        self._line(
            f"{len(problem.train):,} images to learn from, {len(problem.validation):,} to check with; "
            f"{shape} pixels, {problem.classes:,} classes"
        )
        self._line(
            f"A network in NumPy, {settings.epochs} epoch{'s' * (settings.epochs > 1)} "
            f"in batches of {settings.batch_size:,}, seed {settings.seed}"
        )
        self._line("")
        self._line("epoch       loss   validation accuracy", style="dim")

    def epoch(self, result: EpochResult) -> None:
        """Add an epoch to the table."""
        self._line(f"{result.number:5}   {result.loss:8.6f}   {result.accuracy:19.1%}")

    @contextmanager
    def progress(self, batches: int) -> Iterator[Callable[[], None]]:
        """A progress bar under the lines, as long as the context lasts; calling what it gives moves it by a batch."""
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

        bar = Progress(
            TextColumn("training"),
            BarColumn(),
            TaskProgressColumn(),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        with bar:
            task = bar.add_task("training", total=batches)
            yield lambda: bar.advance(task)

    def end(self, results: Sequence[EpochResult], settings: Settings, again: str) -> None:
        """Sum up: how well the network does, what loading cost, and the command that runs the same again."""
        last = results[-1]
        samples = sum(result.samples for result in results)
        waiting_s = sum(result.waiting_s for result in results)
        training_s = waiting_s + sum(result.computing_s for result in results)
        self._line("")
        self._line(
            f"{last.correct:,} of {last.checked:,} images are told right: {last.accuracy:.1%}", style="bold green"
        )
        self._line("")
        self._line("What loading cost", style="bold")
        self._row("trained", f"{samples:,} samples in {training_s:.2f} s: {samples / training_s:,.0f} samples/s")
        self._row("waited", f"{waiting_s:.2f} s for data: {waiting_s / training_s:.1%} of that time")
        self._row("loaded", f"{samples / waiting_s:,.0f} samples/s while waiting")
        self._row("seed", f"{settings.seed}: the same losses again by {again}")

    def _row(self, name: str, text: str) -> None:
        self._line(f"  {name:8} {text}")

    def _line(self, text: str, style: str | None = None) -> None:
        # A terminal obeys characters that are not printable; a stream refuses those that its encoding lacks.
        printable = "".join(character if character.isprintable() else "?" for character in text)
        encoding = self._console.encoding
        self._console.print(printable.encode(encoding, "replace").decode(encoding), style=style)
