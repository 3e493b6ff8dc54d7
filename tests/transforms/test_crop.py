import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedline import seeding
from feedline.transforms import CenterCrop, RandomCrop

MODES = ["constant", "reflect", "edge"]


def numbered(layout, height, width, channels, dtype=np.int32):
    """An image whose pixels are all different."""
    lengths = {"H": height, "W": width, "C": channels}
    shape = tuple(lengths[axis] for axis in layout)
    return (1 + np.arange(np.prod(shape))).reshape(shape).astype(dtype)


def cut(image, layout, top, left, rows, columns):
    index = {"H": slice(top, top + rows), "W": slice(left, left + columns), "C": slice(None)}
    return image[tuple(index[axis] for axis in layout)]


@given(
    layout=st.sampled_from(["HW", "HWC", "CHW"]),
    extent=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    channels=st.integers(1, 4),
    padding=st.tuples(st.integers(0, 9), st.integers(0, 9)),
    mode=st.sampled_from(MODES),
    data=st.data(),
)
def test_crop_is_a_slice_of_the_padded_image(layout, extent, channels, padding, mode, data):
    """At every place, `numpy.pad` being the reference."""
    size = tuple(data.draw(st.integers(1, n + 2 * pad)) for n, pad in zip(extent, padding, strict=True))
    image = numbered(layout, *extent, channels)
    before = image.copy()
    fill = 7 if mode == "constant" else 0
    crop = RandomCrop(size, padding=padding, fill=fill, padding_mode=mode, layout=layout)
    widths = {"H": (padding[0],) * 2, "W": (padding[1],) * 2, "C": (0, 0)}
    options = {"constant_values": fill} if mode == "constant" else {}
    padded = np.pad(image, [widths[axis] for axis in layout], mode=mode, **options)
    words = data.draw(st.lists(st.integers(0, 2**64 - 1), min_size=2, max_size=2))
    top, left = crop.draw(words, *extent)
    got = crop.apply(image, layout, (top, left))
    np.testing.assert_array_equal(got, cut(padded, layout, top + padding[0], left + padding[1], *size))
    assert got.dtype == image.dtype
    np.testing.assert_array_equal(image, before)


def test_words_at_their_ends_reach_the_first_and_the_last_place():
    crop = RandomCrop((4, 5), padding=(2, 3))
    greatest = 2**64 - 1
    assert crop.draw([0, 0], 8, 9) == (-2, -3)
    assert crop.draw([greatest, greatest], 8, 9) == (8 + 2 - 4, 9 + 3 - 5)


def test_crop_places_are_uniform_and_cover_all():
    """χ² over the 5 x 3 places: its 99.99% point at 14 degrees of freedom is 42.6."""
    image, count = np.arange(8 * 9).reshape(8, 9), 6000
    crop = RandomCrop((6, 9), padding=1)
    counts = np.zeros((5, 3))
    with seeding.Scope().begin(seed=1, epoch=0) as scope:
        for position in range(count):
            scope.enter(position, position)
            scope_words = seeding.words(crop.word_count)
            top, left = crop.draw(scope_words, *image.shape)
            counts[top + 1, left + 1] += 1
    expected = count / counts.size
    assert counts.min() > 0
    assert ((counts - expected) ** 2 / expected).sum() < 42.6


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64, np.bool_])
def test_crop_agrees_over_layouts_and_keeps_the_dtype(mode, dtype):
    image = numbered("HWC", 9, 8, 3, dtype)
    crop = RandomCrop(10, padding=4, padding_mode=mode)
    for position in range(20):
        with seeding.Scope().begin(seed=2, epoch=0) as scope:
            scope.enter(position, 0)
            last = crop(image)
            scope.enter(position, 0)
            first = crop(np.ascontiguousarray(image.transpose(2, 0, 1)))
            scope.enter(position, 0)
            single = crop(image[..., 1])
        assert last.dtype == first.dtype == dtype
        np.testing.assert_array_equal(first, last.transpose(2, 0, 1))
        np.testing.assert_array_equal(single, last[..., 1])


