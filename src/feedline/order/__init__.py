"""Which samples, in which order, on which rank: pure functions of seed, epoch and position."""

from feedline.order.batches import BatchSampler, StratifiedBatchSampler
from feedline.order.buckets import LengthBucketBatchSampler
from feedline.order.packing import Packing, pack_sequences
from feedline.order.samplers import (
    DistributedSampler,
    RandomSampler,
    Sampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)
from feedline.order.shard import Shard

__all__ = [
    "BatchSampler",
    "DistributedSampler",
    "LengthBucketBatchSampler",
    "Packing",
    "RandomSampler",
    "Sampler",
    "SequentialSampler",
    "Shard",
    "StratifiedBatchSampler",
    "SubsetRandomSampler",
    "WeightedRandomSampler",
    "pack_sequences",
]
