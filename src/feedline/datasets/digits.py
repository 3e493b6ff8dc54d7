"""The handwritten digits that come with the package: real images to try things on, without a download.

Guarantee: nothing is fetched or written; each instance has arrays of its own.
"""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np

from feedline.datasets.tensor import TensorDataset
from feedline.formats.idx import parse_idx

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Digits"]


class Digits(TensorDataset):
    """1,797 images of handwritten digits, 8 x 8 pixels, each with its digit.

    Samples are ``(image, label)``: uint8 of shape (8, 8), values 0 to 16, and int64. ``tensors`` are the
    images, (1797, 8, 8), and the labels, (1797,). ``classes`` are the names of the labels. About 180 of each
    digit.

    Source: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning
    Repository, 1998, https://doi.org/10.24432/C50P49, licensed under CC BY 4.0.

    Example:
        >>> digits = Digits()
        >>> image, label = digits[0]
        >>> len(digits), image.shape, label
        (1797, (8, 8), np.int64(0))
    """

    def __init__(self) -> None:
        super().__init__(_array("images-idx3-ubyte.gz"), _array("labels-idx1-ubyte.gz").astype(np.int64))
        self.classes = [str(digit) for digit in range(10)]


def _array(name: str) -> NDArray[Any]:
    file = files("feedline.datasets").joinpath("data", "digits", name)
    return parse_idx(file.read_bytes(), path=str(file))
