"""CIFAR-10 and CIFAR-100, read from the binary version of their publisher's files.

Guarantee: a collection is in memory and checked, or it is not made: a damaged file is an error that names it.
Files that are missing are named: in a warning where the rest makes a collection, otherwise in an error.
Nothing is fetched unless ``download=True``.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from feedline.datasets.tensor import TensorDataset
from feedline.formats.cifar import CIFAR10_LABELS, CIFAR100_LABELS, read_cifar

if TYPE_CHECKING:
    import os

    from numpy.typing import NDArray

__all__ = ["CIFAR10", "CIFAR100"]

_ARCHIVE_MAX_NBYTES = 1 << 28  # unpacked they hold 184 MB


class _Cifar(TensorDataset):
    """What the two have in common: where their files are, and how they are fetched and read."""

    base_url: ClassVar[str] = "https://www.cs.toronto.edu/~kriz/"
    archive: ClassVar[str]
    md5: ClassVar[str]
    folder: ClassVar[str]
    train_files: ClassVar[tuple[str, ...]]
    test_files: ClassVar[tuple[str, ...]]
    class_names: ClassVar[tuple[str, ...]]
    label_classes: ClassVar[tuple[int, ...]]

    def __init__(self, root: str | os.PathLike[str], train: bool = True, *, download: bool = False) -> None:  # noqa: FBT001, FBT002 -- torchvision's place
        if download and self._missing(root, train=train):
            self._fetch(Path(root))
        missing = self._missing(root, train=train)
        paths = [path for name in self._files(train=train) if (path := self._found(root, name)) is not None]
        if not paths:
            raise FileNotFoundError(
                f"{type(self).__name__} needs {', '.join(missing)} in {root} or in "
                f"{Path(root, self.folder)}, and they are in neither; download=True fetches them"
            )
        if missing:
            warnings.warn(
                f"{type(self).__name__} is incomplete: {', '.join(missing)} missing in {paths[0].parent}; "
                "download=True fetches them",
                UserWarning,
                stacklevel=2,
            )
        images, labels = zip(*(read_cifar(path, self.label_classes) for path in paths), strict=True)
        self._labels = np.concatenate(labels)  # one column a label byte, the finest last
        super().__init__(np.concatenate(images), np.ascontiguousarray(self._labels[:, -1]))
        self.classes = list(self.class_names)

    @classmethod
    def is_there(cls, root: str | os.PathLike[str], *, train: bool) -> bool:
        """Whether any file of the part is where it would be looked for."""
        return len(cls._missing(root, train=train)) < len(cls._files(train=train))

    @classmethod
    def _missing(cls, root: str | os.PathLike[str], *, train: bool) -> list[str]:
        return [name for name in cls._files(train=train) if cls._found(root, name) is None]

    @classmethod
    def _files(cls, *, train: bool) -> tuple[str, ...]:
        return cls.train_files if train else cls.test_files

    @classmethod
    def _found(cls, root: str | os.PathLike[str], name: str) -> Path | None:
        places = (Path(root, name), Path(root, cls.folder, name))
        return next((place for place in places if place.is_file()), None)

    @classmethod
    def _fetch(cls, root: Path) -> None:
        from feedline.formats.archive import unpack_members
        from feedline.formats.download import Checksum, download  # here: urllib takes a while to import
        from feedline.formats.lock import exclusive

        root.mkdir(parents=True, exist_ok=True)
        files = cls.train_files + cls.test_files
        members = {f"{cls.folder}/{name}": root / cls.folder / name for name in files}
        with exclusive(root / f"{cls.archive}.unpack.lock"):
            if all(path.is_file() for path in members.values()):
                return  # another process was faster
            checksum = Checksum("md5", cls.md5)
            archive = download(cls.base_url + cls.archive, root / cls.archive, checksum=checksum)
            unpack_members(archive, members, max_nbytes=_ARCHIVE_MAX_NBYTES)


class CIFAR10(_Cifar):
    """CIFAR-10: 50,000 colour images to train on and 10,000 to test on, 32 x 32 pixels, ten classes.

    Samples are ``(image, label)``: uint8 of shape (32, 32, 3), RGB, and int64. ``tensors`` are the images,
    (N, 32, 32, 3), and the labels, (N,). ``classes`` are the names of the labels.

    Args:
        root: the folder that holds the ``.bin`` files of the binary version, itself or in
            ``cifar-10-batches-bin``.
        train: the training part, of five files, or the test part. With fewer than five there is a
            UserWarning.
        download: where a file is missing, fetch the archive, check its MD5, and unpack it to
            ``root/cifar-10-batches-bin``.

    A subclass may name a mirror: its ``base_url`` (ending in a slash) and the ``md5`` of the archive there.

    Raises:
        FileNotFoundError: none of the files is there and ``download`` is False.
        CorruptSample: a file is damaged.
        FeedlineError: the download failed.

    Source: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as root:  # one record: a label, then the planes of red, green, blue
        ...     _ = Path(root, "test_batch.bin").write_bytes(bytes([3]) + bytes([200]) * 1024 + bytes(2048))
        ...     dataset = CIFAR10(root, train=False)
        >>> image, label = dataset[0]
        >>> image.shape, image[0, 0], dataset.classes[label]
        ((32, 32, 3), array([200,   0,   0], dtype=uint8), 'cat')
    """

    archive = "cifar-10-binary.tar.gz"
    md5 = "c32a1d4ab5d03f1284b67883e8d87530"
    folder = "cifar-10-batches-bin"
    train_files = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
    test_files = ("test_batch.bin",)
    label_classes = CIFAR10_LABELS
    class_names = (
        *("airplane", "automobile", "bird", "cat", "deer"),
        *("dog", "frog", "horse", "ship", "truck"),
    )


class CIFAR100(_Cifar):
    """CIFAR-100: as `CIFAR10`, with 100 classes in 20 groups, from the files in ``cifar-100-binary``.

    The labels of samples are the fine ones; ``coarse_labels`` are the groups, int64 of shape (N,).
    """

    archive = "cifar-100-binary.tar.gz"
    md5 = "03b5dce01913d631647c71ecec9e9cb8"
    folder = "cifar-100-binary"
    train_files = ("train.bin",)
    test_files = ("test.bin",)
    label_classes = CIFAR100_LABELS
    class_names = tuple(
        """
        apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus
        butterfly camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch
        crab crocodile cup dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo
        keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain
        mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain
        plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk
        skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone
        television tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm
        """.split()  # noqa: SIM905 -- a hundred pairs of quotes would hide the words
    )

    @property
    def coarse_labels(self) -> NDArray[np.int64]:
        """The group of each sample, from 0 to 19."""
        return self._labels[:, 0]
