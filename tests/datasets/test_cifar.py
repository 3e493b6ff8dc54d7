from __future__ import annotations

import hashlib
import tarfile
import warnings

import numpy as np
import pytest

from feedline.datasets.cifar import CIFAR10, CIFAR100
from feedline.datasets.tensor import TensorDataset
from feedline.errors import CorruptSample, FeedlineError

FOLDERS = pytest.mark.parametrize("nested", [False, True])


def write(folder, cls, write_cifar):
    """Every file of a collection, two samples each; images and label bytes by name."""
    names = (*cls.train_files, *cls.test_files)
    return {name: write_cifar(folder / name, 2, cls.label_classes) for name in names}


@FOLDERS
def test_the_five_batches_are_one_dataset_in_their_order(tmp_path, write_cifar, nested):
    written = write(tmp_path / CIFAR10.folder if nested else tmp_path, CIFAR10, write_cifar)
    train, test = CIFAR10(tmp_path), CIFAR10(tmp_path, train=False)
    assert isinstance(train, TensorDataset)
    images, labels = zip(*(written[name] for name in CIFAR10.train_files), strict=True)
    assert np.array_equal(train.tensors[0], np.concatenate(images))
    assert np.array_equal(train.tensors[1], np.concatenate(labels)[:, 0])
    assert np.array_equal(test.tensors[0], written["test_batch.bin"][0])
    assert (len(train), len(test)) == (10, 2)
    image, label = train[0]
    assert (image.shape, image.dtype, label.dtype) == ((32, 32, 3), np.uint8, np.int64)


@FOLDERS
def test_the_labels_of_cifar_100_are_the_fine_ones(tmp_path, write_cifar, nested):
    written = write(tmp_path / CIFAR100.folder if nested else tmp_path, CIFAR100, write_cifar)
    for train, name in ((True, "train.bin"), (False, "test.bin")):
        dataset = CIFAR100(tmp_path, train=train)
        images, labels = written[name]
        assert np.array_equal(dataset.tensors[0], images)
        assert np.array_equal(dataset.coarse_labels, labels[:, 0])
        assert np.array_equal(dataset.tensors[1], labels[:, 1])
        assert dataset.tensors[1].flags.c_contiguous


def test_classes_are_named_by_label(tmp_path, write_cifar):
    write(tmp_path, CIFAR10, write_cifar)
    write(tmp_path, CIFAR100, write_cifar)
    assert CIFAR10(tmp_path).classes[3] == "cat"
    assert len(CIFAR10(tmp_path).classes) == 10
    names = CIFAR100(tmp_path).classes
    assert names == sorted(set(names))
    assert (len(names), names[0], names[99]) == (100, "apple", "worm")


def test_missing_batches_are_named_in_a_warning(tmp_path, write_cifar):
    for number in (1, 4):
        write_cifar(tmp_path / f"data_batch_{number}.bin", 3)
    missing = r"data_batch_2\.bin, data_batch_3\.bin, data_batch_5\.bin missing in"
    message = f"CIFAR10 is incomplete: {missing} .*; download=True fetches them"
    with pytest.warns(UserWarning, match=message) as caught:
        dataset = CIFAR10(tmp_path)
    assert caught[0].filename == __file__
    assert len(dataset) == 6


@pytest.mark.parametrize(
    ("cls", "train", "names"),
    [
        (CIFAR10, True, r"data_batch_1\.bin, .*, data_batch_5\.bin"),
        (CIFAR10, False, r"test_batch\.bin"),
        (CIFAR100, True, r"train\.bin"),
        (CIFAR100, False, r"test\.bin"),
    ],
)
def test_nothing_there_is_an_error_with_the_remedy(tmp_path, cls, train, names):
    with pytest.raises(
        FileNotFoundError,
        match=rf"{cls.__name__} needs {names} in {tmp_path} or in {tmp_path / cls.folder}, "
        "and they are in neither; download=True fetches them",
    ):
        cls(tmp_path, train=train)


def test_a_damaged_batch_is_corrupt_and_named(tmp_path, write_cifar):
    write(tmp_path, CIFAR10, write_cifar)
    path = tmp_path / "data_batch_3.bin"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CorruptSample, match="expected whole records") as caught:
        CIFAR10(tmp_path)
    assert caught.value.path == path


def packed(mirror, cls, write_cifar):
    """A mirror of the publisher's archive: the subclass that fetches from it."""
    write(mirror.folder / cls.folder, cls, write_cifar)
    (mirror.folder / cls.folder / "readme.html").write_text("left where it is")
    archive = mirror.folder / cls.archive
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(mirror.folder / cls.folder, arcname=cls.folder)

    class Mirrored(cls):
        base_url = mirror.url
        md5 = hashlib.md5(archive.read_bytes()).hexdigest()

    return Mirrored


@pytest.mark.parametrize("cls", [CIFAR10, CIFAR100])
def test_download_unpacks_both_parts_from_one_archive(tmp_path, write_cifar, mirror, cls):
    mirrored, root = packed(mirror, cls, write_cifar), tmp_path / "new" / "root"
    for train in (True, False, True):
        fetched, reference = mirrored(root, train=train, download=True), cls(mirror.folder, train=train)
        for ours, theirs in zip(fetched.tensors, reference.tensors, strict=True):
            assert np.array_equal(ours, theirs)
    assert mirror.paths == [f"/{cls.archive}"]
    assert sorted(path.name for path in root.iterdir()) == sorted([cls.archive, cls.folder])
    assert sorted(path.name for path in (root / cls.folder).iterdir()) == sorted(cls.train_files + cls.test_files)


def test_download_fetches_nothing_for_a_part_that_is_there(tmp_path, write_cifar, mirror):
    mirrored = packed(mirror, CIFAR10, write_cifar)
    write_cifar(tmp_path / "root" / "test_batch.bin", 2)
    assert len(mirrored(tmp_path / "root", train=False, download=True)) == 2
    assert mirror.paths == []


def test_download_completes_what_is_incomplete(tmp_path, write_cifar, mirror):
    mirrored = packed(mirror, CIFAR10, write_cifar)
    write_cifar(tmp_path / "root" / CIFAR10.folder / "data_batch_2.bin", 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(mirrored(tmp_path / "root", download=True)) == 10


def test_an_archive_with_another_checksum_is_refused(tmp_path, write_cifar, mirror):
    mirrored = packed(mirror, CIFAR10, write_cifar)
    mirrored.md5 = CIFAR10.md5
    with pytest.raises(FeedlineError, match="expected md5 c32a1d4ab5d03f1284b67883e8d87530, got "):
        mirrored(tmp_path / "root", download=True)
    assert list((tmp_path / "root").iterdir()) == []
