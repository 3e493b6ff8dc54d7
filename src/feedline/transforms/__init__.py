"""Transforms of one image: crops, flips, sizes, values, and chains of them.

All take a NumPy array of the axes (H, W), (H, W, C) or (C, H, W), or an object of another library around one
(a torch tensor, a JAX array, a class with an array in ``.data`` and a constructor that takes one), whose
class comes back. A torch tensor comes back detached, on its device. They can be called by themselves, with or
without a loader.

**Layout.** Two axes are HW. Three axes are HWC if the last has length 1, 3 or 4, and CHW if the first has. If
both have, as in (3, 32, 3), or neither, as in (32, 32, 2), a ValueError asks for ``layout="HWC"`` or
``"CHW"``; an image of three or four rows and two channels, (3, 32, 2), is taken for CHW unless ``layout``
says otherwise.

**Memory.** The input is never modified. Flips, crops and `ToChannelsFirst` may give a view of it, and any
transform with nothing to do the image itself: copy before writing to a result. A loader's collate copies into
the batch.

**Randomness.** Inside a loader, draws depend on (seed, epoch, position, index) of the sample and on the
transform's place in the chain alone; outside one they come from Python's ``random``. Each random transform
takes its place in the chain whatever comes of its draw, so that changing ``p`` of one leaves the others'
draws as they were.

**Plans.** Transforms are frozen dataclasses: comparable, hashable, picklable, safe in threads.
"""

from feedline.transforms.compose import Compose, Lambda
from feedline.transforms.crop import CenterCrop, RandomCrop
from feedline.transforms.flip import RandomHorizontalFlip, RandomVerticalFlip
from feedline.transforms.pixels import Normalize, ToChannelsFirst, ToFloat
from feedline.transforms.resize import RandomResizedCrop, Resize

__all__ = [
    "CenterCrop",
    "Compose",
    "Lambda",
    "Normalize",
    "RandomCrop",
    "RandomHorizontalFlip",
    "RandomResizedCrop",
    "RandomVerticalFlip",
    "Resize",
    "ToChannelsFirst",
    "ToFloat",
]
