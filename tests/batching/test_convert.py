"""Laws of samples that are not batched: only NumPy scalars change, and containers are new."""

import dataclasses
from collections import OrderedDict, UserDict, defaultdict
from typing import NamedTuple

import numpy as np
import pytest

from feedline.batching import default_convert


class Point(NamedTuple):
    x: object
    y: object


@dataclasses.dataclass(frozen=True)
class Record:
    image: object
    label: object


@pytest.mark.parametrize("leaf", [np.arange(3), 1, 2.5, True, "text", b"text", None, {1}, object()])
def test_default_convert_leaves_values_as_they_are(leaf):
    assert default_convert(leaf) is leaf
    assert default_convert({"x": (leaf,)})["x"][0] is leaf


@pytest.mark.parametrize("scalar", [np.float32(1.5), np.int64(2), np.bool_(True), np.datetime64("2020-01-01")])
def test_default_convert_makes_numpy_scalars_arrays(scalar):
    array = default_convert(scalar)
    assert type(array) is np.ndarray
    assert (array.shape, array.dtype, array[()]) == ((), scalar.dtype, scalar)


@pytest.mark.parametrize(
    "sample",
    [(1, 2), [1, 2], {"a": 1}, OrderedDict(a=1), defaultdict(list, a=1), Point(1, 2), Record(1, 2), UserDict(a=1)],
)
def test_default_convert_rebuilds_containers_by_their_type(sample):
    converted = default_convert(sample)
    assert type(converted) is type(sample)
    assert converted == sample
    assert converted is not sample
