import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from feedline import seeding
from feedline.transforms import RandomHorizontalFlip, RandomVerticalFlip

FLIPS = [(RandomHorizontalFlip, "W"), (RandomVerticalFlip, "H")]


@st.composite
def images(draw):
    """An image and its layout, of any of the usual dtypes."""
    layout = draw(st.sampled_from(["HW", "HWC", "CHW"]))
    lengths = {axis: draw(st.integers(1, 6)) for axis in "HWC"}
    dtype = draw(st.sampled_from([np.uint8, np.float32, np.float64, np.bool_, np.int64]))
    return draw(hnp.arrays(dtype, tuple(lengths[axis] for axis in layout))), layout


@pytest.mark.parametrize(("flip", "axis"), FLIPS)
@given(image=images())
def test_certain_flip_mirrors_its_axis_and_twice_is_identity(flip, axis, image):
    pixels, layout = image
    before = pixels.copy()
    transform = flip(p=1, layout=layout)
    once = transform(pixels)
    np.testing.assert_array_equal(once, np.flip(pixels, layout.index(axis)))
    np.testing.assert_array_equal(transform(once), before)
    np.testing.assert_array_equal(pixels, before)
    assert once.dtype == pixels.dtype


@pytest.mark.parametrize("flip", [RandomHorizontalFlip, RandomVerticalFlip])
def test_impossible_flip_gives_the_image_itself(flip):
    image = np.zeros((6, 5, 3))
    assert all(flip(p=0)(image) is image for _ in range(20))


@pytest.mark.parametrize("flip", [RandomHorizontalFlip, RandomVerticalFlip])
def test_flipped_image_is_a_view(flip):
    image = np.zeros((6, 5, 3))
    assert np.shares_memory(flip(p=1)(image), image)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("flip", [RandomHorizontalFlip, RandomVerticalFlip])
def test_flips_happen_at_their_rate(flip, p):
    """Within 4.5 standard deviations of the binomial, at fixed seeds."""
    image, count, flipped = np.array([[1, 2], [3, 4]]), 4000, 0
    transform = flip(p)
    with seeding.Scope().begin(seed=11, epoch=2) as scope:
        for position in range(count):
            scope.enter(position, position)
            flipped += transform(image) is not image
    assert abs(flipped - count * p) < 4.5 * (count * p * (1 - p)) ** 0.5


def test_draw_compares_one_uniform_number_with_p():
    flip = RandomHorizontalFlip(p=0.25)
    assert flip.draw([(1 << 62) - (1 << 11)], 4, 4)
    assert not flip.draw([1 << 62], 4, 4)


@pytest.mark.parametrize("p", [-0.1, 1.0001, float("nan"), "0.5", None, [0.5]])
@pytest.mark.parametrize("flip", [RandomHorizontalFlip, RandomVerticalFlip])
def test_p_must_be_a_probability(flip, p):
    with pytest.raises(ValueError, match=r"p must be a number from 0 to 1, got"):
        flip(p=p)
