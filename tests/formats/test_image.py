from __future__ import annotations

import errno
import random
import sys

import numpy as np
import pytest
from PIL import Image

from feedline.errors import CorruptSample, FeedlineError
from feedline.formats.image import read_image

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)


def save(path, image):
    image.save(path)
    return path


def test_an_rgb_image_comes_back_as_height_width_channel(tmp_path):
    image = read_image(save(tmp_path / "a.png", Image.fromarray(PIXELS)))
    assert np.array_equal(image, PIXELS)
    assert image.dtype == np.uint8
    assert image.flags.c_contiguous
    assert image.flags.writeable


def test_the_format_is_told_by_content_not_by_name(tmp_path):
    path = save(tmp_path / "a.png", Image.fromarray(PIXELS)).rename(tmp_path / "a.jpg")
    assert np.array_equal(read_image(path), PIXELS)


def test_greyscale_becomes_three_equal_channels(tmp_path):
    grey = PIXELS[:, :, 0]
    image = read_image(save(tmp_path / "a.png", Image.fromarray(grey)))
    assert np.array_equal(image, np.stack([grey] * 3, axis=2))


def test_of_sixteen_bits_the_high_byte_is_kept(tmp_path):
    grey = np.array([[0, 255, 256], [32_767, 65_279, 65_535]], dtype=np.uint16)
    image = read_image(save(tmp_path / "a.png", Image.fromarray(grey)))
    assert image[:, :, 1].tolist() == [[0, 0, 1], [127, 254, 255]]
    assert image.shape == (2, 3, 3)


def test_alpha_is_dropped(tmp_path):
    alpha = np.full((5, 7, 1), 9, dtype=np.uint8)
    image = read_image(save(tmp_path / "a.png", Image.fromarray(np.concatenate([PIXELS, alpha], axis=2))))
    assert np.array_equal(image, PIXELS)


def test_a_palette_with_transparency_becomes_its_colours(tmp_path):
    picture = Image.new("P", (2, 1))
    picture.putpalette([10, 20, 30, 40, 50, 60])
    picture.putdata([1, 0])
    picture.save(tmp_path / "a.png", transparency=bytes([0, 128]))
    assert read_image(tmp_path / "a.png").tolist() == [[[40, 50, 60], [10, 20, 30]]]


@pytest.mark.parametrize("mode", ["I", "F"])
def test_thirty_two_bits_a_pixel_are_refused(tmp_path, mode):
    path = save(tmp_path / "a.tiff", Image.new(mode, (2, 2)))
    message = rf"a\.tiff: pixels of mode {mode} \(32 bits\) have no one meaning in 8 bits"
    with pytest.raises(FeedlineError, match=message):
        read_image(path)


@pytest.mark.parametrize("extension", ["png", "jpg", "bmp", "tiff", "webp", "gif"])
def test_a_truncated_file_is_corrupt_and_names_itself(tmp_path, extension):
    path = save(tmp_path / f"a.{extension}", Image.fromarray(np.tile(PIXELS, (20, 20, 1))))
    path.write_bytes(path.read_bytes()[:-600])
    message = rf"a\.{extension}: expected an image that Pillow can decode: "
    with pytest.raises(CorruptSample, match=message) as caught:
        read_image(path)
    assert caught.value.path == path
    assert caught.value.__cause__ is not None


def test_what_is_no_image_is_corrupt(tmp_path):
    path = tmp_path / "notes.png"
    path.write_text("not an image")
    with pytest.raises(CorruptSample, match=r"notes\.png: expected an image that Pillow can decode"):
        read_image(path)


def test_a_missing_file_is_an_oserror(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_image(tmp_path / "none.png")


@pytest.mark.skipif(sys.platform != "linux", reason="needs a file that opens and cannot be read")
def test_a_file_that_cannot_be_read_is_an_oserror_not_a_corrupt_image():
    with pytest.raises(OSError, match="Input/output error") as caught:
        read_image("/proc/self/mem")
    assert caught.value.errno == errno.EIO


def test_more_than_max_pixels_are_refused_before_decoding(tmp_path):
    path = save(tmp_path / "a.png", Image.fromarray(PIXELS))
    assert read_image(path, max_pixels=35).shape == (5, 7, 3)
    message = "expected at most max_pixels=34 pixels, found 7 x 5; raise max_pixels"
    with pytest.raises(CorruptSample, match=message):
        read_image(path, max_pixels=34)


@pytest.mark.parametrize("side", [10_000, 60_000])
def test_a_decompression_bomb_is_refused(tmp_path, side):
    """Above Pillow's own limit, where it warns, and above the double of it, where it raises."""
    path = tmp_path / "bomb.ppm"
    path.write_bytes(b"P6 %d %d 255\n" % (side, side))
    with pytest.raises(CorruptSample, match=r"bomb\.ppm"):
        read_image(path)


def test_damaged_images_give_pixels_or_a_corrupt_sample(tmp_path):
    draw = random.Random(5)
    path = tmp_path / "damaged"
    refused = 0
    for extension in ("png", "jpg", "gif", "bmp"):
        sound = save(tmp_path / f"a.{extension}", Image.fromarray(PIXELS)).read_bytes()
        for _ in range(200):
            data = bytearray(sound)
            for _ in range(3):
                data[draw.randrange(len(data))] = draw.randrange(256)
            path.write_bytes(data)
            try:
                image = read_image(path, max_pixels=1 << 20)
            except FeedlineError:
                refused += 1
            else:
                assert image.shape[2] == 3
    assert refused > 100
