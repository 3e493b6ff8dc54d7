"""Chains of callables, and functions of the user's own in them.

Guarantee: what a chain promises the loader (`Compose.thread_safe`, `Compose.uses_global_rng`) is what its
members promise; of a function that says nothing, the worst is assumed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from feedline.transforms._arguments import store

__all__ = ["Compose", "Lambda"]


@dataclass(frozen=True, slots=True)
class Compose:
    """Apply callables one after the other. ``Compose([])`` gives back what it is given.

    Args:
        transforms: the callables, in order; kept as a tuple. Chains may hold chains.

    Raises:
        TypeError: ``transforms`` is no iterable, or a member is not callable.

    Example:
        >>> import numpy as np
        >>> from feedline.transforms import RandomCrop, ToChannelsFirst, ToFloat
        >>> augment = Compose([RandomCrop(32, padding=4), ToFloat(), ToChannelsFirst()])
        >>> augment(np.zeros((32, 32, 3), np.uint8)).shape
        (3, 32, 32)
    """

    transforms: Iterable[Callable[[Any], Any]]

    def __post_init__(self) -> None:
        if not isinstance(self.transforms, Iterable):
            raise TypeError(
                f"transforms must be a sequence of callables, got {type(self.transforms).__name__}; "
                "put a single one in a list"
            )
        members = tuple(self.transforms)
        for index, member in enumerate(members):
            if not callable(member):
                raise TypeError(f"transforms[{index}] must be callable, got {member!r}")
        store(self, transforms=members)

    @property
    def thread_safe(self) -> bool:
        """Whether all members say that they may run in several threads at once."""
        return all(getattr(member, "thread_safe", False) for member in self.transforms)

    @property
    def uses_global_rng(self) -> bool:
        """Whether a member may draw from ``random``, ``numpy.random`` or torch's default generator."""
        return any(getattr(member, "uses_global_rng", True) for member in self.transforms)

    def __call__(self, image: Any) -> Any:
        """The image after all members."""
        for transform in self.transforms:
            image = transform(image)
        return image


@dataclass(frozen=True, slots=True)
class Lambda:
    """A function of the user's own as a transform; it is given the image as it comes, whatever its class.

    It is taken to be unfit for threads and to draw from global generators, unless the function has attributes
    ``thread_safe`` and ``uses_global_rng`` that say otherwise. For random numbers that are the same for any
    number of workers, draw from `feedline.rng`.

    Args:
        fn: called with the image; what it returns takes the image's place.

    Raises:
        TypeError: ``fn`` is not callable.

    Example:
        >>> import numpy as np
        >>> Lambda(lambda image: 255 - image)(np.array([[0, 55]], np.uint8))
        array([[255, 200]], dtype=uint8)
    """

    fn: Callable[[Any], Any]

    def __post_init__(self) -> None:
        if not callable(self.fn):
            raise TypeError(f"fn must be callable, got {self.fn!r}")

    @property
    def thread_safe(self) -> bool:
        """Whether the function says that it may run in several threads at once."""
        return bool(getattr(self.fn, "thread_safe", False))

    @property
    def uses_global_rng(self) -> bool:
        """Whether the function may draw from ``random``, ``numpy.random`` or torch's default generator."""
        return bool(getattr(self.fn, "uses_global_rng", True))

    def __call__(self, image: Any) -> Any:
        """What the function makes of the image."""
        return self.fn(image)
