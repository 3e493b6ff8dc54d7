import numpy as np
import pytest

from feedline import FeedlineError, TensorDataset
from feedline.demo.problem import Problem, ToFeatures, digits, in_folder


def dataset(count, shape=(2, 2)):
    return TensorDataset(np.zeros((count, *shape), np.uint8), np.zeros(count, np.int64))


def test_digits_are_split_by_the_seed_into_all_of_them():
    one, again, other = digits(1), digits(1), digits(2)
    assert one.train.indices.tolist() == again.train.indices.tolist() != other.train.indices.tolist()
    assert sorted([*one.train.indices, *one.validation.indices]) == list(range(1797))
    assert (len(one.validation), one.image_shape, one.classes) == (359, (8, 8), 10)


@pytest.mark.parametrize("compress", [False, True])
def test_both_parts_of_mnist_are_kept_apart(tmp_path, write_mnist, compress):
    write_mnist(tmp_path, "train", 30, compress=compress)
    write_mnist(tmp_path, "t10k", 10, compress=compress)
    problem = in_folder(tmp_path, seed=0)
    assert (problem.name, len(problem.train), len(problem.validation)) == ("MNIST", 30, 10)
    assert (problem.image_shape, problem.classes) == ((28, 28), 10)


def test_a_part_alone_is_split(tmp_path, write_mnist):
    write_mnist(tmp_path, "t10k", 10)
    problem = in_folder(tmp_path, seed=0)
    assert (problem.name, len(problem.train), len(problem.validation)) == ("MNIST", 8, 2)


def test_an_empty_part_to_check_with_counts_as_none(tmp_path, write_mnist):
    write_mnist(tmp_path, "train", 10)
    write_mnist(tmp_path, "t10k", 0)
    problem = in_folder(tmp_path, seed=0)
    assert (len(problem.train), len(problem.validation)) == (8, 2)


def test_fashion_mnist(tmp_path, write_mnist):
    folder = tmp_path / "FashionMNIST" / "raw"
    folder.mkdir(parents=True)
    write_mnist(folder, "train", 10)
    assert in_folder(tmp_path, seed=0).name == "Fashion-MNIST"


def test_cifar_10(tmp_path, write_cifar):
    for number in range(1, 6):
        write_cifar(tmp_path / f"data_batch_{number}.bin", 4)
    write_cifar(tmp_path / "test_batch.bin", 10)
    problem = in_folder(tmp_path, seed=0)
    assert (problem.name, len(problem.train), len(problem.validation)) == ("CIFAR-10", 20, 10)
    assert (problem.image_shape, problem.classes) == ((32, 32, 3), 10)


def test_images_of_a_tree_are_of_one_size_whatever_their_files(tmp_path, write_tree):
    write_tree(tmp_path / "pets", 10)
    problem = in_folder(tmp_path / "pets", seed=0)
    assert (problem.name, len(problem.train), len(problem.validation), problem.classes) == ("pets", 16, 4, 2)
    assert {image.shape for part in (problem.train, problem.validation) for image, _ in part} == {(32, 32, 3)}


def test_a_tree_with_its_own_part_to_check_with(tmp_path, write_tree):
    write_tree(tmp_path / "train", 4)
    write_tree(tmp_path / "val", 3)
    problem = in_folder(tmp_path, seed=0)
    assert (len(problem.train), len(problem.validation)) == (8, 6)
    assert problem.validation[0][0].shape == (32, 32, 3)


def test_image_files_are_read_once(tmp_path, write_tree):
    write_tree(tmp_path, 2)
    problem = in_folder(tmp_path, seed=0)
    before = [image.tolist() for image, _ in problem.train]
    for path in tmp_path.rglob("*.png"):
        path.unlink()
    assert [image.tolist() for image, _ in problem.train] == before


def test_two_images_are_the_least(tmp_path, write_mnist):
    write_mnist(tmp_path, "train", 2)
    problem = in_folder(tmp_path, seed=0)
    assert (len(problem.train), len(problem.validation)) == (1, 1)


def test_one_image_is_too_few(tmp_path, write_mnist):
    write_mnist(tmp_path, "train", 1)
    with pytest.raises(FeedlineError, match=r"^MNIST: at least two images are needed, .* got 1$"):
        in_folder(tmp_path, seed=0)


def test_one_class_is_too_few(tmp_path, write_tree):
    write_tree(tmp_path / "pets", 3, classes=["cat"])
    with pytest.raises(FeedlineError, match=r"^pets has one class: .* at least two are needed$"):
        in_folder(tmp_path / "pets", seed=0)


def test_there_must_be_images_to_learn_from(tmp_path, write_mnist):
    write_mnist(tmp_path, "train", 0)
    write_mnist(tmp_path, "t10k", 5)
    with pytest.raises(FeedlineError, match=r"^MNIST has no images to learn from$"):
        in_folder(tmp_path, seed=0)


@pytest.mark.parametrize(("train", "validation"), [((2, 3), (3, 2)), ((0, 0), (0, 0))])
def test_images_must_have_one_shape_with_pixels_in_it(train, validation):
    with pytest.raises(FeedlineError) as caught:
        Problem("shapes", dataset(2, train), dataset(2, validation), classes=2)
    assert f"must have pixels, and the same shape to learn from and to check with; got {train} and" in str(caught.value)


def test_features_are_a_row_for_each_image_and_leave_the_images_alone():
    images = np.arange(2 * 3 * 4 * 3, dtype=np.uint8).reshape(2, 3, 4, 3)
    before, labels = images.copy(), np.array([1, 0])
    features, same_labels = ToFeatures(brightest=71)((images, labels))
    assert (features.shape, features.dtype) == ((2, 36), np.float32)
    assert (features[0, 0], features[-1, -1]) == (-0.5, 0.5)
    assert features.ravel() == pytest.approx(np.arange(72) / 71 - 0.5, abs=1e-6)
    assert same_labels is labels
    assert (images == before).all()
