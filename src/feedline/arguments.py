"""What a loader accepts: the checks of its arguments, with torch's error types.

Guarantee: every check names the argument, the rule, the value and the remedy, and happens when the loader is built, not
when it is iterated.
"""

from __future__ import annotations

import operator
import warnings
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from feedline.checks import integer
from feedline.engine.choice import usable_cpus
from feedline.engine.policy import ErrorPolicy
from feedline.order.batched import check_yields_indices
from feedline.order.samplers import DistributedSampler, RandomSampler, SequentialSampler
from feedline.order.shard import UNSHARDED, Shard, detect_shard
from feedline.protocols import Indexed, is_iterable_style, length_of

__all__ = [
    "Sampling",
    "checked_context",
    "checked_dataset",
    "checked_division",
    "checked_flags",
    "checked_functions",
    "checked_policy",
    "checked_rest",
    "checked_shard",
    "checked_workers",
]

_BACKENDS = ("auto", "serial", "thread", "process", "ray")
_OPTIONAL_FLAGS = frozenset({"shuffle", "persistent_workers"})


def checked_dataset(dataset: object) -> bool:
    """Whether the dataset is iterable-style; a TypeError if it is no dataset at all."""
    if is_iterable_style(dataset):
        return True
    if not isinstance(dataset, Indexed):
        raise TypeError(f"dataset must have __getitem__ (and __len__), or be iterable, got {type(dataset).__name__}")
    return False


def checked_workers(
    num_workers: Any, backend: Any, *, timeout: Any, prefetch_factor: Any, persistent_workers: Any
) -> None:
    """Check what concerns workers."""
    if not isinstance(backend, str) or backend not in _BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(map(repr, _BACKENDS))}, got {backend!r}")
    if not _is_auto(num_workers) and _integer("num_workers", num_workers) < 0:
        raise ValueError(
            f"num_workers should be non-negative, got {num_workers}; 0 makes batches in the calling process"
        )
    if isinstance(timeout, bool) or not isinstance(timeout, int | float):
        raise TypeError(f"timeout must be a number of seconds, got {timeout!r}")
    if not timeout >= 0:
        raise ValueError(f"timeout should be non-negative, got {timeout}; 0 waits as long as it takes")
    if num_workers == 0:
        _refuse_without_workers(timeout, prefetch_factor, persistent_workers)
    elif prefetch_factor is not None and not _is_auto(prefetch_factor):
        if _integer("prefetch_factor", prefetch_factor) < 0:
            raise ValueError(f"prefetch_factor should be non-negative, got {prefetch_factor}")
        integer("prefetch_factor", prefetch_factor, least=1)
    _warn_of_many(num_workers)


def _is_auto(value: Any) -> bool:
    return isinstance(value, str) and value == "auto"


def _integer(name: str, value: Any) -> int:
    if not isinstance(value, bool):
        with suppress(TypeError):
            return operator.index(value)
    raise TypeError(f"{name} must be an integer or 'auto', got {value!r}")


def _refuse_without_workers(timeout: float, prefetch_factor: Any, persistent_workers: Any) -> None:
    if prefetch_factor is not None:
        raise ValueError(
            f"prefetch_factor could only be specified in multiprocessing, got {prefetch_factor!r} with "
            f"num_workers=0; set num_workers > 0 or leave it out"
        )
    if persistent_workers:
        raise ValueError("persistent_workers needs num_workers > 0, got num_workers=0")
    if timeout > 0:
        raise ValueError(
            f"timeout needs num_workers > 0, got timeout={timeout} with num_workers=0: a sample made in the calling "
            f"process cannot be given up"
        )


def _warn_of_many(num_workers: Any) -> None:
    cpus = usable_cpus()
    if not _is_auto(num_workers) and num_workers > cpus:
        warnings.warn(
            f"num_workers={num_workers} is excessive worker creation: this process may use {cpus} CPUs, and more "
            f"workers than that compete with each other and with the training step",
            stacklevel=4,
        )


def checked_context(context: Any, num_workers: Any) -> Any:
    """The multiprocessing context: None, the name of a start method, or a context."""
    if context is None:
        return None
    if num_workers == 0:
        raise ValueError(f"multiprocessing_context needs num_workers > 0, got {context!r} with num_workers=0")
    import multiprocessing

    if isinstance(context, str):
        methods = multiprocessing.get_all_start_methods()
        if context not in methods:
            raise ValueError(f"multiprocessing_context must be one of {methods}, got {context!r}")
        return multiprocessing.get_context(context)
    if not isinstance(context, multiprocessing.context.BaseContext):
        raise TypeError(
            f"multiprocessing_context must be None, the name of a start method or a multiprocessing context, "
            f"got {context!r}"
        )
    return context


def checked_flags(**flags: Any) -> None:
    """Check that each flag is True or False; those that may be left out may be None."""
    for name, flag in flags.items():
        optional = name in _OPTIONAL_FLAGS
        if not isinstance(flag, bool | np.bool_) and not (optional and flag is None):
            error = ValueError if name == "drop_last" else TypeError  # as torch
            raise error(f"{name} must be True{', False or None' if optional else ' or False'}, got {flag!r}")


