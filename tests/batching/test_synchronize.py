"""Laws of streams of different rates in one batch."""

from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedline.batching import synchronize_collate
from feedline.batching.alignment import align
from feedline.errors import CollateError

SORTED = st.lists(st.integers(0, 20), max_size=6).map(lambda times: np.array(sorted(times), dtype=float))


def drive(rate_hz=4.0, duration_s=2.0):
    """A camera at 1 Hz and a speed at another rate, which is three times the time."""
    camera, speed = np.arange(0, duration_s), np.arange(0, duration_s, 1 / rate_hz)
    return {"camera": (camera, np.arange(len(camera) * 4).reshape(-1, 2, 2)), "speed": (speed, 3 * speed)}


@given(
    st.lists(st.tuples(SORTED, SORTED), min_size=1, max_size=4),
    st.sampled_from(["nearest", "previous", "linear"]),
    st.sampled_from([None, 0.0, 1.5]),
)
def test_each_row_is_its_sample_aligned_and_padded(samples, method, tolerance_s):
    batch = [{"a": (a, np.arange(len(a))), "b": (b, np.arange(2.0 * len(b)).reshape(-1, 2))} for a, b in samples]
    result = synchronize_collate(batch, reference="a", method=method, tolerance_s=tolerance_s)
    width = max(len(a) for a, _ in samples)
    assert result.timestamps.shape == result.valid["a"].shape == result.valid["b"].shape == (len(batch), width)
    assert result.streams["a"].dtype == np.int64
    for i, (a, b) in enumerate(samples):
        n = len(a)
        assert result.timestamps[i, :n].tolist() == a.tolist()
        assert np.isnan(result.timestamps[i, n:]).all()
        assert result.valid["a"][i].tolist() == [True] * n + [False] * (width - n)
        assert result.streams["a"][i, :n].tolist() == list(range(n))
        source = align(b, a, method, np.inf if tolerance_s is None else tolerance_s)
        assert result.valid["b"][i, :n].tolist() == source.valid.tolist()
        assert not result.valid["b"][i, n:].any()
        expected = np.full((n, 2), np.nan)
        source.write(batch[i]["b"][1], expected)
        if any(len(b) for _, b in samples):
            assert np.array_equal(result.streams["b"][i, :n], expected, equal_nan=True)
            assert np.isnan(result.streams["b"][i, n:]).all()


def test_streams_come_to_the_times_of_the_reference():
    result = synchronize_collate([drive(), drive(8.0, 3.0)], reference="camera", method="linear")
    assert result.streams["camera"].shape == (2, 3, 2, 2)
    assert np.array_equal(result.streams["speed"], [[0, 3, np.nan], [0, 3, 6]], equal_nan=True)
    assert result.valid["speed"].tolist() == [[True, True, False], [True, True, True]]


def test_times_may_be_given():
    collate_fn = partial(synchronize_collate, reference=[0.5, 1.0], method="previous")
    result = collate_fn([drive(), drive(8.0)])
    assert result.timestamps.tolist() == [[0.5, 1.0]] * 2
    assert result.streams["speed"].tolist() == [[1.5, 3.0]] * 2
    assert result.streams["camera"][0, :, 0, 0].tolist() == [0, 4]


def test_method_and_tolerance_may_be_given_by_stream():
    samples = [{"t": ([0.0, 1.0], [0, 1]), "a": ([0.4], [1.0]), "b": ([0.0, 4.0], [0.0, 8.0])}]
    result = synchronize_collate(
        samples,
        reference="t",
        method={"a": "nearest", "b": "linear"},
        tolerance_s={"a": 0.5, "b": 3.0, "t": 0.0},
    )
    assert result.valid["a"].tolist() == [[True, False]]
    assert result.streams["b"].tolist() == [[0.0, 2.0]]


@pytest.mark.parametrize(
    ("values", "method", "dtype", "missing"),
    [
        (np.array([5], np.uint8), "nearest", np.uint8, 0),
        (np.array([True]), "previous", np.bool_, False),
        (np.array([1.5], np.float32), "nearest", np.float32, np.nan),
        (np.array([1.5], np.float32), "linear", np.float32, np.nan),
        (np.array([5], np.uint8), "linear", np.float64, np.nan),
        (np.array([1j], np.complex64), "linear", np.complex64, complex("nan+0j")),
        (np.array(["text"]), "previous", "<U4", ""),
        (np.array(["2020-01-01"], "M8[D]"), "nearest", "M8[D]", np.datetime64("NaT")),
    ],
)
def test_what_is_missing_is_nan_nat_or_zero_and_marked(values, method, dtype, missing):
    result = synchronize_collate([{"x": ([1.0], values)}], reference=[1.0, 9.0], method=method, tolerance_s=0.5)
    assert result.streams["x"].dtype == dtype
    assert result.valid["x"].tolist() == [[True, False]]
    assert result.streams["x"][0, 0] == values[0]
    found = result.streams["x"][0, 1]
    assert found == missing or (missing != missing and found != found)


