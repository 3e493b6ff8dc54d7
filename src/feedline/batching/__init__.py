"""From samples to batches: stack, pad, detection, synchronise, and the registry of a user's own types."""

from feedline.batching.collate import EmptyBatchError, default_collate, default_convert
from feedline.batching.detection import detection_collate
from feedline.batching.pad import pad_collate
from feedline.batching.registry import register_collate
from feedline.batching.synchronize import synchronize_collate
from feedline.batching.writer import BatchWriter

__all__ = [
    "BatchWriter",
    "EmptyBatchError",
    "default_collate",
    "default_convert",
    "detection_collate",
    "pad_collate",
    "register_collate",
    "synchronize_collate",
]
