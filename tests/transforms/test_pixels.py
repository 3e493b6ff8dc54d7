import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from feedline.transforms import Normalize, ToChannelsFirst, ToFloat

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@given(image=hnp.arrays(np.uint8, hnp.array_shapes(min_dims=1, max_dims=4, max_side=6)))
def test_to_float_divides_bytes_by_255_in_float32(image):
    before = image.copy()
    got = ToFloat()(image)
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, image.astype(np.float32) / np.float32(255))
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize(("dtype", "greatest"), [(np.bool_, 1), (np.uint8, 255), (np.uint16, 65535)])
def test_greatest_value_of_the_dtype_becomes_one(dtype, greatest):
    got = ToFloat()(np.array([[0, greatest]], dtype))
    assert got.dtype == np.float32
    assert got.tolist() == [[0, 1]]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_floating_image_comes_back_itself(dtype):
    image = np.array([[0, 300]], dtype)
    assert ToFloat()(image) is image


def test_half_precision_is_widened():
    got = ToFloat()(np.array([[0.5]], np.float16))
    assert got.dtype == np.float32
    assert got == 0.5


@pytest.mark.parametrize(
    ("dtype", "result"),
    [(np.int64, np.float32), (np.uint8, np.float32), (np.float32, np.float32), (np.float64, np.float64)],
)
def test_given_scale_divides_images_of_any_dtype(dtype, result):
    image = np.array([[0, 4, 16]], dtype)
    got = ToFloat(scale=16)(image)
    assert got.dtype == result
    assert got.tolist() == [[0, 0.25, 1]]
    assert image.tolist() == [[0, 4, 16]]


@pytest.mark.parametrize("dtype", [np.int64, np.int8, np.uint32])
def test_scale_of_other_integers_must_be_given(dtype):
    with pytest.raises(ValueError, match=rf"cannot tell the scale of an image of {np.dtype(dtype)}: give scale="):
        ToFloat()(np.zeros((2, 2), dtype))


@pytest.mark.parametrize("dtype", [np.complex64, "U1", object])
def test_to_float_refuses_what_is_no_number(dtype):
    with pytest.raises(TypeError, match=r"ToFloat takes a boolean, integer or floating image, got"):
        ToFloat(scale=2)(np.zeros((2, 2), dtype))


@pytest.mark.parametrize("scale", [0, -1, float("inf"), float("nan"), "255", (1, 2)])
def test_scale_must_be_positive(scale):
    with pytest.raises(ValueError, match=r"scale must be a positive finite number or None, got"):
        ToFloat(scale=scale)


@given(
    image=hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 6), st.integers(1, 6), st.just(3)),
        elements=st.floats(0, 1, width=32),
    )
)
def test_normalize_follows_its_formula_in_both_layouts(image):
    before = image.copy()
    last = Normalize(MEAN, STD, layout="HWC")(image)
    first = Normalize(MEAN, STD, layout="CHW")(image.transpose(2, 0, 1))
    np.testing.assert_array_equal(last, (image - np.float32(MEAN)) / np.float32(STD))
    np.testing.assert_array_equal(first, last.transpose(2, 0, 1))
    np.testing.assert_array_equal(image, before)
    assert last.dtype == first.dtype == np.float32


@pytest.mark.parametrize(
    ("dtype", "result"), [(np.float16, np.float32), (np.float32, np.float32), (np.float64, np.float64)]
)
def test_normalize_gives_float32_and_leaves_float64(dtype, result):
    assert Normalize(0.5, 0.5)(np.ones((2, 2), dtype)).dtype == result


def test_normalized_image_of_its_own_statistics_has_mean_0_and_std_1():
    image = np.random.default_rng(0).random((64, 64, 3))
    got = Normalize(image.mean((0, 1)), image.std((0, 1)))(image)
    np.testing.assert_allclose(got.mean((0, 1)), 0, atol=1e-12)
    np.testing.assert_allclose(got.std((0, 1)), 1)


@pytest.mark.parametrize("statistics", [(0.5, 0.25), ([0.5], [0.25]), ([0.5], (0.25, 0.25, 0.25))])
def test_one_number_serves_all_channels(statistics):
    assert (Normalize(*statistics)(np.ones((5, 5, 3))) == 2).all()


def test_integer_image_is_refused_with_the_remedy():
    with pytest.raises(TypeError, match=r"Normalize takes a floating image, got uint8: put ToFloat\(\) before it"):
        Normalize(0.5, 0.5)(np.zeros((4, 4), np.uint8))


@pytest.mark.parametrize(("shape", "channels"), [((8, 8), 1), ((8, 8, 1), 1), ((8, 8, 4), 4), ((1, 8, 8), 1)])
def test_other_number_of_channels_is_refused_with_both_numbers(shape, channels):
    message = rf"Normalize has statistics for 3 channels, but the \w+ image of shape \(.*\) has {channels}"
    with pytest.raises(ValueError, match=message):
        Normalize(MEAN, STD)(np.zeros(shape))


@pytest.mark.parametrize("std", [0, (0.2, 0, 0.2), -1, float("nan"), float("inf")])
def test_std_must_be_positive(std):
    with pytest.raises(ValueError, match=r"std must be positive and finite, got .* needs std 1"):
        Normalize(MEAN, std)


@pytest.mark.parametrize("mean", [float("nan"), (0, float("inf"), 0)])
def test_mean_must_be_finite(mean):
    with pytest.raises(ValueError, match=r"mean must be finite, got"):
        Normalize(mean, 1)


@pytest.mark.parametrize("mean", ["0.5", (), ("a",), None, [[0.5]]])
def test_mean_must_be_numbers(mean):
    with pytest.raises(ValueError, match=r"mean must be a number or a sequence of one number for each channel, got"):
        Normalize(mean, 1)


def test_lengths_of_mean_and_std_must_agree():
    with pytest.raises(ValueError, match=r"mean and std must each have a number .* got 3 and 2"):
        Normalize(MEAN, (1, 1))


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (np.arange(24).reshape(2, 4, 3), np.arange(24).reshape(2, 4, 3).transpose(2, 0, 1)),
        (np.arange(6).reshape(2, 3), np.arange(6).reshape(1, 2, 3)),
    ],
)
def test_channels_come_first_in_a_view(image, expected):
    got = ToChannelsFirst()(image)
    np.testing.assert_array_equal(got, expected)
    assert np.shares_memory(got, image)


def test_image_with_channels_first_comes_back_itself():
    image = np.zeros((3, 8, 8))
    assert ToChannelsFirst()(image) is image
