"""Which kind of workers makes the batches, and how many this process can use.

Guarantee: what is delivered does not depend on the choice (contract 2); looking calls no code of the user's but reads
the attributes ``thread_safe`` and ``uses_global_rng``.
"""

from __future__ import annotations

import os
from functools import partial
from typing import Any

from feedline.protocols import is_thread_safe, uses_global_rng

__all__ = ["chosen_backend", "usable_cpus"]


def chosen_backend(backend: str, num_workers: int, dataset: Any, functions: list[Any]) -> str:
    """Where batches are made: ``"serial"``, ``"thread"`` or ``"process"``.

    ``"auto"`` means threads where dataset and functions (collate, batch_transform, worker_init_fn; those that are None
    do not count) say that several threads may run them and that they draw from no global generator; else processes.
    """
    if num_workers == 0 or backend == "serial":
        return "serial"
    if backend != "auto":
        return "process" if backend == "ray" else backend
    init = functions[-1]
    safe = is_thread_safe(dataset) and not uses_global_rng(dataset) and init is None
    return "thread" if safe and all(_is_ours(each) for each in functions[:-1] if each is not None) else "process"


def _is_ours(function: Any) -> bool:
    """Whether threads may run a function that draws from no global generator: ours, and others that say so."""
    if hasattr(function, "thread_safe"):  # a chain of ours says what its members say
        return bool(function.thread_safe) and not getattr(function, "uses_global_rng", True)
    inner = function.func if isinstance(function, partial) else function
    return str(getattr(inner, "__module__", "")).startswith("feedline.")


def usable_cpus() -> int:
    """How many processors this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux only
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1
