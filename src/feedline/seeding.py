"""Randomness as a function of place: the same sample gets the same numbers, wherever and whenever it is made.

Guarantee (contract 2): every number that Feedline draws is a word of Philox4x64-10 (Salmon et al., "Parallel random
numbers: as easy as 1, 2, 3", SC 2011) with

- key ``(seed, epoch)`` and
- counter ``(block, index, position, stream)``, lowest word first, ``block`` counting from 1 as NumPy's generator does.

``position`` is the sample's global position in the epoch, before sharding; ``stream`` separates who draws. Words become
numbers by the formulas below alone, never by methods of ``numpy.random.Generator``, whose streams may change between
NumPy versions. Nothing here changes a global generator but by drawing a seed from Python's.
"""

from __future__ import annotations

import random
import sys
import threading
import zlib
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Self, overload

import numpy as np
import numpy.random  # NumPy imports it lazily, which would cost the first batch 8 ms

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "Scope",
    "Stream",
    "below",
    "bulk_words",
    "checked_seed",
    "draw_seed",
    "fill_words",
    "rng",
    "seed_from",
    "shared_seed",
    "uniform",
    "words",
    "worker_seed",
]

_MASK64 = (1 << 64) - 1
_WORDS_PER_BLOCK = 4
_CHUNK = 8192  # words drawn at a time: 64 KiB, which the allocator hands out warm
_KIND_SHIFT = 32  # leaves 2³² places in a chain of transforms


class Stream(IntEnum):
    """Who draws: the high part of the counter's last word, so that no two kinds of draw share a word."""

    TRANSFORM = 1
    USER = 2
    GLOBAL = 3
    PERMUTATION = 4
    DRAW = 5
    SPLIT = 6
    REPLACEMENT = 7
    PASS = 8
    SAMPLER = 9
    WORKER = 10

    def word(self, detail: int = 0) -> int:
        """The counter's last word for this kind; ``detail`` counts within the kind, below 2³²."""
        return (self << _KIND_SHIFT) + detail


_TRANSFORM_STREAM = Stream.TRANSFORM.word()
_GLOBAL_STREAM = Stream.GLOBAL.word()


# ---------------------------------------------------------------------------------------------------- words to numbers


@overload
def uniform(word: int) -> float: ...
@overload
def uniform(word: NDArray[np.uint64]) -> NDArray[np.float64]: ...
def uniform(word: int | NDArray[np.uint64]) -> float | NDArray[np.float64]:
    """A float64 in [0, 1): the word's high 53 bits times 2⁻⁵³, exact for a Python integer and for an array.

    Example:
        >>> uniform(1 << 63)
        0.5
    """
    if isinstance(word, int):
        return (word >> 11) * 2.0**-53
    return (word >> np.uint64(11)).astype(np.float64) * 2.0**-53


@overload
def below(word: int, bound: int) -> int: ...
@overload
def below(word: NDArray[np.uint64], bound: int) -> NDArray[np.uint64]: ...
def below(word: int | NDArray[np.uint64], bound: int) -> int | NDArray[np.uint64]:
    """An integer in [0, bound): ``word * bound >> 64`` (Lemire, 2019), whose bias is at most bound / 2⁶⁴.

    Args:
        word: one word, or an array of words of any shape.
        bound: below 2⁶⁴ for arrays; any positive integer for one word.

    Example:
        >>> below(1 << 63, 10)
        5
    """
    if isinstance(word, int):
        return (word * bound) >> 64
    if not 0 < bound <= _MASK64:
        raise ValueError(f"bound must be from 1 to 2**64 - 1 for an array of words, got {bound}")
    half, low_half = np.uint64(32), np.uint64(0xFFFFFFFF)
    high, low = word >> half, word & low_half
    bound_high, bound_low = np.uint64(bound >> 32), np.uint64(bound & 0xFFFFFFFF)
    middle = high * bound_low + ((low * bound_low) >> half)  # at most (2**32 - 1) * 2**32
    if not bound_high:
        return middle >> half
    other = low * bound_high + (middle & low_half)
    product: NDArray[np.uint64] = high * bound_high + (middle >> half) + (other >> half)
    return product


def bulk_words(seed: int, epoch: int, stream: int, start: int, count: int) -> NDArray[np.uint64]:
    """Words ``start`` to ``start + count`` of one stream, in O(count) for any start.

    Example:
        >>> whole = bulk_words(1, 0, Stream.DRAW.word(), 0, 10)
        >>> (bulk_words(1, 0, Stream.DRAW.word(), 7, 3) == whole[7:]).all()
        np.True_
    """
    block, skip = divmod(start, _WORDS_PER_BLOCK)
    return _source_at(seed, epoch, stream, block).random_raw(skip + count)[skip:]


