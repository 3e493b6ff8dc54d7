"""Datasets: arrays, combinations of other datasets, and what a dataset of one's own inherits from."""

from __future__ import annotations

from feedline.datasets.base import Dataset, IterableDataset
from feedline.datasets.cached import CachedDataset
from feedline.datasets.cifar import CIFAR10, CIFAR100
from feedline.datasets.combine import ChainDataset, ConcatDataset, StackDataset
from feedline.datasets.digits import Digits
from feedline.datasets.folders import Collection, recognise
from feedline.datasets.image_files import ImageFiles, ImageFolder
from feedline.datasets.mapped import MapDataset, MapIterableDataset
from feedline.datasets.mnist import MNIST, FashionMNIST
from feedline.datasets.subset import Subset, random_split
from feedline.datasets.tensor import TensorDataset

__all__ = [
    "CIFAR10",
    "CIFAR100",
    "MNIST",
    "CachedDataset",
    "ChainDataset",
    "Collection",
    "ConcatDataset",
    "Dataset",
    "Digits",
    "FashionMNIST",
    "ImageFiles",
    "ImageFolder",
    "IterableDataset",
    "MapDataset",
    "MapIterableDataset",
    "StackDataset",
    "Subset",
    "TensorDataset",
    "random_split",
    "recognise",
]
