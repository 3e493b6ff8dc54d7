"""Image files as a dataset: a list of them, or a folder for each class.

Guarantee: constructing one opens no image; a sample is read when it is asked for, by any number of threads at
once. A damaged file is a `CorruptSample` that names it. Paths are packed: worker processes share them.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from feedline.datasets.base import Dataset
from feedline.datasets.packed import PackedList
from feedline.datasets.positions import position
from feedline.formats.image import read_image

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["ImageFiles", "ImageFolder"]

_EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
_SHOWN = 4  # pairs that a repr holds


class ImageFiles(Dataset[Any]):
    """Images from files, with their labels if there are any.

    Samples are the image, uint8 of shape (H, W, 3), RGB; with ``labels`` the tuple ``(image, label)``. Images
    may differ in size: resize or crop them before they are batched. Safe to read from several threads.

    Args:
        paths: the files.
        labels: one for each path, of any type: a sequence or an array.

    Attributes:
        paths: the files, a `PackedList`.
        labels: as given.

    Raises:
        TypeError: ``paths`` is a single path.
        ValueError: paths and labels differ in number.

    Example:
        >>> dataset = ImageFiles(["cat.jpg", "dog.jpg"], labels=[0, 1])
        >>> len(dataset), dataset.labels
        (2, [0, 1])
    """

    thread_safe = True
    uses_global_rng = False

    def __init__(self, paths: Sequence[str | os.PathLike[str]], labels: Sequence[Any] | None = None) -> None:
        if isinstance(paths, (str, bytes, os.PathLike)):
            raise TypeError(f"paths must be a sequence of paths, got the single path {paths!r}; write [path]")
        if labels is not None and len(labels) != len(paths):
            raise ValueError(f"labels must be as many as paths, got {len(labels)} labels for {len(paths)} paths")
        self.paths: PackedList[str | os.PathLike[str]] = PackedList(paths)
        self.labels = labels

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Any:
        """The sample at ``index``; negative ones count from the end.

        Raises:
            IndexError: the index is outside the dataset.
            CorruptSample: the file is no image, or damaged.
            OSError: the file cannot be read.
        """
        row = position(index, len(self))
        image = read_image(self.paths[row])
        return image if self.labels is None else (image, self.labels[row])


class ImageFolder(ImageFiles):
    """Images from a folder that holds a folder for each class, which may hold further ones.

    Samples are ``(image, label)`` as `ImageFiles` gives them, the label an int: the place of the class
    folder's name in ``classes``, which is sorted. Within a class, files are in order of their paths. Files
    and folders whose name begins with a dot are left out, and so are files without the extension of an image
    (.jpg, .jpeg, .png, .ppm, .bmp, .pgm, .tif, .tiff, .webp, in either case). Links are followed.

    Args:
        root: the folder of the classes' folders.

    Attributes:
        classes: the folders' names, sorted.
        class_to_idx: the label of each of them.
        paths: of the images.
        samples: for each image its path and its label, a sequence.
        targets: the labels alone.

    Raises:
        FileNotFoundError: there is no such folder, no class folder in it, or a class folder without images.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as root:
        ...     for name in "dog", "cat":
        ...         Path(root, name).mkdir()
        ...         Path(root, name, "1.png").touch()
        ...     dataset = ImageFolder(root)
        >>> dataset.classes, dataset.targets
        (['cat', 'dog'], [0, 1])
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = root
        self.classes = class_folders(root)
        if not self.classes:
            raise FileNotFoundError(f"ImageFolder needs a folder for each class in {root}, and finds none")
        self.class_to_idx = {name: label for label, name in enumerate(self.classes)}
        self.targets: list[int] = []
        super().__init__(PackedList(self._found()), self.targets)
        counts = Counter(self.targets)
        empty = [name for label, name in enumerate(self.classes) if not counts[label]]
        if empty:
            raise FileNotFoundError(
                f"ImageFolder finds no images in the class folders {', '.join(empty)} of {root}; "
                f"the extensions it knows are {', '.join(_EXTENSIONS)}"
            )

    def _found(self) -> Iterator[str]:
        """All paths, class by class; the targets grow with them."""
        for label, name in enumerate(self.classes):
            paths = image_paths(Path(self.root, name))
            self.targets += [label] * len(paths)
            yield from paths

    @property
    def samples(self) -> Sequence[tuple[str, int]]:
        """For each image its path and its label."""
        return _Pairs(self.paths, self.targets)


class _Pairs(Sequence[tuple[Any, Any]]):
    """Two sequences side by side, as the list of their pairs would be, without holding one."""

    __slots__ = ("_first", "_second")

    def __init__(self, first: Sequence[Any], second: Sequence[Any]) -> None:
        self._first, self._second = first, second

    def __len__(self) -> int:
        return len(self._first)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return _Pairs(self._first[index], self._second[index])
        return self._first[index], self._second[index]

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        return zip(self._first, self._second, strict=True)

    def __eq__(self, other: object) -> bool:
        return list(self) == list(other) if isinstance(other, list | tuple | _Pairs) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # as a list

    def __repr__(self) -> str:
        if len(self) <= _SHOWN:
            return repr(list(self))
        return f"[{', '.join(map(repr, self[:_SHOWN]))}, ...; {len(self):,} in all]"


def class_folders(root: str | os.PathLike[str]) -> list[str]:
    """The names of the folders in ``root`` that are not hidden, sorted."""
    with os.scandir(root) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not _is_hidden(entry.name))


def image_paths(folder: str | os.PathLike[str]) -> list[str]:
    """The image files in ``folder`` and below, sorted by folder, then by name."""
    found: list[tuple[str, str]] = []  # strings, not Paths: there may be millions
    seen: set[str] = set()
    for parent, folders, names in os.walk(folder, onerror=_raise, followlinks=True):
        if (place := os.path.realpath(parent)) in seen:  # a link leads back to a folder that was visited
            folders.clear()
            continue
        seen.add(place)
        folders[:] = sorted(name for name in folders if not _is_hidden(name))
        found += [(parent, name) for name in names if not _is_hidden(name) and name.lower().endswith(_EXTENSIONS)]
    return [f"{parent}{os.sep}{name}" for parent, name in sorted(found)]


def _raise(error: OSError) -> None:
    """What ``os.walk`` is to do about a folder that it cannot read: it would pass over it in silence."""
    raise error


def _is_hidden(name: str) -> bool:
    return name.startswith(".")
