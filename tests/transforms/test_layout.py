import numpy as np
import pytest

from feedline.transforms import (
    CenterCrop,
    Normalize,
    RandomCrop,
    RandomHorizontalFlip,
    Resize,
    ToChannelsFirst,
)
from feedline.transforms._layout import layout_of


@pytest.mark.parametrize(
    ("shape", "layout"),
    [
        ((8, 8), "HW"),
        ((1, 3), "HW"),
        ((32, 24, 3), "HWC"),
        ((32, 24, 1), "HWC"),
        ((32, 24, 4), "HWC"),
        ((3, 32, 24), "CHW"),
        ((1, 32, 24), "CHW"),
        ((4, 32, 24), "CHW"),
        ((5, 3, 4), "HWC"),
        ((3, 32, 2), "CHW"),
    ],
)
def test_layout_is_guessed_where_one_reading_alone_is_possible(shape, layout):
    assert layout_of(shape, None) == layout


@pytest.mark.parametrize("shape", [(3, 32, 3), (1, 28, 1), (4, 4, 3), (32, 32, 2), (32, 32, 32)])
def test_ambiguous_layout_is_an_error_that_asks_for_it(shape):
    with pytest.raises(ValueError, match=r'cannot be told: give layout="HWC" or layout="CHW"'):
        RandomHorizontalFlip()(np.zeros(shape))


@pytest.mark.parametrize("layout", ["HWC", "CHW"])
def test_declared_layout_settles_an_ambiguous_shape(layout):
    image = np.arange(3 * 5 * 3).reshape(3, 5, 3)
    flipped = RandomHorizontalFlip(p=1, layout=layout)(image)
    axis = layout.index("W")
    np.testing.assert_array_equal(flipped, np.flip(image, axis))


def test_declared_layout_overrules_the_guess():
    assert ToChannelsFirst(layout="HWC")(np.zeros((3, 32, 2))).shape == (2, 3, 32)


@pytest.mark.parametrize("shape", [(), (5,), (2, 3, 32, 32)])
def test_other_numbers_of_axes_are_refused(shape):
    with pytest.raises(ValueError, match=r"image must have the axes \(H, W\), .* got shape"):
        RandomHorizontalFlip()(np.zeros(shape))


@pytest.mark.parametrize("shape", [(0, 8), (8, 0, 3), (3, 8, 0)])
def test_empty_images_are_refused(shape):
    with pytest.raises(ValueError, match=r"image must not be empty, got shape"):
        CenterCrop(2)(np.zeros(shape))


@pytest.mark.parametrize(("layout", "shape"), [("HW", (8, 8, 3)), ("HWC", (8, 8)), ("CHW", (8, 8))])
def test_declared_layout_must_have_the_images_axes(layout, shape):
    with pytest.raises(ValueError, match=rf'layout "{layout}" needs an image of {len(layout)} axes, got shape'):
        RandomHorizontalFlip(layout=layout)(np.zeros(shape))


@pytest.mark.parametrize(
    "make",
    [
        RandomHorizontalFlip,
        ToChannelsFirst,
        lambda layout: RandomCrop(4, layout=layout),
        lambda layout: CenterCrop(4, layout=layout),
        lambda layout: Resize(4, layout=layout),
        lambda layout: Normalize(0, 1, layout=layout),
    ],
)
@pytest.mark.parametrize("layout", ["WH", "NCHW", 3, ["HW"]])
def test_unknown_layout_is_refused_at_construction(make, layout):
    with pytest.raises(ValueError, match=r'layout must be "HW", "HWC", "CHW" or None, got'):
        make(layout=layout)
