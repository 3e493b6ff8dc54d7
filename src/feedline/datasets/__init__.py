"""Datasets: arrays, combinations of other datasets, files, and what a dataset of one's own inherits from."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from feedline.datasets.base import Dataset, IterableDataset
from feedline.datasets.cached import CachedDataset
from feedline.datasets.combine import ChainDataset, ConcatDataset, StackDataset
from feedline.datasets.mapped import MapDataset, MapIterableDataset
from feedline.datasets.packed import PackedList
from feedline.datasets.subset import Subset, random_split
from feedline.datasets.tensor import TensorDataset

if TYPE_CHECKING:
    from feedline.datasets.cifar import CIFAR10, CIFAR100
    from feedline.datasets.digits import Digits
    from feedline.datasets.folders import Collection, recognise
    from feedline.datasets.image_files import ImageFiles, ImageFolder
    from feedline.datasets.mixing import MixedDataset, mix
    from feedline.datasets.mnist import MNIST, FashionMNIST
    from feedline.datasets.shuffled import ShuffledStream

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
    "MixedDataset",
    "PackedList",
    "ShuffledStream",
    "StackDataset",
    "Subset",
    "TensorDataset",
    "mix",
    "random_split",
    "recognise",
]

# What reads files, and what few programs use, is imported when it is asked for: it would make up a tenth of the time
# that `import feedline` takes.
_LATER = {
    "CIFAR10": "cifar",
    "CIFAR100": "cifar",
    "Collection": "folders",
    "Digits": "digits",
    "FashionMNIST": "mnist",
    "ImageFiles": "image_files",
    "ImageFolder": "image_files",
    "MNIST": "mnist",
    "MixedDataset": "mixing",
    "ShuffledStream": "shuffled",
    "mix": "mixing",
    "recognise": "folders",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_LATER[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER})