def checked_rest(*, generator: Any, seed: Any, max_restarts: Any, pin_memory_device: Any) -> None:
    """Check what stands by itself."""
    if seed is not None and generator is not None:
        raise ValueError("seed is mutually exclusive with generator: the seed would be drawn from the generator")
    if isinstance(generator, int):
        raise TypeError(
            f"generator must be a random.Random, numpy.random.Generator or torch.Generator, got "
            f"{type(generator).__name__}; give an integer as seed="
        )
    integer("max_restarts", max_restarts, least=0)
    if not isinstance(pin_memory_device, str):
        raise TypeError(f"pin_memory_device must be the name of a kind of device, got {pin_memory_device!r}")


def checked_functions(**functions: Any) -> None:
    """Check that each function given is callable."""
    for name, function in functions.items():
        if function is not None and not callable(function):
            raise TypeError(f"{name} must be callable, got {function!r}")


def checked_policy(on_error: Any, *, iterable: bool) -> ErrorPolicy:
    """The error policy, from its name or as it is."""
    policy = on_error if isinstance(on_error, ErrorPolicy) else ErrorPolicy(on_error)
    if iterable and policy.action == "replace":
        raise ValueError("on_error='replace' needs a dataset with __getitem__: a stream has no other index; use 'skip'")
    return policy


def checked_shard(shard: Any) -> Shard:
    """The shard, from None, a pair, ``"auto"`` or as it is."""
    if shard is None:
        return UNSHARDED
    if isinstance(shard, Shard):
        return shard
    if isinstance(shard, str) and shard == "auto":
        return detect_shard()
    if isinstance(shard, tuple) and len(shard) == 2:
        return Shard(*shard)
    raise TypeError(f"shard must be None, (rank, world_size), a Shard or 'auto', got {shard!r}")


def checked_division(sampler: Any, shard: Shard) -> None:
    """Refuse to divide an epoch twice."""
    if shard.world_size > 1 and isinstance(sampler, DistributedSampler) and sampler.num_replicas > 1:
        raise ValueError(
            f"shard is mutually exclusive with a DistributedSampler, which divides the epoch already, got shard={shard}"
        )


@dataclass(frozen=True, slots=True)
class Sampling:
    """The arguments that say which samples come in which batches; checked against each other.

    Raises:
        ValueError: two of them contradict each other.
        TypeError: one is of the wrong type.
    """

    dataset: Any
    batch_size: Any
    shuffle: Any
    sampler: Any
    batch_sampler: Any
    drop_last: Any
    generator: Any

    def __post_init__(self) -> None:
        checked_flags(drop_last=self.drop_last, shuffle=self.shuffle)
        for name in ("sampler", "batch_sampler"):
            value = getattr(self, name)
            if isinstance(value, np.ndarray) and value.dtype.kind == "b":
                raise TypeError(f"{name} must yield indices, got a mask; use numpy.flatnonzero(mask)")
            iterable = hasattr(value, "__iter__") or hasattr(value, "__getitem__")
            if value is not None and (isinstance(value, type) or not iterable):
                got = value if isinstance(value, type) else type(value).__name__
                raise TypeError(f"{name} must be iterable, got {got}")
        check_yields_indices(self.sampler)
        if is_iterable_style(self.dataset):
            self._check_stream()
        if self.sampler is not None and self.shuffle:
            raise ValueError("sampler is mutually exclusive with shuffle: the sampler decides the order")
        self._check_batches()

    def _check_stream(self) -> None:
        for name in ("shuffle", "sampler", "batch_sampler"):
            value = getattr(self, name)
            if value is not None and value is not False:
                remedy = (
                    "; shuffle the stream itself: dataset.shuffle(n), or ShuffledStream(dataset, n)"
                    if name == "shuffle"
                    else ""
                )
                raise ValueError(
                    f"DataLoader with an iterable dataset expected unspecified {name}, got {name}={value!r}: a stream "
                    f"has its own order{remedy}"
                )

    def _check_batches(self) -> None:
        if self.batch_sampler is not None:
            default = isinstance(self.batch_size, int) and self.batch_size == 1
            if not default or self.shuffle or self.sampler is not None or self.drop_last:
                raise ValueError(
                    "batch_sampler is mutually exclusive with batch_size, shuffle, sampler and drop_last: it decides "
                    "them all"
                )
        elif self.batch_size is not None:
            integer("batch_size", self.batch_size, least=1)
        elif self.drop_last:
            raise ValueError("batch_size=None is mutually exclusive with drop_last: there are no batches to drop")

    def chosen(self) -> Any:
        """The sampler to use: the one given, or the one that ``shuffle`` asks for; None for a stream."""
        if self.sampler is not None or is_iterable_style(self.dataset):
            return self.sampler
        if self.batch_sampler is None and length_of(self.dataset) is None:
            raise TypeError(
                f"dataset must have a length where no sampler is given, and {type(self.dataset).__name__} has none"
            )
        if self.shuffle:
            return RandomSampler(self.dataset, generator=self.generator)
        return SequentialSampler(self.dataset)
