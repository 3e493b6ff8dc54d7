"""A shuffle that is never stored: the index at any position of a permutation, in O(1) memory and time.

Guarantee: `PermutedOrder` visits each of ``length`` samples exactly once, in an order fixed by (length, seed,
epoch) alone, the same on every machine and with every release (golden values are pinned by the tests). Below
65,536 samples it is a sort by random words, uniform over all permutations; from there on a keyed Feistel
network, which holds a few round keys and two blocks of 4,096 indices, whether there are a million samples or
2⁶².
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

import numpy as np

from feedline import seeding
from feedline.order.sequence import check_count, check_span

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["FeistelNetwork", "PermutedOrder"]

_SHUFFLE_BELOW = 1 << 16  # element numbers fit 16 bits; a Feistel network is best when large
_NUMBER_MASK = np.uint64(_SHUFFLE_BELOW - 1)
_MAX_LENGTH = 1 << 62  # halves of at most 2**31 leave room for sums and 32-bit multiply-high in 64 bits
_BLOCK = 1 << 12  # what a lone batch computes, 0.1 ms: NumPy's cost a call is below half of it
_CHUNK = 1 << 15  # what a long take computes at a time: four arrays of 256 KiB stay in the L2 cache

# Two-point statistics (the law of a pair of images) show what a network lacks. With c the number of cells a
# side, each round divides their distance from uniform by about sqrt(c): over 2 million keys, chi-square no
# longer sees it from 10 rounds on at c = 4, 8 at c = 8 and 6 at c = 16. Networks begin at c = 256; 8 rounds
# there leave far less than any number of epochs could show, at 2 ns a round and index.
_ROUNDS = 8

_HALF = np.uint64(32)
_MIX_FIRST = np.uint64(0xBF58476D1CE4E5B9)  # the multipliers of SplitMix64 (Steele, Lea & Flood, OOPSLA 2014)
_MIX_SECOND = np.uint64(0x94D049BB133111EB)
_MASK = (1 << 64) - 1

_Block = tuple[int, "NDArray[np.int64]"]


@dataclass(frozen=True, slots=True)
class FeistelNetwork:
    """A keyed permutation of the integers below ``length``: a generalised Feistel network with cycle walking.

    Black & Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002, section 5: x = right * a + left on
    a grid of a * b >= length cells; each round adds a keyed function of one half to the other, modulo that
    half's size; an image outside the domain is enciphered again until it falls inside. Here a is the least
    even number with a**2 >= length, and b = ceil(length / a), so that fewer than a cells lie outside and
    walking is rare at any length (also at 2**30 + 1, where networks on powers of two walk half of the time).
    An even a makes a permutation's parity depend on the key: rotations of an odd cycle are all even.

    Args:
        length: from 1 to 2**62.
        keys: one 64-bit key a round.

    Example:
        >>> network = FeistelNetwork(10, keys=(11, 22, 33, 44, 55, 66, 77, 88))
        >>> images = np.arange(10, dtype=np.uint64)
        >>> network.encipher(images)
        >>> sorted(images.tolist())
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    """

    length: int
    keys: tuple[int, ...]

    @classmethod
    def keyed(cls, length: int, seed: int, epoch: int) -> Self:
        """The network of an epoch, its keys drawn from the stream ``Stream.PERMUTATION``, detail 1."""
        stream = seeding.Stream.PERMUTATION.word(1)
        return cls(length, tuple(seeding.bulk_words(seed, epoch, stream, 0, _ROUNDS).tolist()))

    def encipher(self, values: NDArray[np.uint64]) -> None:
        """Replace each value, all below ``length``, by its image. Temporary memory is three times as much."""
        self._pass(values)
        outside = np.flatnonzero(values >= np.uint64(self.length))
        while outside.size:
            walking = values[outside]
            self._pass(walking)
            values[outside] = walking
            outside = outside[walking >= np.uint64(self.length)]

    def decipher(self, image: int) -> int:
        """The value that `encipher` replaces by ``image``: the rounds undone, walking the same cycle backwards.

        Example:
            >>> network, images = FeistelNetwork(10, keys=(11, 22, 33, 44)), np.arange(10, dtype=np.uint64)
            >>> network.encipher(images)
            >>> [network.decipher(image) for image in images.tolist()]
            [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
        """
        columns, rows = self._sides()
        while True:
            halves = list(divmod(image, columns))  # right, left
            for number in reversed(range(len(self.keys))):
                target = (number + 1) % 2  # the first round adds to the left half
                modulus = columns if target else rows
                mixed = (halves[1 - target] ^ self.keys[number]) * int(_MIX_FIRST) & _MASK
                mixed = (mixed ^ mixed >> 32) * int(_MIX_SECOND) & _MASK
                halves[target] = (halves[target] - ((mixed >> 32) * modulus >> 32)) % modulus
            image = halves[0] * columns + halves[1]
            if image < self.length:
                return image

    def _sides(self) -> tuple[int, int]:
        """Columns and rows of the grid."""
        side = math.isqrt(self.length - 1) + 1
        side += side & 1
        return side, -(-self.length // side)

    def _pass(self, values: NDArray[np.uint64]) -> None:
        """One pass over the grid, all in place: four arrays that stay in cache, instead of a hundred."""
        columns, rows = map(np.uint64, self._sides())
        right, left, mixed, shifted = np.empty((4, values.size), dtype=np.uint64)
        np.floor_divide(values, columns, out=right)
        np.multiply(right, columns, out=mixed)
        np.subtract(values, mixed, out=left)
        source, target, modulus, other_modulus = right, left, columns, rows
        for key in self.keys:
            # mixed = the high 32 bits of a multiply-xorshift-multiply of the half under the key ...
            np.bitwise_xor(source, np.uint64(key), out=mixed)
            np.multiply(mixed, _MIX_FIRST, out=mixed)
            np.right_shift(mixed, _HALF, out=shifted)
            np.bitwise_xor(mixed, shifted, out=mixed)
            np.multiply(mixed, _MIX_SECOND, out=mixed)
            np.right_shift(mixed, _HALF, out=mixed)
            # ... brought below the modulus by a multiply-high
            np.multiply(mixed, modulus, out=mixed)
            np.right_shift(mixed, _HALF, out=mixed)
            # target = (target + mixed) % modulus: where it does not exceed it, target - modulus wraps to a
            # huge number
            np.add(target, mixed, out=target)
            np.subtract(target, modulus, out=mixed)
            np.minimum(target, mixed, out=target)
            source, target, modulus, other_modulus = target, source, other_modulus, modulus
        np.multiply(right, columns, out=values)
        np.add(values, left, out=values)


@dataclass(frozen=True, slots=True)
class PermutedOrder:
    """Every index below ``length`` exactly once, in an order keyed by (seed, epoch); any position in O(1).

    Takes shorter than 4,096 are cut from aligned blocks of 4,096, of which the last two are kept, so that
    successive batches cost no more an index than one long take. Takes at random places compute a block each.

    Args:
        length: from 0 to 2**62.
        seed: from 0 to 2**64 - 1.
        epoch: from 0 to 2**64 - 1.

    Example:
        >>> order = PermutedOrder(10**9, seed=1, epoch=0)
        >>> order.take(5, 8).tolist() == order.take(0, 10)[5:8].tolist()
        True
    """

    length: int
    seed: int
    epoch: int
    _network: FeistelNetwork | None = field(init=False, repr=False, compare=False)
    _shuffled: NDArray[np.int64] | None = field(init=False, repr=False, compare=False, default=None)
    _blocks: tuple[_Block, ...] = field(init=False, repr=False, compare=False, default=())

    def __post_init__(self) -> None:
        check_count(self.length, "length")
        if self.length > _MAX_LENGTH:
            raise ValueError(f"length must be at most 2**62 to be permuted, got {self.length}")
        small = self.length < _SHUFFLE_BELOW
        network = None if small else FeistelNetwork.keyed(self.length, self.seed, self.epoch)
        object.__setattr__(self, "_network", network)

    def take(self, start: int, stop: int) -> NDArray[np.int64]:
        """See `Order.take`; fresh, or read-only."""
        check_span(start, stop, self.length)
        if self._network is None:
            return self._shuffle()[start:stop]
        if stop - start >= _BLOCK:
            return _images(self._network, np.arange(start, stop, dtype=np.uint64))
        pieces = [
            self._block(self._network, base)[max(start - base, 0) : stop - base]
            for base in range(start - start % _BLOCK, stop, _BLOCK)
        ]
        return np.concatenate(pieces) if pieces else np.empty(0, dtype=np.int64)

    def take_spans(self, start: int, size: int, stride: int, count: int) -> NDArray[np.int64]:
        """See `feedline.order.sequence.take_spans`; a fresh array."""
        check_span(start, start + (count - 1) * stride + size, self.length)
        positions = np.add.outer(np.arange(count) * stride + start, np.arange(size)).ravel()
        if self._network is None:
            return self._shuffle()[positions]
        return _images(self._network, positions.view(np.uint64))

    def position(self, index: int) -> int | None:
        """The position of an index, in O(1) (below 65,536 samples by a look through them); None where it is none.

        Example:
            >>> order = PermutedOrder(10**9, seed=1, epoch=0)
            >>> order.position(order.take(5, 6).item())
            5
        """
        if not 0 <= index < self.length:
            return None
        if self._network is None:
            return int(np.flatnonzero(self._shuffle() == index)[0])
        return self._network.decipher(index)

    def _shuffle(self) -> NDArray[np.int64]:
        """All of a small permutation, made at the first take.

        A sort by the high 48 bits of one word an element, the element's number in the low 16 bits. Any two of
        n elements share their 48 bits, and stay in order, with a probability below n**2 / 2**49 < 1e-5.
        """
        if self._shuffled is None:
            stream = seeding.Stream.PERMUTATION.word()
            shuffled = np.empty(self.length, dtype=np.int64)  # all in one array: fresh memory costs more than the sort
            words = shuffled.view(np.uint64)
            seeding.fill_words(words, self.seed, self.epoch, stream)
            low = words.view(np.uint16)[0 if sys.byteorder == "little" else 3 :: 4]
            low[:] = np.arange(self.length, dtype=np.uint16)
            words.sort()
            words &= _NUMBER_MASK
            shuffled.flags.writeable = False
            object.__setattr__(self, "_shuffled", shuffled)
        assert self._shuffled is not None
        return self._shuffled

    def _block(self, network: FeistelNetwork, base: int) -> NDArray[np.int64]:
        """The indices of the block that begins at ``base``.

        The blocks kept are replaced as one tuple: threads that meet here may compute a block twice, but never
        see one under another's name.
        """
        kept = self._blocks
        for kept_base, block in kept:
            if kept_base == base:
                return block
        block = _images(network, np.arange(base, min(base + _BLOCK, self.length), dtype=np.uint64))
        object.__setattr__(self, "_blocks", (*kept[-1:], (base, block)))
        return block


def _images(network: FeistelNetwork, images: NDArray[np.uint64]) -> NDArray[np.int64]:
    """The images of positions, in their place, in chunks whose temporaries stay in cache."""
    for begin in range(0, images.size, _CHUNK):
        network.encipher(images[begin : begin + _CHUNK])
    return images.view(np.int64)
