"""Images with their boxes as one batch: `detection_collate`.

Guarantee: images of one shape are stacked, none is resized or cut; targets are handed on as they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from feedline.batching.collate import checked_batch
from feedline.batching.nodes import collate_values
from feedline.batching.refusals import differing_shapes
from feedline.errors import CollateError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["detection_collate"]


def detection_collate(batch: Iterable[tuple[Any, Any]]) -> tuple[Any, list[Any]]:
    """The images stacked, and the list of their targets, as detection models take them.

    Args:
        batch: samples ``(image, target)``: images of one shape, and targets of any kind, commonly a dict of
            boxes (n, 4) and labels (n,), with another n for each image.

    Returns:
        ``(images, targets)``: images (B, ...) as `default_collate` stacks them, and the samples' own targets.

    Raises:
        ValueError: there is no sample.
        CollateError: images of different shapes, or a sample that is no pair.

    Example:
        >>> import numpy as np
        >>> image = np.zeros((3, 8, 8), dtype=np.float32)
        >>> images, targets = detection_collate([(image, {"labels": [1]}), (image, {"labels": [2, 5]})])
        >>> images.shape, targets
        ((2, 3, 8, 8), [{'labels': [1]}, {'labels': [2, 5]}])
    """
    images: list[Any] = []
    targets: list[Any] = []
    for i, sample in enumerate(checked_batch(batch)):
        if not isinstance(sample, tuple | list) or len(sample) != 2:
            count = f" of {len(sample)} elements" if isinstance(sample, tuple | list) else ""
            raise CollateError(
                "detection_collate needs samples (image, target), "
                f"got {type(sample).__name__}{count} at index {i}; return a pair, or give another collate_fn",
                i,
            )
        shape = getattr(sample[0], "shape", None)
        before = getattr(images[-1], "shape", None) if i else shape
        if before is not None and shape is not None and before != shape:
            remedy = "bring images and boxes to one size in a transform before (transforms.Resize)"
            raise differing_shapes("sample[0]", i, tuple(before), tuple(shape), remedy=remedy)
        images.append(sample[0])
        targets.append(sample[1])
    return collate_values(images, "sample[0]"), targets
