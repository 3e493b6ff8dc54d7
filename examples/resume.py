"""Stop a training run in the middle of an epoch and go on in another process, without losing or repeating a sample.

A checkpoint needs more than the weights: it must say which samples of the epoch were seen. ``loader.state_dict()``
says it in a few numbers (seed, epoch, position), which are stored as JSON next to the weights. It speaks of the batches
that the training loop was *given*, so it is right whenever it is taken between two steps.

The second process builds its own loader, with another batch size, and calls ``loader.load_state_dict(state)``. The
order of an epoch depends on the seed and the epoch alone: what is left is cut into the new batches, and every sample of
the epoch is seen exactly once.

Run it: ``python examples/resume.py``
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from feedline import DataLoader, TensorDataset

SAMPLES = 20
EPOCHS = 3
LEARNING_RATE = 0.05


def dataset() -> TensorDataset:
    """Twenty samples of y = 2·x₁ - x₂ + 1, each with its number, so that we can tell which were seen."""
    numbers = np.arange(SAMPLES)
    x = np.stack([numbers % 5, numbers // 5], axis=1) / 2
    return TensorDataset(x, 2 * x[:, 0] - x[:, 1] + 1, numbers)


def save(checkpoint: Path, w: np.ndarray, loader: DataLoader, seen: list[list[int]]) -> None:
    """Write weights (w1, w2, b), the loader's state and, for this demonstration, the samples seen in each epoch."""
    content = {"w": w.tolist(), "loader": loader.state_dict(), "seen": seen}
    unfinished = checkpoint.with_suffix(".unfinished")
    unfinished.write_text(json.dumps(content), encoding="utf-8")
    unfinished.replace(checkpoint)  # at once: whoever is stopped while writing keeps the old checkpoint


def train(checkpoint: Path, batch_size: int, stop_in: tuple[int, int] | None = None) -> list[list[int]]:
    """Train, from the checkpoint on if there is one; the samples seen in each epoch, in their order.

    With ``stop_in=(epoch, steps)`` the run ends in that epoch after so many steps, as if it had been told to make room.
    """
    loader = DataLoader(dataset(), batch_size=batch_size, shuffle=True, seed=1)
    w, first_epoch = np.zeros(3), 0
    seen: list[list[int]] = [[] for _ in range(EPOCHS)]
    if checkpoint.exists():
        content = json.loads(checkpoint.read_text(encoding="utf-8"))
        loader.load_state_dict(content["loader"])
        w, first_epoch, seen = np.array(content["w"]), content["loader"]["epoch"], content["seen"]
    for epoch in range(first_epoch, EPOCHS):
        for step, (x, y, numbers) in enumerate(loader, start=1):
            error = x @ w[:2] + w[2] - y
            w -= LEARNING_RATE * 2 / len(y) * np.append(x.T @ error, error.sum())
            seen[epoch] += numbers.tolist()
            if (epoch, step) == stop_in:
                save(checkpoint, w, loader, seen)
                return seen
    save(checkpoint, w, loader, seen)
    return seen


def main() -> None:
    """Train in one process, go on in another, and compare with a run that was never stopped."""
    if len(sys.argv) > 1:  # the second process
        train(Path(sys.argv[1]), batch_size=3)
        return
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "checkpoint.json"
        before = train(checkpoint, batch_size=4, stop_in=(1, 3))
        print("the loader's state:", json.loads(checkpoint.read_text(encoding="utf-8"))["loader"])
        subprocess.run([sys.executable, __file__, str(checkpoint)], check=True)  # noqa: S603 -- this very file
        both = json.loads(checkpoint.read_text(encoding="utf-8"))["seen"]
        unstopped = train(Path(folder) / "other.json", batch_size=4)
    print("\nepoch   seen before   seen after   different samples   order as if never stopped")
    for epoch, (first, whole, expected) in enumerate(zip(before, both, unstopped, strict=True)):
        after = len(whole) - len(first)
        print(f"{epoch:5} {len(first):13} {after:12} {len(set(whole)):12} of {SAMPLES} {whole == expected!s:>26}")


if __name__ == "__main__":
    main()
