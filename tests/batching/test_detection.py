"""Laws of batches for detection."""

import numpy as np
import pytest

from feedline.batching import detection_collate
from feedline.errors import CollateError


def sample(boxes, shape=(3, 4, 4)):
    target = {"boxes": np.zeros((boxes, 4)), "labels": np.arange(boxes)}
    return np.full(shape, boxes, dtype=np.float32), target


def test_images_are_stacked_and_targets_listed_as_they_are():
    samples = [sample(2), sample(0), list(sample(5))]
    images, targets = detection_collate(samples)
    assert (images == np.stack([image for image, _ in samples])).all()
    assert images.dtype == np.float32
    assert [target is given[1] for target, given in zip(targets, samples, strict=True)] == [True] * 3


def test_images_of_torch_give_a_tensor():
    torch = pytest.importorskip("torch")
    images, _ = detection_collate([(torch.zeros(3, 2, 2), {}), (torch.ones(3, 2, 2), {})])
    assert torch.equal(images[1], torch.ones(3, 2, 2))


def test_images_of_different_sizes_are_refused_with_the_remedy():
    message = (
        r"sample\[0\]: shapes \(3, 4, 4\) at index 1 and \(3, 5, 4\) at index 2; bring images and boxes to one size"
    )
    with pytest.raises(CollateError, match=message) as caught:
        detection_collate([sample(1), sample(1), sample(1, (3, 5, 4))])
    assert caught.value.position == 2


def test_images_of_different_types_are_refused_as_everywhere():
    with pytest.raises(CollateError, match=r"sample\[0\]: ndarray of float32 at index 0 and str at index 1; make them"):
        detection_collate([sample(1), ("path.jpg", {})])


@pytest.mark.parametrize(
    ("bad", "name"), [({"image": 1}, "dict"), (np.zeros(2), "ndarray"), ((1, 2, 3), "tuple of 3 elements")]
)
def test_a_sample_that_is_no_pair_is_refused(bad, name):
    message = rf"needs samples \(image, target\), got {name} at index 1; return a pair"
    with pytest.raises(CollateError, match=message) as caught:
        detection_collate([sample(1), bad])
    assert caught.value.position == 1


def test_an_empty_batch_is_refused():
    with pytest.raises(ValueError, match="cannot collate an empty batch"):
        detection_collate([])
