"""Where a loader's batches are made: in the calling thread, by threads, or by processes.

Guarantee: nothing starts before the first batch is asked for (contract 8); what is delivered does not depend on the
choice (contract 2). Workers stay until the loader is closed or collected, or end with each epoch.
"""

from __future__ import annotations

import logging
import math
import multiprocessing
import os
import warnings
import weakref
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from feedline.engine.choice import chosen_backend, usable_cpus
from feedline.engine.executor import SerialExecutor
from feedline.engine.making import MapMaker
from feedline.engine.processes.pool import ProcessPool
from feedline.engine.streams.executor import StreamExecutor
from feedline.engine.streams.making import stream_maker
from feedline.engine.threads.pool import ThreadPool
from feedline.engine.worker import get_worker_info

if TYPE_CHECKING:
    from collections.abc import Callable

    from feedline.engine.arena import Arena
    from feedline.engine.executor import Executor, Pool
    from feedline.engine.task import Recipe, Role

__all__ = ["WorkerOptions", "Workers"]

_SHARE_OF_MEMORY = 4  # batches on their way take at most a quarter of what this process may have
_PREFETCH_FACTOR = 2


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """What a loader was told of its workers.

    Attributes:
        backend: as the loader's argument; ``num_workers``, ``prefetch_factor``, ``timeout`` and so on, too.
    """

    backend: str
    num_workers: int | str
    prefetch_factor: int | str | None
    timeout_s: float
    worker_init_fn: Callable[[int], None] | None
    context: Any
    max_restarts: int
    is_persistent: bool
    in_order: bool


class _Serial:
    """The calling thread."""

    num_workers = 0

    def __init__(self, arena: Arena) -> None:
        self._arena = arena

    def open(self, role: Role) -> Executor:
        """An executor that makes each batch when it is collected."""
        if role.stream is None:
            return SerialExecutor(MapMaker(role.recipe, self._arena))
        return SerialExecutor(stream_maker(role, self._arena))

    def close(self) -> None:
        """There is nothing to stop."""


class Workers:
    """The workers of a loader, chosen and started at the first epoch.

    Args:
        options: what the loader was told.
        arena: the memory of batches that are made in this process.
        restarted: called for each worker that was replaced.
    """

    def __init__(self, options: WorkerOptions, arena: Arena, restarted: Callable[[], None]) -> None:
        self.options = options
        self._arena = arena
        self._restarted = restarted
        self._pool: Pool | None = None
        self._finalizer: Any = None
        self._max_nbytes: int | None = None
        self._epochs = 0  # that are open

    @property
    def credits(self) -> int:
        """How many batches may be on their way."""
        return 1 if self._pool is None else self._pool.num_workers * self._ahead

    @property
    def max_nbytes(self) -> int | None:
        """How much memory they may take."""
        if self._max_nbytes is None:
            self._max_nbytes = _memory_limit() // _SHARE_OF_MEMORY
        return self._max_nbytes

    @property
    def prefetches(self) -> bool:
        """Whether batches are made before they are asked for."""
        return self._pool is not None

    @property
    def prefetches_epochs(self) -> bool:
        """Whether the next epoch may be begun before it is asked for: by processes that stay."""
        return self.options.is_persistent and hasattr(self._pool, "is_current")

    @property
    def _timeout_s(self) -> float:
        """The deadline of a batch; 0: none, as the infinite one."""
        return 0.0 if math.isinf(self.options.timeout_s) else self.options.timeout_s

    @property
    def _ahead(self) -> int:
        factor = self.options.prefetch_factor
        return factor if isinstance(factor, int) else _PREFETCH_FACTOR

    def open(self, role: Role, like: Any = None) -> Executor:
        """An executor for an epoch, of the dataset as it is now, or as another executor has it.

        Raises:
            CannotShip: a part of dataset or functions cannot be sent to a worker process.
        """
        self._epochs += 1  # first: an epoch that the collector ends meanwhile shall not close the pool
        try:
            return self._opened(self._suited(role.recipe), role, like)
        except BaseException:
            self.end_epoch()
            raise

    def _suited(self, recipe: Recipe) -> Pool | None:
        """The pool for a recipe; None: the calling thread."""
        kind = self._kind(recipe)
        if self._pool is not None and self._pool.shares_memory != (kind == "thread") and self._epochs == 1:
            self.close()  # other functions were assigned, which others may run
        if self._pool is None:
            pool = self._pool = self._built(kind)
            if pool is not None:
                self._finalizer = weakref.finalize(self, _close, pool)  # the pool knows nothing of this object
        return self._pool

    def _opened(self, pool: Pool | None, role: Role, like: Any) -> Executor:
        if pool is None:
            return _Serial(self._arena).open(role)
        return pool.open(role, like=like) if role.stream is None else StreamExecutor(pool, role)

    def is_current(self, executor: Any, recipe: Recipe) -> bool:
        """Whether dataset and functions are what they were when a process pool's executor was opened."""
        return self._pool is not None and self._pool.is_current(executor, recipe)  # type: ignore[attr-defined]

    def refresh(self) -> None:
        """Send the dataset to worker processes anew for the next epoch."""
        refresh = getattr(self._pool, "refresh", None)  # of a process pool
        if refresh is not None:
            refresh()

    def end_epoch(self) -> None:
        """An epoch is over: workers that are not to stay go, when no other epoch has use for them."""
        self._epochs -= 1
        if not self._epochs and not self.options.is_persistent:
            self.close()

    def close(self) -> None:
        """Stop all workers; the next epoch starts others."""
        self._pool = None
        if self._finalizer is not None:
            self._finalizer()
            self._finalizer = None

    @property
    def _count(self) -> int:
        number = self.options.num_workers
        return usable_cpus() if isinstance(number, str) else number

    def _kind(self, recipe: Recipe) -> str:
        functions = [recipe.collate_fn, recipe.batch_transform, self.options.worker_init_fn]
        return chosen_backend(self.options.backend, self._count, recipe.dataset, functions)

    def _built(self, kind: str) -> Pool | None:
        options, count = self.options, self._count
        if kind == "serial":
            return None
        if options.backend == "ray":
            warnings.warn("backend='ray' is not there yet: processes of this machine make the batches", stacklevel=2)
        if _is_in_worker():
            logging.getLogger("feedline").warning(
                "a loader with num_workers=%s is used within a worker: it makes its batches there itself", count
            )
            return None
        if kind == "thread":
            return ThreadPool(
                count, arena=self._arena, timeout_s=self._timeout_s, worker_init_fn=options.worker_init_fn
            )
        return ProcessPool(
            count,
            options.context,
            init=options.worker_init_fn,
            timeout_s=self._timeout_s,
            max_restarts=options.max_restarts,
            ahead=self._ahead,
            restarted=self._restarted,
        )


def _close(pool: Pool) -> None:
    """Close a pool, also at the interpreter's exit, where a second Ctrl-C shall print nothing more."""
    with suppress(KeyboardInterrupt):
        pool.close()


def _is_in_worker() -> bool:
    """Whether this code runs in a worker, or another process that may have no children."""
    return get_worker_info() is not None or bool(multiprocessing.current_process().daemon)


def _memory_limit() -> int:
    """The memory that this process may have, in bytes: the machine's, or its control group's."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        total = 8 << 30  # unknown: what a small machine has
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
    except OSError:
        return total
    return min(total, int(limit)) if limit.isdecimal() else total
