from __future__ import annotations

import pytest

from feedline.datasets.cifar import CIFAR10
from feedline.datasets.folders import recognise
from feedline.datasets.image_files import ImageFolder
from feedline.datasets.mnist import MNIST, FashionMNIST
from feedline.errors import CorruptSample, FeedlineError


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("folder", [".", "MNIST/raw"])
def test_mnist(tmp_path, write_mnist, compress, folder):
    write_mnist(tmp_path / folder, "train", 5, compress=compress)
    write_mnist(tmp_path / folder, "t10k", 3, compress=compress)
    found = recognise(tmp_path)
    assert (found.name, type(found.train), type(found.test)) == ("MNIST", MNIST, MNIST)
    assert (len(found.train), len(found.test), found.classes[1]) == (5, 3, "1 - one")


def test_fashion_mnist_is_told_by_its_folder(tmp_path, write_mnist):
    write_mnist(tmp_path / "FashionMNIST" / "raw", "train", 5)
    found = recognise(str(tmp_path))
    assert (found.name, type(found.train), found.test) == ("Fashion-MNIST", FashionMNIST, None)


@pytest.mark.parametrize("folder", ["fashion-mnist", "Fashion/raw"])
def test_flat_files_under_a_folder_of_that_name_are_fashion_mnist(tmp_path, write_mnist, folder):
    write_mnist(tmp_path / "plain", "t10k", 5)
    write_mnist(tmp_path / folder, "t10k", 5)
    found = recognise(tmp_path / folder)
    assert (found.name, type(found.train), found.classes[9]) == ("Fashion-MNIST", FashionMNIST, "Ankle boot")
    assert recognise(tmp_path / "plain").name == "MNIST"


def test_mnist_by_its_folder_is_mnist_wherever_it_lies(tmp_path, write_mnist):
    write_mnist(tmp_path / "fashion" / "MNIST" / "raw", "t10k", 5)
    assert recognise(tmp_path / "fashion").name == "MNIST"


def test_the_test_part_alone_is_trained_on(tmp_path, write_mnist):
    images, _ = write_mnist(tmp_path, "t10k", 3)
    found = recognise(tmp_path)
    assert (found.train.tensors[0] == images).all()
    assert found.test is None


def test_images_without_labels_are_an_error_not_another_collection(tmp_path, write_mnist):
    write_mnist(tmp_path, "t10k", 3)
    write_mnist(tmp_path, "train", 5)
    (tmp_path / "train-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(FileNotFoundError, match="MNIST needs train-labels-idx1-ubyte"):
        recognise(tmp_path)


@pytest.mark.parametrize("folder", [".", "cifar-10-batches-bin"])
def test_cifar_10(tmp_path, write_cifar, folder):
    for name in (*CIFAR10.train_files, *CIFAR10.test_files):
        write_cifar(tmp_path / folder / name, 2)
    found = recognise(tmp_path)
    assert (found.name, type(found.train), len(found.train), len(found.test)) == ("CIFAR-10", CIFAR10, 10, 2)
    assert found.classes[0] == "airplane"


def test_some_batches_of_cifar_10_are_enough_for_a_warning(tmp_path, write_cifar):
    write_cifar(tmp_path / "data_batch_2.bin", 2)
    with pytest.warns(UserWarning, match=r"CIFAR10 is incomplete: data_batch_1\.bin, data_batch_3\.bin"):
        found = recognise(tmp_path)
    assert (len(found.train), found.test) == (2, None)


def test_the_test_batch_of_cifar_10_alone_is_trained_on(tmp_path, write_cifar):
    write_cifar(tmp_path / "test_batch.bin", 2)
    found = recognise(tmp_path)
    assert (found.name, len(found.train), found.test) == ("CIFAR-10", 2, None)


def test_a_folder_for_each_class(tmp_path, write_image):
    write_image(tmp_path / "pets" / "cat" / "a.png")
    write_image(tmp_path / "pets" / "dog" / "a.png")
    found = recognise(tmp_path / "pets")
    assert (found.name, type(found.train), found.test, found.classes) == (
        "pets",
        ImageFolder,
        None,
        ["cat", "dog"],
    )


@pytest.mark.parametrize("test", ["test", "val", "valid", "validation"])
def test_a_folder_for_each_class_in_train_and_test(tmp_path, write_image, test):
    for part in ("train", test):
        write_image(tmp_path / part / "cat" / "a.png")
        write_image(tmp_path / part / "dog" / "a.png")
    write_image(tmp_path / test / "dog" / "b.png")
    found = recognise(tmp_path)
    assert (len(found.train), len(found.test), found.classes) == (2, 3, ["cat", "dog"])


def test_train_without_test_is_a_whole(tmp_path, write_image):
    write_image(tmp_path / "train" / "cat" / "a.png")
    found = recognise(tmp_path)
    assert (len(found.train), found.test, found.classes) == (1, None, ["cat"])


def test_train_may_be_the_name_of_a_class(tmp_path, write_image):
    write_image(tmp_path / "train" / "a.png")
    write_image(tmp_path / "tram" / "a.png")
    assert recognise(tmp_path).classes == ["train", "tram"]


def test_train_and_test_have_the_same_classes(tmp_path, write_image):
    write_image(tmp_path / "train" / "cat" / "a.png")
    write_image(tmp_path / "test" / "dog" / "a.png")
    message = r"train and test must have the same class folders, got \['cat'\] and \['dog'\]"
    with pytest.raises(FeedlineError, match=message):
        recognise(tmp_path)


def test_what_is_not_recognised_lists_what_was_looked_for(tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("nothing")
    with pytest.raises(
        FeedlineError,
        match=r"not recognised\. Looked for MNIST .*train-images-idx3-ubyte.*"
        "CIFAR-10 .*data_batch_1.*a folder of images",
    ):
        recognise(tmp_path)


def test_a_damaged_collection_is_recognised_and_corrupt(tmp_path, write_cifar):
    write_cifar(tmp_path / "test_batch.bin", 2)
    (tmp_path / "test_batch.bin").write_bytes(b"short")
    with pytest.raises(CorruptSample, match="test_batch"):
        recognise(tmp_path)


def test_no_such_folder_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"{tmp_path / 'none'} is no folder"):
        recognise(tmp_path / "none")
