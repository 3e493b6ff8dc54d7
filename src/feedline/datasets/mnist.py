"""MNIST and Fashion-MNIST, read from their publishers' files.

Guarantee: a collection is in memory, whole and checked, or it is not made: a missing file, a damaged one, and
images without their labels are errors that name the file. Nothing is fetched unless ``download=True``, and no
file that is there is changed.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from feedline.datasets.tensor import TensorDataset
from feedline.errors import CorruptSample
from feedline.formats.idx import read_idx

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

__all__ = ["MNIST", "FashionMNIST"]


class MNIST(TensorDataset):
    """The MNIST digits: 60,000 images to train on and 10,000 to test on, 28 x 28 pixels, ten classes.

    Samples are ``(image, label)``: uint8 of shape (28, 28), 0 the background and 255 the ink, and int64.
    ``tensors`` are the images, (N, 28, 28), and the labels, (N,). ``classes`` are the names of the labels.

    Args:
        root: the folder that holds the files, plain or gzip, itself or in ``MNIST/raw``.
        train: the training part, or the test part.
        download: fetch the files that are missing to ``root/MNIST/raw`` and check their MD5.

    A subclass may name a mirror: its ``base_url`` (ending in a slash) and the ``md5`` of each file there.

    Raises:
        FileNotFoundError: a file is missing and ``download`` is False.
        CorruptSample: a file is damaged, or images and labels do not belong together.
        FeedlineError: the download failed.

    Source: Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten digits", 1998.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as root:  # an image of 1 x 2 pixels and its label, as IDX files
        ...     pixels = bytes.fromhex("00000803 00000001 00000001 00000002 09ff")
        ...     _ = Path(root, "t10k-images-idx3-ubyte").write_bytes(pixels)
        ...     _ = Path(root, "t10k-labels-idx1-ubyte").write_bytes(bytes.fromhex("00000801 00000001 07"))
        ...     dataset = MNIST(root, train=False)
        >>> dataset[0], dataset.classes[7]
        ((array([[  9, 255]], dtype=uint8), np.int64(7)), '7 - seven')
    """

    base_url: ClassVar[str] = "https://ossci-datasets.s3.amazonaws.com/mnist/"
    md5: ClassVar[Mapping[str, str]] = {
        "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
        "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
        "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
    }
    folder: ClassVar[str] = "MNIST/raw"
    class_names: ClassVar[tuple[str, ...]] = (
        *("0 - zero", "1 - one", "2 - two", "3 - three", "4 - four"),
        *("5 - five", "6 - six", "7 - seven", "8 - eight", "9 - nine"),
    )

    def __init__(self, root: str | os.PathLike[str], train: bool = True, *, download: bool = False) -> None:  # noqa: FBT001, FBT002 -- torchvision's place
        images_path, labels_path = (
            self._found(root, name) or self._fetched(root, name, download=download) for name in self._files(train=train)
        )
        images, labels = read_idx(images_path), read_idx(labels_path)
        if images.ndim != 3 or images.dtype != np.uint8:
            raise CorruptSample(
                f"expected uint8 images of shape (N, H, W), found {images.dtype} {images.shape}",
                path=images_path,
            )
        if labels.shape != images.shape[:1] or labels.dtype != np.uint8:
            raise CorruptSample(
                f"expected uint8 labels of shape {images.shape[:1]} for the images in {images_path}, "
                f"found {labels.dtype} {labels.shape}",
                path=labels_path,
            )
        if labels.max(initial=0) >= len(self.class_names):
            raise CorruptSample(
                f"expected labels below {len(self.class_names)}, found {labels.max()}", path=labels_path
            )
        super().__init__(images, labels.astype(np.int64))
        self.classes = list(self.class_names)

    @classmethod
    def is_there(cls, root: str | os.PathLike[str], *, train: bool) -> bool:
        """Whether any file of the part is where it would be looked for."""
        return any(cls._found(root, name) is not None for name in cls._files(train=train))

    @staticmethod
    def _files(*, train: bool) -> tuple[str, str]:
        part = "train" if train else "t10k"
        return f"{part}-images-idx3-ubyte", f"{part}-labels-idx1-ubyte"

    @classmethod
    def _found(cls, root: str | os.PathLike[str], name: str) -> Path | None:
        # The publisher's page spells the names with a dash before idx; some programs unpack them with a dot.
        spellings = (name, f"{name}.gz", name.replace("-idx", ".idx"))
        folders = (Path(root), Path(root, cls.folder))
        places = (folder / spelling for folder in folders for spelling in spellings)
        return next((place for place in places if place.is_file()), None)

    @classmethod
    def _fetched(cls, root: str | os.PathLike[str], name: str, *, download: bool) -> Path:
        folder = Path(root, cls.folder)
        if not download:
            raise FileNotFoundError(
                f"{cls.__name__} needs {name} (or {name}.gz) in {root} or in {folder}, and it is in neither; "
                "download=True fetches it"
            )
        from feedline.formats import download as http  # here: urllib takes a while to import

        name += ".gz"
        return http.download(cls.base_url + name, folder / name, checksum=http.Checksum("md5", cls.md5[name]))


class FashionMNIST(MNIST):
    """Fashion-MNIST: articles of clothing in the sizes, counts and files of `MNIST`, in ``FashionMNIST/raw``.

    Source: H. Xiao, K. Rasul, R. Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine
    Learning Algorithms", 2017, https://arxiv.org/abs/1708.07747.
    """

    base_url = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
    md5: ClassVar[Mapping[str, str]] = {
        "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
        "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
        "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
    }
    folder = "FashionMNIST/raw"
    class_names = (
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    )
