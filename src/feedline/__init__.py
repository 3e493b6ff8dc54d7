"""Feedline: training batches that are there before the training step asks.

A successor of ``torch.utils.data`` on a NumPy core. The plan is pure, the work is parallel, the delivery is ordered.

Each name is imported when it is first asked for: a worker process needs few of them, and starts the sooner for it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from feedline import transforms
    from feedline.batching import (
        default_collate,
        default_convert,
        detection_collate,
        pad_collate,
        register_collate,
        synchronize_collate,
    )
    from feedline.datasets import (
        ChainDataset,
        ConcatDataset,
        Dataset,
        ImageFiles,
        IterableDataset,
        PackedList,
        ShuffledStream,
        StackDataset,
        Subset,
        TensorDataset,
        mix,
        random_split,
    )
    from feedline.engine import ErrorPolicy, get_worker_info
    from feedline.errors import (
        CannotShip,
        CorruptSample,
        DatasetChanged,
        FeedlineError,
        WorkerError,
    )
    from feedline.infinite import InfiniteDataLoader
    from feedline.insight.check import check
    from feedline.insight.digest import add_digests
    from feedline.loader import DataLoader
    from feedline.order import (
        BatchSampler,
        DistributedSampler,
        LengthBucketBatchSampler,
        RandomSampler,
        Sampler,
        SequentialSampler,
        Shard,
        StratifiedBatchSampler,
        SubsetRandomSampler,
        WeightedRandomSampler,
        pack_sequences,
    )
    from feedline.seeding import rng

__version__ = "0.1.0"

__all__ = [
    "BatchSampler",
    "CannotShip",
    "ChainDataset",
    "ConcatDataset",
    "CorruptSample",
    "DataLoader",
    "Dataset",
    "DatasetChanged",
    "DistributedSampler",
    "ErrorPolicy",
    "FeedlineError",
    "ImageFiles",
    "InfiniteDataLoader",
    "IterableDataset",
    "LengthBucketBatchSampler",
    "PackedList",
    "RandomSampler",
    "Sampler",
    "SequentialSampler",
    "Shard",
    "ShuffledStream",
    "StackDataset",
    "StratifiedBatchSampler",
    "Subset",
    "SubsetRandomSampler",
    "TensorDataset",
    "WeightedRandomSampler",
    "WorkerError",
    "add_digests",
    "check",
    "default_collate",
    "default_convert",
    "detection_collate",
    "get_worker_info",
    "mix",
    "pack_sequences",
    "pad_collate",
    "random_split",
    "register_collate",
    "rng",
    "synchronize_collate",
    "transforms",
]

_HOMES = {
    "feedline.batching": (
        "default_collate",
        "default_convert",
        "detection_collate",
        "pad_collate",
        "register_collate",
        "synchronize_collate",
    ),
    "feedline.datasets": (
        "ChainDataset",
        "ConcatDataset",
        "Dataset",
        "ImageFiles",
        "IterableDataset",
        "PackedList",
        "ShuffledStream",
        "StackDataset",
        "Subset",
        "TensorDataset",
        "mix",
        "random_split",
    ),
    "feedline.engine": (
        "ErrorPolicy",
        "get_worker_info",
    ),
    "feedline.errors": (
        "CannotShip",
        "CorruptSample",
        "DatasetChanged",
        "FeedlineError",
        "WorkerError",
    ),
    "feedline.infinite": ("InfiniteDataLoader",),
    "feedline.insight.check": ("check",),
    "feedline.insight.digest": ("add_digests",),
    "feedline.loader": ("DataLoader",),
    "feedline.order": (
        "BatchSampler",
        "DistributedSampler",
        "LengthBucketBatchSampler",
        "RandomSampler",
        "Sampler",
        "SequentialSampler",
        "Shard",
        "StratifiedBatchSampler",
        "SubsetRandomSampler",
        "WeightedRandomSampler",
        "pack_sequences",
    ),
    "feedline.seeding": ("rng",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name == "transforms":
        return importlib.import_module("feedline.transforms")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(_HOME[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
