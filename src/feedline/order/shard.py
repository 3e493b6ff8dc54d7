"""Which part of the work this process takes: rank, world size, and how an epoch ends that does not divide evenly.

Guarantee: a `Shard` is plain checked data. Looking at the environment is `detect_shard`'s alone, on request.
"""

from __future__ import annotations

import operator
import os
import sys
from dataclasses import dataclass
from typing import Any, Literal, get_args

__all__ = ["UNSHARDED", "End", "Shard", "detect_shard"]

End = Literal["pad", "drop", "exact"]

# (rank, world size) as launchers export them: torchrun and friends, Slurm, Open MPI.
_LAUNCHERS = (
    ("RANK", "WORLD_SIZE"),
    ("SLURM_PROCID", "SLURM_NTASKS"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
)


@dataclass(frozen=True, slots=True)
class Shard:
    """This process is number ``rank`` of ``world_size`` that share each epoch.

    Batches are consecutive cuts of the epoch's one sequence, dealt to the ranks in turn. ``end`` says what happens to
    the last samples, when they are fewer than ``world_size * batch_size``:

    - ``"pad"``: they are split evenly, and at most ``world_size - 1`` samples from the epoch's start repeat;
    - ``"drop"``: they are split evenly, and at most ``world_size - 1`` samples are left out;
    - ``"exact"``: every sample once; ranks may differ by a sample, hence by a batch. For evaluation.

    Raises:
        ValueError: ``rank`` is not in [0, world_size), or ``end`` is none of the three.

    Example:
        >>> Shard(1, 4)
        Shard(rank=1, world_size=4, end='pad')
    """

    rank: int
    world_size: int
    end: End = "pad"

    def __post_init__(self) -> None:
        for name in ("rank", "world_size"):
            value = getattr(self, name)
            if isinstance(value, bool) or not hasattr(value, "__index__"):
                raise TypeError(f"shard: {name} must be an integer, got {value!r}")
            object.__setattr__(self, name, operator.index(value))
        if self.world_size < 1:
            raise ValueError(f"shard: world_size must be a positive integer, got {self.world_size}")
        if not 0 <= self.rank < self.world_size:
            raise ValueError(f"shard: rank must be from 0 to world_size - 1 = {self.world_size - 1}, got {self.rank}")
        if self.end not in get_args(End):
            raise ValueError(f"shard: end must be 'pad', 'drop' or 'exact', got {self.end!r}")


UNSHARDED = Shard(0, 1)
"""Where nobody gave a shard: this very object, so that an equal one of the user's is told from it."""


def detect_shard() -> Shard:
    """The shard of this process, as its launcher set it up; `UNSHARDED`, which is one rank, when there is none.

    Asks, in this order: torch.distributed and JAX, each only when it is imported and initialised; then the variables
    RANK and WORLD_SIZE, those of Slurm, those of Open MPI.

    Raises:
        ValueError: a launcher's variable is set but is no integer, the rank is outside the world, or one of RANK and
            WORLD_SIZE is there without the other.
    """
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        return Shard(distributed.get_rank(), distributed.get_world_size())
    jax = sys.modules.get("jax")
    if jax is not None and _is_initialized(jax):
        return Shard(jax.process_index(), jax.process_count())
    for rank_name, world_name in _LAUNCHERS:
        if rank_name in os.environ and world_name in os.environ:
            rank, world_size = _integer(rank_name), _integer(world_name)
            if not 0 <= rank < world_size:
                raise ValueError(
                    f"shard='auto': the environment variable {rank_name} must be from 0 to {world_name} - 1, got "
                    f"{rank_name}={rank} and {world_name}={world_size}; correct them, or pass shard=(rank, world_size)"
                )
            return Shard(rank, world_size)
    for name, other in zip(_LAUNCHERS[0], reversed(_LAUNCHERS[0]), strict=True):
        if name in os.environ and (name, os.environ[name]) != ("WORLD_SIZE", "1"):  # each process would take it all
            raise ValueError(
                f"shard='auto': the environment variable {name} is set ({os.environ[name]!r}) and {other} is not; set "
                f"both, or pass shard=(rank, world_size)"
            )
    return UNSHARDED


def _is_initialized(jax: Any) -> bool:
    """Whether JAX's processes know of each other. Its releases of 2024 have no public function that tells."""
    tells = getattr(getattr(jax, "distributed", None), "is_initialized", None)
    if tells is not None:
        return bool(tells())
    state = getattr(sys.modules.get("jax._src.distributed"), "global_state", None)
    return getattr(state, "client", None) is not None


def _integer(name: str) -> int:
    try:
        return int(os.environ[name])
    except ValueError:
        raise ValueError(
            f"shard='auto': the environment variable {name} must be an integer, got {os.environ[name]!r}; "
            f"correct it, or pass shard=(rank, world_size)"
        ) from None
