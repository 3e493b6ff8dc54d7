"""Laws of what does not stack: refused by the place in the sample and the index in the batch."""

import dataclasses
import pickle
import sys
from typing import NamedTuple

import numpy as np
import pytest

from feedline.batching import default_collate
from feedline.errors import CollateError, FeedlineError


class Point(NamedTuple):
    x: object
    y: object


class Other(NamedTuple):
    x: object
    z: object


class Turned(NamedTuple):
    y: object
    x: object


@dataclasses.dataclass(frozen=True)
class Record:
    image: object
    label: object


@dataclasses.dataclass(frozen=True)
class Named(Record):
    name: object = "?"


def test_an_error_of_shapes_says_where():
    samples = [{"image": np.zeros((3, 224, 224), np.uint8)}] * 18 + [{"image": np.zeros((1, 224, 224), np.uint8)}]
    with pytest.raises(CollateError) as caught:
        default_collate(samples)
    assert str(caught.value) == (
        "cannot stack sample['image']: shapes (3, 224, 224) at index 17 and (1, 224, 224) at index 18; "
        "use pad_collate or resize"
    )
    assert caught.value.position == 18
    assert isinstance(caught.value, FeedlineError | ValueError | RuntimeError)


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ([np.zeros(2), np.zeros(3)], r"sample: shapes \(2,\) at index 0 and \(3,\) at index 1"),
        ([np.zeros(2), 1.0], r"sample: shapes \(2,\) at index 0 and \(\) at index 1"),
        ([1, np.zeros(2)], r"sample: shapes \(\) at index 0 and \(2,\) at index 1"),
        (
            [{"a": [Point(1, Record(np.zeros(1), 0))]}, {"a": [Point(1, Record(np.zeros(2), 0))]}],
            r"sample\['a'\]\[0\]\.y\.image: shapes \(1,\) at index 0 and \(2,\)",
        ),
        ([np.zeros(1), None], "sample: ndarray of float64 at index 0 and NoneType at index 1; make them alike"),
        ([np.zeros(1), [0.0]], "ndarray of float64 at index 0 and list at index 1"),
        ([1, "a"], "sample: number of int64 at index 0 and str at index 1"),
        (["a", 1], "sample: str at index 0 and int at index 1"),
        (["a", b"a"], "sample: str at index 0 and bytes at index 1"),
        ([np.array(["a"]), np.array([1])], "ndarray of <U1 at index 0 and ndarray of int64 at index 1"),
        ([np.array(["a"]), np.array([b"a"])], r"ndarray of <U1 at index 0 and ndarray of \|S1 at index 1"),
        ([np.array([1]), np.array([1], "m8[s]")], r"ndarray of int64 at index 0 and ndarray of timedelta64\[s\]"),
        ([np.array([1]), np.array([None])], "ndarray of int64 at index 0 and ndarray of object at index 1"),
        ([(1, 2), (1,)], "sample: 2 elements at index 0 and 1 at index 1; use pad_collate or make them arrays"),
        ([[[1]], [[1, 2]]], r"sample\[0\]: 1 elements at index 0 and 2 at index 1"),
        ([(1,), [1]], "sample: tuple at index 0 and list at index 1"),
        ([(1, 2), Point(1, 2)], "sample: tuple at index 0 and Point at index 1"),
        ([{"a": 1}, 1], "sample: dict at index 0 and int at index 1"),
        ([{"a": 1}, {"a": 1, "b": 1}], "sample: index 1 is with 'b', unlike index 0; give all samples the same"),
        ([{"a": 1, "b": 1}, {"a": 1}], "sample: index 1 is without 'b', unlike index 0"),
        ([Point(1, 2), Other(1, 2)], "sample: index 1 is without 'y' and with 'z', unlike index 0"),
        ([Point(1, 2), Turned(1, 2)], "sample: Point at index 0 and Turned at index 1"),
        ([Record(1, 2), Named(1, 2)], "sample: index 1 is with 'name', unlike index 0"),
        ([Record(1, 2), Point(1, 2)], "sample: Record at index 0 and Point at index 1"),
        ([Named(1, 2), Record(1, 2)], "sample: Named at index 0 and Record at index 1"),
    ],
)
def test_samples_that_do_not_stack_are_refused_by_place_and_index(samples, message):
    with pytest.raises(CollateError, match=f"cannot stack .*{message}") as caught:
        default_collate(samples)
    assert caught.value.position == 1


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        (None, r"cannot collate sample of type NoneType at index 0: samples hold .* or register_collate\(NoneType"),
        ({"x": {1}}, r"cannot collate sample\['x'\] of type set at index 0"),
        ((object(),), r"cannot collate sample\[0\] of type object at index 0: .* give collate_fn="),
        (np.array([None]), "cannot collate sample of type ndarray at index 0 and dtype object"),
        (memoryview(b"x"), "cannot collate sample of type memoryview"),
    ],
)
def test_values_of_which_no_batch_is_made_are_refused_with_the_remedy(sample, message):
    with pytest.raises(TypeError, match=message):
        default_collate([sample, sample])


def test_a_collate_error_survives_pickling():
    error = pickle.loads(pickle.dumps(CollateError("message", 7)))
    assert type(error) is CollateError
    assert (str(error), error.position) == ("message", 7)
    assert CollateError("message").position is None


def test_a_structure_that_holds_itself_ends_in_a_recursion_error():
    endless = []
    endless.append(endless)
    limit = sys.getrecursionlimit()
    with pytest.raises(RecursionError):
        default_collate([endless])
    assert sys.getrecursionlimit() == limit