def test_an_empty_stream_is_valid_nowhere_and_tells_no_shape():
    full = {"t": ([0.0], [1]), "x": ([0.0], np.ones((1, 3), np.float32))}
    empty = {"t": ([0.0], [1]), "x": ([], [])}
    for batch in ([full, empty], [empty, full]):
        result = synchronize_collate(batch, reference="t", method="linear")
        assert result.streams["x"].shape == (2, 1, 3)
        assert result.streams["x"].dtype == np.float32
        assert result.valid["x"].sum() == 1
    result = synchronize_collate([empty], reference="t")
    assert result.streams["x"].shape == (1, 1)
    assert not result.valid["x"].any()


def test_dtypes_of_samples_are_promoted():
    batch = [{"x": ([0.0], np.array([1], dtype))} for dtype in (np.int8, np.float32)]
    assert synchronize_collate(batch, reference="x").streams["x"].dtype == np.float32


def test_streams_of_torch_and_jax_come_back_as_such():
    torch, jax = pytest.importorskip("torch"), pytest.importorskip("jax")
    for make, cls in (torch.tensor, torch.Tensor), (jax.numpy.asarray, jax.Array):
        samples = [{"t": ([0.0, 1.0], [0, 1]), "x": (make([0.0, 2.0]), make([0.0, 8.0]))}]
        result = synchronize_collate(samples, reference="t", method="linear")
        assert isinstance(result.streams["x"], cls)
        assert isinstance(result.valid["x"], cls)
        assert result.streams["x"].tolist() == [[0.0, 4.0]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reference": "lidar"}, r"reference must be one of the streams \['camera', 'speed'\], got 'lidar'"),
        ({"reference": [1.0, 0.0]}, r"reference must be .* timestamps in order \(sort the stream\), got 0.0 after 1.0"),
        ({"reference": [[1.0]]}, r"timestamps of shape \(n,\), got \(1, 1\)"),
        ({"reference": [np.nan]}, "timestamps finite, got nan"),
        ({"reference": "camera", "method": "cubic"}, "method must be one of .*'linear'.*, got 'cubic'"),
        (
            {"reference": "camera", "method": {"gps": "linear"}},
            r"method must be given for each of the streams \['speed'\], got \['gps'\]",
        ),
        ({"reference": "camera", "tolerance_s": {}}, r"tolerance_s must be given for each .* \['speed'\], got \[\]"),
        ({"reference": "camera", "tolerance_s": -1}, "tolerance_s must be a number of seconds from 0 up, got -1"),
        ({"reference": "camera", "tolerance_s": np.nan}, "tolerance_s must be a number of seconds from 0 up, got nan"),
        ({"reference": "camera", "tolerance_s": "1"}, "tolerance_s must be a number of seconds from 0 up, got '1'"),
    ],
)
def test_arguments_that_break_their_rule_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        synchronize_collate([drive()], **options)


@pytest.mark.parametrize(
    ("speed", "message"),
    [
        (
            ([0.0, 2.0, 1.0], [1, 2, 3]),
            r"timestamps of sample\['speed'\] must be in order .*, got 1.0 after 2.0 at index 1",
        ),
        (([0.0, np.inf], [1, 2]), r"timestamps of sample\['speed'\] must be finite, got inf at index 1"),
        ((0.0, [1]), r"must be of shape \(n,\), got \(\) at index 1"),
        (([0.0], [1, 2]), r"must have a value for each of its 1 timestamps, got values of shape \(2,\) at index 1"),
        (([0.0], 1), r"sample\['speed'\] must have a value for each .* got values of shape \(\) at index 1"),
        (([0.0], [[1.0, 2.0]]), r"shapes \(8,\) at index 0 and \(1, 2\) at index 1; only first axes may differ"),
        (([0.0], ["a"]), r"sample\['speed'\]: values of float64 at index 0 and values of <U1 at index 1"),
    ],
)
def test_streams_that_do_not_fit_are_refused_by_place_and_index(speed, message):
    with pytest.raises(CollateError, match=message) as caught:
        synchronize_collate([drive(), {**drive(), "speed": speed}], reference="camera")
    assert caught.value.position == 1


def test_samples_must_have_the_same_streams():
    with pytest.raises(CollateError, match="sample: index 1 is without 'speed', unlike index 0"):
        synchronize_collate([drive(), {"camera": ([], [])}], reference="camera")


@pytest.mark.parametrize(
    ("batch", "options", "message"),
    [
        ([([0.0], [1])], {}, r"needs samples \{name: \(timestamps, values\)\}, got tuple at index 0"),
        ([{"x": [0.0]}], {}, r"sample\['x'\] must be a pair \(timestamps, values\), got list at index 0"),
        ([{"x": np.zeros((2, 3))}], {}, "must be a pair .* got ndarray at index 0"),
        ([{"x": ([0.0], [None])}], {}, r"cannot collate sample\['x'\] of type ndarray at index 0 and dtype object"),
        (
            [{"x": ([0.0], ["a"])}],
            {"method": "linear"},
            r"method 'linear' needs numbers, got sample\['x'\] of dtype <U1; use 'nearest'",
        ),
    ],
)
def test_samples_of_another_type_are_refused(batch, options, message):
    with pytest.raises(TypeError, match=message):
        synchronize_collate(batch, reference=[0.0], **options)


def test_an_empty_batch_is_refused():
    with pytest.raises(ValueError, match="cannot collate an empty batch"):
        synchronize_collate([], reference="x")
