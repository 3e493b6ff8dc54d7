"""What every image transform does: unwrap the image, find its layout, change the array, give its class back.

Guarantee: a random transform calls `seeding.words` exactly once a sample, whatever comes of it, so that those
after it in a chain draw the same. Drawing the parameters (`RandomTransform.draw`, pure) and applying them
(`RandomTransform.apply`, deterministic) are apart, so that a batch may draw for each sample and apply at
once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from feedline import seeding
from feedline.transforms._foreign import on_array
from feedline.transforms._layout import extent, layout_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from feedline.transforms._layout import Layout

__all__ = ["FixedTransform", "RandomTransform"]

P = TypeVar("P")


class FixedTransform(ABC):
    """A transform that draws nothing: the same image gives the same result."""

    __slots__ = ()

    thread_safe: ClassVar[bool] = True
    uses_global_rng: ClassVar[bool] = False
    layout: Layout | None

    @abstractmethod
    def apply(self, pixels: NDArray[Any], layout: Layout) -> NDArray[Any]:
        """The transformed array; ``pixels`` is left as it is."""

    def __call__(self, image: Any) -> Any:
        """Transform one image; its class comes back."""
        return on_array(image, lambda pixels: self.apply(pixels, layout_of(pixels.shape, self.layout)))


class RandomTransform(ABC, Generic[P]):
    """A transform whose parameters are drawn anew for each sample."""

    __slots__ = ()

    thread_safe: ClassVar[bool] = True
    uses_global_rng: ClassVar[bool] = False
    word_count: ClassVar[int]
    """How many 64-bit words `draw` takes."""
    layout: Layout | None

    @abstractmethod
    def draw(self, words: Sequence[int], height: int, width: int) -> P:
        """The parameters for an image of this extent: a pure function of ``word_count`` words."""

    @abstractmethod
    def apply(self, pixels: NDArray[Any], layout: Layout, drawn: P) -> NDArray[Any]:
        """The transformed array; ``pixels`` is left as it is."""

    def __call__(self, image: Any) -> Any:
        """Transform one image; its class comes back."""
        words = seeding.words(self.word_count)

        def change(pixels: NDArray[Any]) -> NDArray[Any]:
            layout = layout_of(pixels.shape, self.layout)
            return self.apply(pixels, layout, self.draw(words, *extent(pixels.shape, layout)))

        return on_array(image, change)
