"""Datasets: arrays, combinations of other datasets, and what a dataset of one's own inherits from."""

from __future__ import annotations

from feedline.datasets.base import Dataset, IterableDataset
from feedline.datasets.cached import CachedDataset
from feedline.datasets.combine import ChainDataset, ConcatDataset, StackDataset
from feedline.datasets.mapped import MapDataset, MapIterableDataset
from feedline.datasets.subset import Subset, random_split
from feedline.datasets.tensor import TensorDataset

__all__ = [
    "CachedDataset",
    "ChainDataset",
    "ConcatDataset",
    "Dataset",
    "IterableDataset",
    "MapDataset",
    "MapIterableDataset",
    "StackDataset",
    "Subset",
    "TensorDataset",
    "random_split",
]
