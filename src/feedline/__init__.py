"""Feedline: training batches that are there before the training step asks.

A successor of ``torch.utils.data`` on a NumPy core. The plan is pure, the work is parallel, the delivery is ordered.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

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
    IterableDataset,
    StackDataset,
    Subset,
    TensorDataset,
    random_split,
)
from feedline.engine import ErrorPolicy, get_worker_info
from feedline.errors import CorruptSample, DatasetChanged, FeedlineError
from feedline.loader import DataLoader
from feedline.order import (
    BatchSampler,
    DistributedSampler,
    RandomSampler,
    Sampler,
    SequentialSampler,
    Shard,
    StratifiedBatchSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)
from feedline.seeding import rng

if TYPE_CHECKING:
    from feedline import transforms
    from feedline.datasets import ImageFiles

__version__ = "0.1.0"

__all__ = [
    "BatchSampler",
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
    "IterableDataset",
    "RandomSampler",
    "Sampler",
    "SequentialSampler",
    "Shard",
    "StackDataset",
    "StratifiedBatchSampler",
    "Subset",
    "SubsetRandomSampler",
    "TensorDataset",
    "WeightedRandomSampler",
    "default_collate",
    "default_convert",
    "detection_collate",
    "get_worker_info",
    "pad_collate",
    "random_split",
    "register_collate",
    "rng",
    "synchronize_collate",
    "transforms",
]


def __getattr__(name: str) -> Any:
    if name == "transforms":  # these are imported when they are asked for: not every loader needs them
        return importlib.import_module("feedline.transforms")
    if name == "ImageFiles":
        return importlib.import_module("feedline.datasets").ImageFiles
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
