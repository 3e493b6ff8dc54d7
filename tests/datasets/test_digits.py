from __future__ import annotations

import hashlib
from importlib.resources import files

import numpy as np

from feedline.datasets.digits import Digits
from feedline.datasets.tensor import TensorDataset


def test_the_digits_are_those_of_the_repository():
    """The digests are of the values in scikit-learn's copy of the same test set."""
    images, labels = Digits().tensors
    assert (images.shape, images.dtype, images.max()) == ((1797, 8, 8), np.uint8, 16)
    assert (labels.shape, labels.dtype) == ((1797,), np.int64)
    pixels, classes = (hashlib.sha256(array.astype(np.uint8).tobytes()) for array in (images, labels))
    assert pixels.hexdigest() == "8f26b2bd9d135c256808f68f14fdabddde6d9c7f869ae419704b051f0f14b3b3"
    assert classes.hexdigest() == "8ba4f891220f5e4c9c819638d1602d74b83618f167043c6da52a2a247841ddf0"
    assert np.bincount(labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def test_they_are_a_tensor_dataset_with_classes():
    digits = Digits()
    assert isinstance(digits, TensorDataset)
    assert digits.classes == ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]
    image, label = digits[3]
    assert (image.shape, label, digits.classes[label]) == ((8, 8), 3, "3")


def test_each_is_its_own():
    one, other = Digits(), Digits()
    one.tensors[0][:] = 0
    assert other.tensors[0].any()


def test_the_attribution_is_shipped_with_them():
    text = files("feedline.datasets").joinpath("data", "digits", "README.md").read_text("utf-8")
    for part in ("E. Alpaydin, C. Kaynak", "10.24432/C50P49", "CC BY 4.0"):
        assert part in text