def test_crop_within_the_image_is_a_view_and_one_in_the_border_is_not():
    image = np.zeros((8, 8, 3))
    crop = RandomCrop(4, padding=4)
    assert np.shares_memory(crop.apply(image, "HWC", (4, 4)), image)
    assert not np.shares_memory(crop.apply(image, "HWC", (5, 4)), image)


def test_crop_larger_than_the_padded_image_names_both_sizes_and_the_remedy():
    message = (
        r"RandomCrop of size \(40, 40\) does not fit an image of \(height, width\) \(32, 33\), "
        r"\(34, 35\) when padded: give a larger padding=, or Resize first"
    )
    with pytest.raises(ValueError, match=message):
        RandomCrop(40, padding=1)(np.zeros((32, 33, 3)))


@pytest.mark.parametrize("make", [RandomCrop, CenterCrop])
@pytest.mark.parametrize("size", [0, -1, 1.5, True, "8", None, (8,), (8, 8, 3), (8, 0), (8, 1.5), (True, 8)])
def test_size_must_be_positive_integers(make, size):
    with pytest.raises(ValueError, match=r"size must be a positive integer or a pair \(height, width\) of them, got"):
        make(size)


@pytest.mark.parametrize("padding", [-1, 0.5, True, (1, -1), (1, 2, 3, 4), "4"])
def test_padding_must_be_non_negative_integers(padding):
    message = r"padding must be a non-negative integer or a pair \(height, width\) of them, got"
    with pytest.raises(ValueError, match=message):
        RandomCrop(4, padding=padding)


def test_numpy_integers_are_sizes():
    assert RandomCrop(np.int64(4), padding=np.array([1, 2])) == RandomCrop((4, 4), padding=(1, 2))


def test_padding_mode_must_be_known():
    with pytest.raises(ValueError, match=r'padding_mode must be "constant", "reflect" or "edge", got \'wrap\''):
        RandomCrop(4, padding_mode="wrap")


def test_fill_must_be_a_number():
    with pytest.raises(TypeError, match=r"fill must be a number, got \(1, 2, 3\) \(tuple\)"):
        RandomCrop(4, fill=(1, 2, 3))


@pytest.mark.parametrize("mode", ["reflect", "edge"])
def test_fill_without_use_is_refused(mode):
    with pytest.raises(ValueError, match=rf'fill applies to padding_mode="constant" alone, got fill=1 with "{mode}"'):
        RandomCrop(4, padding=1, fill=1, padding_mode=mode)


@pytest.mark.parametrize("fill", [256, -1, 0.5, float("nan"), float("inf")])
def test_fill_that_does_not_fit_the_dtype_is_refused_at_any_place(fill):
    crop = RandomCrop(4, padding=4, fill=fill)
    with pytest.raises(ValueError, match=r"fill must be a whole number from 0 to 255 for an image of uint8, got"):
        crop.apply(np.zeros((8, 8), np.uint8), "HW", (2, 2))
    assert crop.apply(np.zeros((8, 8)), "HW", (0, 0)).shape == (4, 4)


@given(
    layout=st.sampled_from(["HW", "HWC", "CHW"]),
    extent=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    data=st.data(),
)
def test_centre_crop_leaves_equal_margins(layout, extent, data):
    """Or one pixel more below and to the right."""
    size = tuple(data.draw(st.integers(1, n)) for n in extent)
    image = numbered(layout, *extent, 2)
    got = CenterCrop(size, layout=layout)(image)
    top, left = (extent[0] - size[0]) // 2, (extent[1] - size[1]) // 2
    np.testing.assert_array_equal(got, cut(image, layout, top, left, *size))
    assert np.shares_memory(got, image)


@pytest.mark.parametrize("size", [(9, 4), (4, 9)])
def test_centre_crop_larger_than_the_image_names_both_sizes(size):
    message = rf"CenterCrop of size \({size[0]}, {size[1]}\) does not fit .* \(8, 8\): Resize first"
    with pytest.raises(ValueError, match=message):
        CenterCrop(size)(np.zeros((8, 8)))
