import sys

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedline import seeding
from feedline.transforms import RandomResizedCrop, Resize

FLAGS = {
    "nearest": cv2.INTER_NEAREST,
    "bilinear": cv2.INTER_LINEAR,
    "bicubic": cv2.INTER_CUBIC,
    "area": cv2.INTER_AREA,
    "lanczos": cv2.INTER_LANCZOS4,
}
DTYPES = [np.uint8, np.uint16, np.int16, np.float32, np.float64]


def noise(shape, dtype=np.uint8):
    return (np.random.default_rng(7).random(shape) * 255).astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("interpolation", FLAGS)
@pytest.mark.parametrize("shape", [(13, 17), (13, 17, 3), (13, 17, 4)])
def test_resize_is_opencvs(shape, interpolation, dtype):
    image = noise(shape, dtype)
    before = image.copy()
    got = Resize((6, 20), interpolation)(image)
    np.testing.assert_array_equal(got, cv2.resize(before, (20, 6), interpolation=FLAGS[interpolation]))
    assert got.dtype == dtype
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("interpolation", FLAGS)
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7, 130])
def test_layouts_agree_for_any_number_of_channels(channels, interpolation):
    image = noise((9, 11, channels), np.float32)
    last = Resize((5, 14), interpolation, layout="HWC")(image)
    first = Resize((5, 14), interpolation, layout="CHW")(image.transpose(2, 0, 1))
    assert last.shape == (5, 14, channels)
    np.testing.assert_array_equal(first, last.transpose(2, 0, 1))


@given(
    extent=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    layout=st.sampled_from(["HW", "HWC", "CHW"]),
)
def test_result_has_the_size_asked_for(extent, size, layout):
    lengths = {"H": extent[0], "W": extent[1], "C": 3}
    image = np.zeros(tuple(lengths[axis] for axis in layout), np.uint8)
    wanted = {"H": size[0], "W": size[1], "C": 3}
    expected = tuple(wanted[axis] for axis in layout)
    assert Resize(size, layout=layout)(image).shape == expected
    assert RandomResizedCrop(size, layout=layout)(image).shape == expected


@pytest.mark.parametrize(
    ("extent", "result"),
    [((48, 64), (24, 32)), ((64, 48), (32, 24)), ((50, 50), (24, 24)), ((7, 10), (24, 34))],
)
def test_integer_size_is_the_shorter_side(extent, result):
    assert Resize(24)(np.zeros((*extent, 3), np.uint8)).shape[:2] == result


def test_image_of_that_size_already_comes_back_itself():
    image = noise((8, 9, 3))
    assert Resize((8, 9))(image) is image


def test_views_of_any_strides_are_resized():
    image = noise((16, 18, 3))
    np.testing.assert_array_equal(Resize((5, 5))(image[::-1, ::-2]), Resize((5, 5))(image[::-1, ::-2].copy()))


@pytest.mark.parametrize("dtype", [np.bool_, np.int8, np.int64, np.float16, ">f4"])
@pytest.mark.parametrize("make", [Resize, RandomResizedCrop])
def test_dtypes_that_opencv_cannot_resize_are_refused(make, dtype):
    message = r"image must be uint8, uint16, int16, float32 or float64 to be resized, got .*: convert it first"
    with pytest.raises(TypeError, match=message):
        make(4)(np.zeros((8, 8), dtype))


@pytest.mark.parametrize("make", [Resize, RandomResizedCrop])
@pytest.mark.parametrize("interpolation", ["linear", None, 1, []])
def test_interpolation_must_be_known(make, interpolation):
    with pytest.raises(ValueError, match=r'interpolation must be one of "nearest", .* "lanczos", got'):
        make(4, interpolation=interpolation)


@pytest.mark.parametrize("make", [Resize, RandomResizedCrop])
@pytest.mark.parametrize("size", [0, True, 2.0, (4, 0)])
def test_size_must_be_positive_integers(make, size):
    with pytest.raises(ValueError, match=r"size must be a positive integer or a pair \(height, width\) of them"):
        make(size)


