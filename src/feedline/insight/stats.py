"""What a loader has delivered, counted.

Guarantee: counted when a batch is delivered, in the order of delivery, so that two runs that delivered the same have
the same counts, however far ahead either had worked.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Counters", "Stats"]


@dataclass(frozen=True, slots=True)
class Stats:
    """What a loader has delivered since it was built.

    Attributes:
        batches: batches that the training loop received.
        samples: samples in those batches: replacements count, samples that were skipped do not.
        failed_samples: times that the dataset could not give a sample. Under ``on_error="replace"`` each attempt
            counts; a batch whose error was raised counts its own.
        empty_batches: batches of which ``collate_fn`` left nothing, and that were passed over.
        restarts: worker processes that died, or hung past ``timeout``, and were replaced.
        epochs: epochs whose last batch was delivered; one that was left early is none.

    Example:
        >>> Stats(batches=3, samples=10).samples
        10
    """

    batches: int = 0
    samples: int = 0
    failed_samples: int = 0
    empty_batches: int = 0
    restarts: int = 0
    epochs: int = 0


class Counters:
    """Counts what `Stats` says, as it happens; used by the thread that takes the batches.

    Example:
        >>> counters = Counters()
        >>> counters.delivered(32)
        >>> counters.failed(2)
        >>> counters.snapshot()
        Stats(batches=1, samples=32, failed_samples=2, empty_batches=0, restarts=0, epochs=0)
    """

    __slots__ = ("_batches", "_empty_batches", "_epochs", "_failed_samples", "_restarts", "_samples")

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin at zero again."""
        self._batches = self._samples = self._failed_samples = 0
        self._empty_batches = self._restarts = self._epochs = 0

    def delivered(self, samples: int) -> None:
        """A batch of so many samples went to the training loop."""
        self._batches += 1
        self._samples += samples

    def failed(self, count: int) -> None:
        """The dataset could not give a sample, so many times."""
        self._failed_samples += count

    def passed_over(self) -> None:
        """A batch was empty, and not delivered."""
        self._empty_batches += 1

    def restarted(self) -> None:
        """A worker was replaced."""
        self._restarts += 1

    def epoch_ended(self) -> None:
        """An epoch's last batch was delivered."""
        self._epochs += 1

    def snapshot(self) -> Stats:
        """The counts of now."""
        return Stats(
            batches=self._batches,
            samples=self._samples,
            failed_samples=self._failed_samples,
            empty_batches=self._empty_batches,
            restarts=self._restarts,
            epochs=self._epochs,
        )