def fill_words(out: NDArray[np.uint64], seed: int, epoch: int, stream: int) -> None:
    """Words 0, 1, … of one stream into ``out``, as `bulk_words` gives them, without a second array of that size.

    Example:
        >>> words = np.empty(10_000, np.uint64)
        >>> fill_words(words, 1, 0, Stream.DRAW.word())
        >>> (words == bulk_words(1, 0, Stream.DRAW.word(), 0, 10_000)).all()
        np.True_
    """
    source = _source_at(seed, epoch, stream, block=0)
    for start in range(0, len(out), _CHUNK):
        part = out[start : start + _CHUNK]
        part[:] = source.random_raw(len(part))


def _source_at(seed: int, epoch: int, stream: int, block: int) -> np.random.Philox:
    """The words of a stream that no sample has, from a block on."""
    counter = np.array([block, 0, 0, stream], dtype=np.uint64)
    return np.random.Philox(counter=counter, key=np.array([seed, epoch], dtype=np.uint64))


# ------------------------------------------------------------------------------------------------------------- seeds


def draw_seed() -> int:
    """A fresh seed of 63 bits from Python's ``random``, so that ``random.seed(0)`` makes a run repeatable."""
    return random.getrandbits(63)


def shared_seed(generator: Any = None) -> int:
    """A seed that all ranks have: rank 0's draw where torch.distributed is initialised.

    Elsewhere it is 0 or, where a generator is given, that one's draw: the ranks then need equal generators.

    Args:
        generator: what rank 0 draws from, as in `seed_from`; None: Python's ``random``.

    Raises:
        TypeError: as `seed_from`.
    """
    distributed = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return 0 if generator is None else seed_from(generator)
    box: list[int | None] = [None]
    if generator is not None:  # drawn from on every rank: generators that were equal stay so
        box = [seed_from(generator)]
    elif distributed.get_rank() == 0:
        box = [draw_seed()]
    distributed.broadcast_object_list(box, src=0)
    assert box[0] is not None
    return box[0]


def checked_seed(seed: object, name: str = "seed") -> int:
    """The seed as a plain integer.

    Raises:
        TypeError: it is no integer.
        ValueError: it is negative or over 64 bits.
    """
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer):
        raise TypeError(f"{name} must be an integer from 0 to 2**64 - 1, got {seed!r} ({type(seed).__name__})")
    if not 0 <= seed <= _MASK64:
        raise ValueError(f"{name} must be an integer from 0 to 2**64 - 1, got {seed}")
    return int(seed)


def seed_from(generator: Any) -> int:
    """A seed of 63 bits drawn from a generator of the user's, which thereby advances.

    Args:
        generator: a ``random.Random``, a ``numpy.random.Generator`` or a ``torch.Generator``. NumPy's gives raw
            words of its bit generator, so that the seed is the same under every NumPy version.

    Raises:
        TypeError: it is none of these.

    Example:
        >>> seed_from(random.Random(0)) == seed_from(random.Random(0))
        True
    """
    if isinstance(generator, random.Random):
        return generator.getrandbits(63)
    if isinstance(generator, np.random.Generator):
        high, low = generator.bit_generator.random_raw(2).tolist()
        return int((high << 32) ^ low) & (_MASK64 >> 1)  # of some bit generators a raw word has 32 bits
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(generator, torch.Generator):
        drawn = torch.randint(_MASK64 >> 1, (), generator=generator, device=generator.device)
        return int(drawn.item())
    raise TypeError(
        "generator must be a random.Random, numpy.random.Generator or torch.Generator, "
        f"got {type(generator).__name__}; give an integer as seed="
    )


def worker_seed(seed: int, number: int) -> int:
    """What a worker's global generators are seeded with before ``worker_init_fn``: 64 bits."""
    return int(bulk_words(seed, 0, Stream.WORKER.word(), number, 1)[0])


# ------------------------------------------------------------------------------------------------------------- scopes


class _Current(threading.local):
    scope: Scope | None = None


_current = _Current()


class _Source:
    """One Philox that is re-keyed in about a microsecond; constructing one takes eight times as long."""

    __slots__ = ("_bits", "_counter", "_key", "_state", "generator")

    def __init__(self) -> None:
        self._bits = np.random.Philox(0)
        self.generator = np.random.Generator(self._bits)
        self._counter = np.zeros(4, dtype=np.uint64)
        self._key = np.zeros(2, dtype=np.uint64)
        self._state: Any = {
            "bit_generator": "Philox",
            "state": {"counter": self._counter, "key": self._key},
            "buffer": np.zeros(_WORDS_PER_BLOCK, dtype=np.uint64),
            "buffer_pos": _WORDS_PER_BLOCK,
            "has_uint32": 0,
            "uinteger": 0,
        }

    def rekey(self, seed: int, epoch: int, index: int, position: int, stream: int) -> np.random.Philox:
        self._key[:] = seed, epoch
        self._counter[:] = 0, index, position, stream
        self._bits.state = self._state
        return self._bits


