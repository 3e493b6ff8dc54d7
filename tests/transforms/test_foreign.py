import random
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from feedline import seeding
from feedline.transforms import (
    CenterCrop,
    Compose,
    Normalize,
    RandomCrop,
    RandomHorizontalFlip,
    RandomResizedCrop,
    RandomVerticalFlip,
    Resize,
    ToChannelsFirst,
    ToFloat,
)

IMAGE = np.random.default_rng(0).random((12, 10, 3), np.float32)

TRANSFORMS = [
    RandomHorizontalFlip(p=1),
    RandomHorizontalFlip(p=0),
    RandomVerticalFlip(p=1),
    RandomCrop(8, padding=2),
    RandomCrop(30, padding=10, padding_mode="edge"),
    CenterCrop((7, 9)),
    Resize((5, 6)),
    RandomResizedCrop(6),
    Normalize(0.5, 2),
    ToFloat(scale=2),
    ToChannelsFirst(),
    Compose([RandomHorizontalFlip(), RandomCrop(8), ToChannelsFirst()]),
]


class Teaching:
    """A tensor as teaching code has it: an array in ``.data``."""

    def __init__(self, data):
        self.data = np.asarray(data)


class TensorChild(torch.Tensor):
    pass


def keyed(transform, image):
    with seeding.Scope().begin(seed=3, epoch=1) as scope:
        scope.enter(position=4, index=5)
        return transform(image)


@pytest.mark.parametrize("transform", TRANSFORMS, ids=repr)
@pytest.mark.parametrize(
    ("make", "cls", "back"),
    [
        (torch.from_numpy, torch.Tensor, lambda t: t.numpy()),
        (lambda a: torch.from_numpy(a).as_subclass(TensorChild), TensorChild, lambda t: t.numpy()),
        (jnp.asarray, type(jnp.zeros(1)), np.asarray),
        (Teaching, Teaching, lambda t: t.data),
    ],
    ids=["torch", "torch subclass", "jax", "teaching"],
)
def test_the_images_class_comes_back_with_the_same_pixels(transform, make, cls, back):
    result = keyed(transform, make(IMAGE.copy()))
    assert type(result) is cls
    expected = keyed(transform, IMAGE)
    np.testing.assert_array_equal(back(result), expected)
    assert back(result).dtype == expected.dtype


def test_torch_tensor_that_needs_gradients_comes_back_detached():
    image = torch.zeros(3, 8, 8, requires_grad=True)
    assert not CenterCrop(4)(image).requires_grad


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an accelerator")
def test_torch_tensor_comes_back_on_its_device():
    image = torch.from_numpy(IMAGE).cuda()
    assert CenterCrop(4)(image).device == image.device


def test_torch_view_shares_memory_with_the_tensor_as_an_array_does():
    image = torch.zeros(3, 8, 8)
    crop = CenterCrop(4)(image)
    assert crop.untyped_storage().data_ptr() == image[:, 2:, 2:].untyped_storage().data_ptr() + 4 * (2 * 8 + 2)


def test_torch_takes_a_constant_from_read_only_memory_without_a_warning():
    """A flip leaves it as it is; a crop of it is a view of memory that torch must not write to."""
    shared = np.zeros((8, 8))
    shared.flags.writeable = False

    class Held(torch.Tensor):
        def numpy(self):
            return shared

    assert CenterCrop(4)(torch.zeros(8, 8).as_subclass(Held)).shape == (4, 4)


@pytest.mark.parametrize("image", [[[1, 2], [3, 4]], "image", None, 3, np.float32(3), b"\0\0", torch.nn.Identity()])
def test_other_objects_are_refused_with_a_remedy(image):
    with pytest.raises(TypeError, match=r"image must be a NumPy array, .* got \w+; numpy.asarray\(image\) may"):
        ToFloat()(image)


def test_neither_framework_nor_opencv_is_imported():
    code = (
        "import sys, numpy as np; from feedline.transforms import *\n"
        "chain = Compose([RandomHorizontalFlip(), RandomCrop(8, padding=4), ToFloat(), Normalize(0, 1)])\n"
        "chain(np.zeros((8, 8)))\n"
        "Resize(3); RandomResizedCrop(3)\n"
        "print(sorted({'torch', 'jax', 'cv2', 'PIL'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_jax_transformation_is_refused_by_jax_itself():
    """An abstract value has no pixels: JAX says so, no wrong result comes of it."""

    @jax.jit
    def flip(image):
        return RandomHorizontalFlip(p=1)(image)

    with pytest.raises(jax.errors.TracerArrayConversionError):
        flip(jnp.zeros((4, 4)))


def test_outside_a_loader_pythons_random_repeats_the_draws():
    transform = RandomCrop(4, padding=3)
    random.seed(5)
    first = [transform(IMAGE) for _ in range(5)]
    random.seed(5)
    for one in first:
        np.testing.assert_array_equal(one, transform(IMAGE))
