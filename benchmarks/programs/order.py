"""What choosing samples at random costs: a script as users have it, run by `benchmarks/order.py`.

Arguments (JSON): measure ("times", "memory" or "resume"), library ("feedline", "torch" or "torchdata"), samples,
batch_size, and what that measure takes. The library is imported before anything is measured, and nothing else has run.
A sample is its index, and a batch what the dataset was asked for, so that reading costs nothing. Prints its answer as
JSON, in seconds and bytes.
"""

from __future__ import annotations

import gc
import json
import sys
import time
import tracemalloc
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_AT_ONCE = 1 << 20  # indices of a long take


class Numbers:
    """The numbers from 0, any of them at once."""

    thread_safe = True
    uses_global_rng = False

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> int:
        return index

    def __getitems__(self, indices: Any) -> Any:
        return indices


def loader_of(library: str, samples: int, batch_size: int) -> Any:
    """A shuffling loader without workers."""
    if library == "feedline":
        from feedline import DataLoader

        return DataLoader(Numbers(samples), batch_size=batch_size, shuffle=True, seed=0)
    if library == "torchdata":
        from torchdata.stateful_dataloader import StatefulDataLoader

        return StatefulDataLoader(Numbers(samples), batch_size=batch_size, shuffle=True)
    import torch.utils.data

    return torch.utils.data.DataLoader(Numbers(samples), batch_size=batch_size, shuffle=True)


def sampler_of(library: str, samples: int) -> Any:
    """Each library's own RandomSampler."""
    if library == "feedline":
        from feedline import RandomSampler

        return RandomSampler(range(samples))
    import torch.utils.data

    return torch.utils.data.RandomSampler(range(samples))


def timed(action: Callable[[], Any]) -> tuple[float, Any]:
    """How long it takes, and what it gives; garbage is collected before and not during."""
    gc.collect()
    gc.disable()
    begin = time.perf_counter()
    value = action()
    seconds = time.perf_counter() - begin
    gc.enable()
    return seconds, value


def times(library: str, *, samples: int, batch_size: int, prefix: int) -> dict[str, float]:
    """To the first batch of the loader and the first index of the sampler; per index over a prefix of the epoch."""
    batch_s, batch = timed(lambda: next(iter(loader_of(library, samples, batch_size))))
    check_first(np.asarray(batch), samples, batch_size)
    index_s, index = timed(lambda: next(iter(sampler_of(library, samples))))
    check_first(np.array([index]), samples, 1)
    batches_s, count = timed(lambda: counted(batches_of(library, samples, batch_size), prefix))
    answer = {"first index": index_s, "first batch": batch_s, "an index": batches_s / count}
    if library == "feedline":
        answer["long takes"] = timed(lambda: long_takes(samples, prefix))[0] / prefix
    return answer


def batches_of(library: str, samples: int, batch_size: int) -> Iterable[Any]:
    """The batches of indices that a loader takes: of its plan, or of its batch sampler."""
    loader = loader_of(library, samples, batch_size)
    return (batch.indices for batch in loader.plan(0)) if library == "feedline" else loader.batch_sampler


def check_first(indices: Any, samples: int, count: int) -> None:
    """Refuse what cannot begin an epoch.

    Raises:
        RuntimeError: these are not ``count`` samples, each once.
    """
    if len(np.unique(indices)) != count or len(indices) != count or indices.min() < 0 or indices.max() >= samples:
        raise RuntimeError(f"an epoch of {samples} must begin with {count} samples, each once: got {indices}")


def counted(batches: Iterable[Any], prefix: int) -> int:
    """How many indices there are in the batches up to the one that reaches ``prefix``."""
    count = 0
    for indices in batches:
        count += len(indices)
        if count >= prefix:
            break
    return count


def long_takes(samples: int, prefix: int) -> None:
    """Take the indices of that prefix many at a time."""
    order = sampler_of("feedline", samples).order(0, 0)
    for start in range(0, prefix, _AT_ONCE):
        order.take(start, min(start + _AT_ONCE, prefix))


def memory(library: str, *, samples: int, batch_size: int, batches: int) -> dict[str, float]:
    """What an epoch's first batches add to the process at its peak; of feedline also what Python and NumPy allocated.

    The batches are taken twice: what is allocated is traced the second time, which takes longer and more memory.
    """
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = _status("VmRSS")
    take_batches(library, samples, batch_size, batches)
    answer: dict[str, float] = {"resident": max(_status("VmHWM") - before, 0)}
    if library == "feedline":  # tensors of torch are not seen
        gc.collect()
        tracemalloc.start()
        take_batches(library, samples, batch_size, batches)
        answer["allocated"] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return answer


def take_batches(library: str, samples: int, batch_size: int, batches: int) -> None:
    """Take an epoch's first batches."""
    for number, _batch in enumerate(loader_of(library, samples, batch_size)):
        if number + 1 == batches:
            break


def _status(name: str) -> int:
    """A size of this process in bytes, as Linux tells it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def resume(library: str, *, samples: int, batch_size: int, step: int, run: int) -> dict[str, float]:
    """From ``load_state_dict`` to the first batch, which must be the one that was due.

    Args:
        library: "feedline" or "torchdata".
        samples: how many the dataset has.
        batch_size: of both loaders.
        step: the batch that is due.
        run: how many batches are taken before the state; where that is fewer than ``step``, which is for feedline
            only, the position in the state is moved on to it: a state holds nothing else that passes with an epoch.
    """
    before = loader_of(library, samples, batch_size)
    batches = iter(before)
    for _ in range(run):
        next(batches)
    state = before.state_dict()
    if run < step:
        state["position"] += (step - run) * batch_size
        due = before.plan(0)[step].indices
    else:
        due = next(batches)
    after = loader_of(library, samples, batch_size)

    def resumed() -> Any:
        after.load_state_dict(state)
        return next(iter(after))

    seconds, batch = timed(resumed)
    check_due(np.asarray(batch), np.asarray(due), step)
    return {"resume": seconds}


def check_due(batch: Any, due: Any, step: int) -> None:
    """Refuse a batch that was not due.

    Raises:
        RuntimeError: it is another one.
    """
    if not np.array_equal(batch, due):
        raise RuntimeError(f"at step {step} the batch of {due} is due, got {batch}")


def main(measure: str, library: str, **arguments: Any) -> None:
    """Measure, and print the answer."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torchdata calls what torch deprecates
        loader_of(library, 1, 1)
        sampler_of("torch" if library == "torchdata" else library, 1)
        answer = {"times": times, "memory": memory, "resume": resume}[measure](library, **arguments)
    print(json.dumps(answer))


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
