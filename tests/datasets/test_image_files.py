from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from feedline.datasets import PackedList
from feedline.datasets.image_files import ImageFiles, ImageFolder, image_paths
from feedline.errors import CorruptSample


def test_samples_are_images_or_images_with_labels(tmp_path, write_image):
    paths = [write_image(tmp_path / f"{level}.png", level) for level in (10, 20, 30)]
    alone, labelled = ImageFiles(paths), ImageFiles([str(path) for path in paths], ["x", "y", "z"])
    assert len(alone) == len(labelled) == 3
    assert (alone[1].shape, alone[1].dtype, alone[1].max()) == ((3, 4, 3), np.uint8, 20)
    image, label = labelled[np.int64(-1)]
    assert (image[0, 0, 0], label) == (30, "z")
    assert [label for _, label in labelled] == ["x", "y", "z"]


def test_labels_may_be_an_array(tmp_path, write_image):
    dataset = ImageFiles([write_image(tmp_path / "a.png")], np.array([7]))
    assert dataset[0][1] == 7


def test_they_promise_threads_and_no_global_randomness():
    assert ImageFiles.thread_safe
    assert not ImageFiles.uses_global_rng


def test_the_list_of_paths_is_its_own(tmp_path, write_image):
    paths = [write_image(tmp_path / "a.png")]
    dataset = ImageFiles(paths)
    paths.clear()
    assert len(dataset) == 1


@pytest.mark.parametrize("index", [2, -3])
def test_an_index_outside_is_an_indexerror(index):
    with pytest.raises(IndexError, match=f"Index {index} out of range for dataset of size 2"):
        ImageFiles(["a", "b"])[index]


def test_labels_are_as_many_as_paths():
    with pytest.raises(ValueError, match="labels must be as many as paths, got 3 labels for 2 paths"):
        ImageFiles(["a", "b"], [1, 2, 3])


@pytest.mark.parametrize("path", ["a.png", Path("a.png"), b"a.png"])
def test_a_single_path_is_no_list_of_paths(path):
    with pytest.raises(TypeError, match=r"paths must be a sequence of paths, got the single path .*a\.png"):
        ImageFiles(path)


def test_a_damaged_file_is_named(tmp_path, write_image):
    path = write_image(tmp_path / "a.png")
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(CorruptSample, match=r"a\.png"):
        ImageFiles([path])[0]


def test_a_folder_for_each_class_sorted(tmp_path, write_image):
    levels = {"dog/2.png": 3, "cat/b.JPG": 2, "cat/a.png": 1, "dog/deep/1.webp": 4, "Emu/x.Tiff": 5}
    for name, level in levels.items():
        write_image(tmp_path / name, level)
    dataset = ImageFolder(tmp_path)
    assert dataset.classes == ["Emu", "cat", "dog"]
    assert dataset.class_to_idx == {"Emu": 0, "cat": 1, "dog": 2}
    assert dataset.targets == [0, 1, 1, 2, 2]
    names = ["Emu/x.Tiff", "cat/a.png", "cat/b.JPG", "dog/2.png", "dog/deep/1.webp"]
    assert dataset.samples == [
        (str(tmp_path / name), label) for name, label in zip(names, dataset.targets, strict=True)
    ]
    assert [int(image[0, 0, 0]) for image, _ in dataset] == [5, 1, 2, 3, 4]
    assert [label for _, label in dataset] == dataset.targets
    assert isinstance(dataset, ImageFiles)


def test_hidden_and_other_files_are_left_out(tmp_path, write_image):
    write_image(tmp_path / "cat" / "a.png")
    write_image(tmp_path / "cat" / ".a.png")
    write_image(tmp_path / "cat" / ".thumbnails" / "a.png")
    write_image(tmp_path / ".git" / "a.png")
    write_image(tmp_path / "stray.png")
    (tmp_path / "cat" / "notes.txt").write_text("no image")
    dataset = ImageFolder(tmp_path)
    assert dataset.samples == [(str(tmp_path / "cat" / "a.png"), 0)]


def test_links_are_followed_and_do_not_go_round_in_circles(tmp_path, write_image):
    write_image(tmp_path / "elsewhere" / "a.png")
    root = tmp_path / "root"
    (root / "cat").mkdir(parents=True)
    (root / "cat" / "link").symlink_to(tmp_path / "elsewhere")
    (root / "cat" / "round").symlink_to(root / "cat")
    (root / "dog").symlink_to(tmp_path / "elsewhere")
    assert ImageFolder(root).samples == [
        (str(root / "cat" / "link" / "a.png"), 0),
        (str(root / "dog" / "a.png"), 1),
    ]


def test_an_empty_class_folder_is_named(tmp_path, write_image):
    write_image(tmp_path / "cat" / "a.png")
    (tmp_path / "cow").mkdir()
    (tmp_path / "dog").mkdir()
    with pytest.raises(
        FileNotFoundError,
        match=rf"finds no images in the class folders cow, dog of {tmp_path}; "
        r"the extensions it knows are \.jpg, ",
    ):
        ImageFolder(tmp_path)


def test_no_class_folder_is_an_error(tmp_path, write_image):
    write_image(tmp_path / "a.png")
    message = f"needs a folder for each class in {tmp_path}, and finds none"
    with pytest.raises(FileNotFoundError, match=message):
        ImageFolder(tmp_path)


def test_no_such_folder_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="none"):
        ImageFolder(tmp_path / "none")


def test_a_folder_that_cannot_be_walked_is_not_passed_over(tmp_path):
    with pytest.raises(NotADirectoryError):
        image_paths(Path(__file__))


def test_paths_are_packed_and_equal_the_list_that_was_given(tmp_path):
    names = ["a.png", Path("b.png")]
    dataset = ImageFiles(names)
    assert isinstance(dataset.paths, PackedList)
    assert dataset.paths == names


def test_samples_read_as_the_list_of_pairs(tmp_path, write_image):
    for name in "cat/a.png", "cat/b.png", "dog/a.png", "dog/b.png", "dog/c.png":
        write_image(tmp_path / name)
    dataset = ImageFolder(tmp_path)
    pairs = list(zip(dataset.paths, dataset.targets, strict=True))
    samples = dataset.samples
    assert (samples, len(samples), samples[-1], list(samples)) == (pairs, 5, pairs[-1], pairs)
    assert samples[1:3] == pairs[1:3] != pairs[1:]
    assert samples != {"a": 1}
    assert repr(samples[:2]) == repr(pairs[:2])
    assert repr(samples).endswith(", ...; 5 in all]")
    assert pickle.loads(pickle.dumps(dataset)).samples == pairs