@pytest.mark.parametrize("make", [Resize, RandomResizedCrop])
def test_missing_opencv_names_the_extra(make, monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(ImportError, match=r"needs cv2, which is not installed: pip install 'feedline\[image\]'"):
        make(4)(np.zeros((8, 8), np.uint8))


# --------------------------------------------------------------------------------------- random windows


@given(
    height=st.integers(1, 300),
    width=st.integers(1, 300),
    scale=st.tuples(st.floats(0, 1), st.floats(0.01, 1)).map(sorted),
    ratio=st.tuples(st.floats(1e-300, 1e300), st.floats(0.1, 10)).map(sorted),
    seed=st.integers(0, 2**64 - 1),
)
def test_window_lies_within_the_image(height, width, scale, ratio, seed):
    crop = RandomResizedCrop(8, scale=scale, ratio=ratio)
    with seeding.Scope().begin(seed, epoch=0):
        top, left, rows, columns = crop.draw(seeding.words(crop.word_count), height, width)
    assert 0 < rows <= height - top
    assert 0 < columns <= width - left
    assert min(top, left) >= 0


def windows(crop, height, width, count):
    with seeding.Scope().begin(seed=5, epoch=0) as scope:
        for position in range(count):
            scope.enter(position, position)
            yield crop.draw(seeding.words(crop.word_count), height, width)


def test_window_keeps_the_bounds_of_scale_and_ratio():
    """To the rounding of its sides to whole pixels."""
    drawn = np.array(list(windows(RandomResizedCrop(8, scale=(0.2, 0.5), ratio=(0.5, 1.5)), 1000, 800, 2000)))
    rows, columns = drawn[:, 2], drawn[:, 3]
    shares, ratios = rows * columns / (1000 * 800), columns / rows
    assert 0.198 < shares.min() < 0.21
    assert 0.49 < shares.max() < 0.502
    assert 0.495 < ratios.min() < 0.52
    assert 1.45 < ratios.max() < 1.51


def test_area_and_logarithm_of_ratio_are_uniform_and_independent():
    """Kolmogorov's statistic within its 99.99% point, 2.23/√n; the correlation within 4/√n."""
    count = 4000
    drawn = np.array(list(windows(RandomResizedCrop(8, scale=(0.1, 0.4)), 4000, 4000, count)))
    shares = (drawn[:, 2] * drawn[:, 3] / 4000**2 - 0.1) / 0.3
    logs = (np.log(drawn[:, 3] / drawn[:, 2]) / np.log(4 / 3) + 1) / 2
    for values in (shares, logs):
        distance = np.abs(np.sort(values) - (np.arange(count) + 0.5) / count).max()
        assert distance < 2.23 / count**0.5
    assert abs(np.corrcoef(shares, logs)[0, 1]) < 4 / count**0.5


def test_places_reach_both_ends():
    drawn = np.array(list(windows(RandomResizedCrop(8, scale=(0.5, 0.5), ratio=(1, 1)), 10, 12, 500)))
    assert set(drawn[:, 2]) == set(drawn[:, 3]) == {8}
    assert set(drawn[:, 0]) == set(range(3))
    assert set(drawn[:, 1]) == set(range(5))


@pytest.mark.parametrize(
    ("extent", "window"),
    [((10, 100), (0, 43, 10, 13)), ((100, 10), (43, 0, 13, 10)), ((100, 100), (0, 0, 100, 100))],
)
def test_where_nothing_fits_the_largest_window_in_the_middle_is_taken(extent, window):
    """Words at their ends draw the whole area at the slimmest and at the widest ratio."""
    for word in (0, 2**64 - 1):
        crop = RandomResizedCrop(8, scale=(1, 1))
        assert crop.draw([word] * crop.word_count, *extent) == window


def test_pixels_are_those_of_the_window_resized():
    image = noise((40, 50, 3))
    crop = RandomResizedCrop((16, 12))
    with seeding.Scope().begin(seed=1, epoch=0) as scope:
        scope.enter(3, 3)
        got = crop(image)
        scope.enter(3, 3)
        top, left, rows, columns = crop.draw(seeding.words(crop.word_count), 40, 50)
    expected = cv2.resize(image[top : top + rows, left : left + columns].copy(), (12, 16))
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("scale", [(0, 0), (0.5, 0.1), (0.1, 1.1), (-0.1, 1), 0.5, (0.1, float("nan")), ("a", "b")])
def test_scale_must_be_shares_of_the_area(scale):
    message = r"scale must be a pair \(least, greatest\) of numbers from 0 to 1, the greatest above 0, in order"
    with pytest.raises(ValueError, match=message):
        RandomResizedCrop(8, scale=scale)


@pytest.mark.parametrize("ratio", [(0, 1), (2, 1), (1, float("inf")), (1, 2, 3), None])
def test_ratio_must_be_positive(ratio):
    message = r"ratio must be a pair \(least, greatest\) of positive finite numbers, in order, got"
    with pytest.raises(ValueError, match=message):
        RandomResizedCrop(8, ratio=ratio)
