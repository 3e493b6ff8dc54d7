"""Several processes that all take every sample: one warning.

Guarantee: nobody is warned but a process of a torch.distributed run whose loader nobody divided, where the order is
ours; and once. Torch is not imported.
"""

from __future__ import annotations

import sys
import warnings

from feedline.order.samplers import DistributedSampler, seekable

__all__ = ["warn_if_repeated"]

_FROM_NEXT = 5  # frames: this function, and the three below a loader's next() that lead to it
_warned = False  # in this process; a warning of every loader, every epoch, would be noise


def warn_if_repeated(sampler: object) -> None:
    """Warn, the first time, where each of several processes goes through all of an epoch that nobody divided.

    Samplers and streams of the user's may divide by themselves, and are left in peace.

    Args:
        sampler: what decides the order of a loader to which no shard was given.
    """
    global _warned  # noqa: PLW0603 -- once a process
    ours = seekable(sampler)
    if _warned or ours is None or (isinstance(ours, DistributedSampler) and ours.num_replicas > 1):
        return
    distributed = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return
    world_size = distributed.get_world_size()
    if world_size > 1:
        _warned = True
        warnings.warn(
            f"each of the {world_size} processes of torch.distributed goes through every sample: this loader is not "
            f"sharded; build it with shard='auto' after init_process_group, or with shard=(0, 1) if each process is to "
            f"have them all",
            stacklevel=_FROM_NEXT,
        )