class Scope:
    """The sample, or the batch, that a thread is making: what `words` and `rng` take their key from.

    As a context it is the thread's current scope; leaving it puts back the one before (loaders may be nested). Not for
    use by several threads, nor to be entered again before it was left.

    Attributes:
        entered: the sample's global position and its index; a new tuple for each time that a sample is made.

    Example:
        >>> with Scope().begin(seed=1, epoch=0) as scope:
        ...     scope.enter(position=5, index=3)
        ...     words(1) == words(1)  # each call takes the next place in the chain
        False
    """

    __slots__ = ("_drawn", "_epoch", "_outer", "_place", "_seed", "_source", "_user", "_uses", "entered")

    def __init__(self) -> None:
        self._source: _Source | None = None  # made at the first use of `words`: array datasets have none
        self._user: _Source | None = None  # made at the first use of `rng`, then re-keyed
        self.begin(0, 0)

    def begin(self, seed: int, epoch: int) -> Self:
        """Begin a batch of this seed and epoch; no sample is entered."""
        self._seed, self._epoch = seed, epoch
        self.entered: tuple[int, object] = 0, 0
        self._drawn: object = None
        return self

    def __enter__(self) -> Self:
        self._outer = _current.scope
        _current.scope = self
        return self

    def __exit__(self, *_: object) -> None:
        _current.scope = self._outer

    def enter(self, position: int, index: object) -> None:
        """Enter the sample at a global position (and, for a batch's own draws, its first position)."""
        self.entered = position, index

    def _begin_sample(self) -> None:
        """The first draw for a sample: entering one costs next to nothing, for most samples draw nothing."""
        self._drawn = self.entered
        self._place = 0
        self._uses = False

    def words(self, count: int) -> list[int]:
        """The words of the next transform: each call takes a place in the chain, each place has its own stream."""
        if self._drawn is not self.entered:
            self._begin_sample()
        stream = _TRANSFORM_STREAM + self._place
        self._place += 1
        source = self._keyed(stream)
        drawn: list[int] = source.random_raw(count).tolist()
        return drawn

    def rng(self) -> np.random.Generator:
        """The sample's generator: the same object, going on, until the next sample is entered."""
        if self._drawn is not self.entered:
            self._begin_sample()
        if self._user is None:
            self._user = _Source()
        if not self._uses:
            self._uses = True
            self._rekeyed(self._user, Stream.USER.word())
        return self._user.generator

    def global_seed(self) -> int:
        """The 64-bit number that global generators are seeded with for this sample."""
        return int(self._keyed(_GLOBAL_STREAM).random_raw())

    def _keyed(self, stream: int) -> np.random.Philox:
        if self._source is None:
            self._source = _Source()
        return self._rekeyed(self._source, stream)

    def _rekeyed(self, source: _Source, stream: int) -> np.random.Philox:
        position, index = self.entered
        word = index & _MASK64 if type(index) is int else _index_word(index)
        return source.rekey(self._seed, self._epoch, word, position, stream)


def _index_word(index: object) -> int:
    """64 bits for an index of any type: integers as they are, all else by a CRC of its repr."""
    if isinstance(index, int | np.integer):
        return int(index) & _MASK64
    return zlib.crc32(repr(index).encode("utf-8", "backslashreplace"))


def words(count: int) -> list[int]:
    """The next transform's words: keyed by the sample inside a loader, drawn from Python's ``random`` outside one.

    Example:
        >>> with Scope().begin(seed=1, epoch=0) as scope:
        ...     scope.enter(position=5, index=3)
        ...     first = words(2)
        ...     scope.enter(position=5, index=3)
        ...     first == words(2)
        True
    """
    scope = _current.scope
    if scope is None:
        return [random.getrandbits(64) for _ in range(count)]
    return scope.words(count)


def rng() -> np.random.Generator:
    """A generator for the code of a dataset, a transform or a collate function.

    Inside a loader it is keyed by (seed, epoch, position, index) of the sample being made (in collate and
    ``batch_transform``: by the batch's first position), hence the same for any number of workers, on any backend and
    after a resume; it is the same object until the sample is done, and must not be kept longer. Outside a loader each
    call gives a new generator, seeded from Python's ``random``.

    Example:
        >>> import feedline
        >>> noisy = feedline.TensorDataset(np.zeros(4)).map(lambda x: x + feedline.rng().normal(), key=0)
        >>> first, again = (list(feedline.DataLoader(noisy, batch_size=4, seed=1)) for _ in range(2))
        >>> (first[0][0] == again[0][0]).all()
        np.True_
    """
    scope = _current.scope
    if scope is None:
        return np.random.Generator(np.random.Philox(random.getrandbits(128)))
    return scope.rng()
