"""How long the first batch of an epoch takes: a script as users have it, run by `benchmarks/startup.py`.

Arguments (JSON): library ("feedline" or "torch"), method (the start method), with_torch (whether torch is imported),
samples. Prints, as JSON and in seconds, what importing torch took, and the time from before the loader is built to the
first batch of epoch 1, and from ``iter()`` to the first batch of epoch 2.
"""

from __future__ import annotations

import json
import sys
import time
from multiprocessing import active_children
from typing import Any

import numpy as np


class Rows:
    """A small dataset in memory, defined in the script, as most are."""

    def __init__(self, rows: Any) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Any:
        return self.rows[index]


def main(library: str, method: str, *, with_torch: bool, samples: int) -> None:
    """Measure, and print the answer."""
    answer: dict[str, float] = {}
    if with_torch:
        begin = time.perf_counter()
        import torch

        answer["import of torch"] = time.perf_counter() - begin
    if library == "torch":
        from torch.utils.data import DataLoader
    else:
        from feedline import DataLoader
    dataset = Rows(np.random.default_rng(0).random((samples, 16), dtype=np.float32))
    own: dict[str, Any] = {"backend": "process", "seed": 0} if library == "feedline" else {"persistent_workers": True}

    begin = time.perf_counter()
    loader = DataLoader(dataset, batch_size=16, num_workers=2, multiprocessing_context=method, **own)
    epoch = iter(loader)
    batch = next(epoch)
    answer["first batch"] = time.perf_counter() - begin
    if type(batch) is not (torch.Tensor if library == "torch" else np.ndarray) or len(active_children()) != 2:
        raise RuntimeError(f"two processes must make the batches, got {active_children()} and a {type(batch)}")
    if with_torch:
        answer["beyond the import"] = answer["first batch"] - answer["import of torch"]
    if (seen := len(batch) + sum(map(len, epoch))) != samples:
        raise RuntimeError(f"an epoch must deliver every sample: got {seen} of {samples}")
    begin = time.perf_counter()
    batch = next(iter(loader))
    answer["epoch 2"] = time.perf_counter() - begin
    print(json.dumps(answer))


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
