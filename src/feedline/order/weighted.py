"""Draws in proportion to weights: with replacement in O(1) a draw, or each sample at most once.

Guarantee: the draws are those of exact integers that stand within about one part in 10¹² of the given weights
(see `AliasTable`); a sample of weight zero is never drawn, one of positive weight can be. Nothing here calls
a function whose last bit differs between machines: integers, comparisons, and IEEE 754's basic operations
alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from feedline import seeding
from feedline.checks import column
from feedline.order.sequence import check_count, check_span

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = ["AliasTable", "WeightedDistinctOrder", "WeightedOrder", "check_distinct", "checked_weights"]

_WORD_BITS = 64
_LOG_2 = 0.6931471805599453
_CHUNK = 1 << 14  # keys made at a time: all their temporaries stay in the processor's cache
_MAX_UNIT_BITS = 50  # finer than float64 weights are, a unit would only hold the noise of their sum


def checked_weights(weights: ArrayLike) -> NDArray[np.float64]:
    """The weights as a fresh array of float64, shape (N,).

    Args:
        weights: numbers of any real type: floats, integers, booleans, fractions.

    Raises:
        ValueError: they are not one-dimensional, no real numbers, there is none, one is negative, NaN or infinite (as
            float64), or all are zero.

    Example:
        >>> checked_weights([1, 0, -2])
        Traceback (most recent call last):
        ...
        ValueError: weights must be finite and not negative, got -2.0 at index 2
    """
    given = column("weights", weights, "one a sample")
    if given.ndim != 1:
        raise ValueError(f"weights must be one-dimensional, one a sample, got shape {given.shape}")
    if given.size and given.dtype.kind not in "biufO":  # float64 would take strings for numbers, and half of a complex
        raise ValueError(f"weights must be real numbers, got dtype {given.dtype}")
    try:
        with np.errstate(over="ignore", under="ignore"):  # of longer floats: infinity is refused below
            checked = given.astype(np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"weights must be real numbers within the range of float64: {error}") from error
    if not checked.size:
        raise ValueError("weights must hold at least one weight, got none")
    largest = checked.max()
    if not (checked.min() >= 0 and largest < np.inf):  # nor is a NaN, which both would be
        wrong = np.flatnonzero(~(np.isfinite(checked) & (checked >= 0)))[0]
        raise ValueError(f"weights must be finite and not negative, got {checked[wrong]} at index {wrong}")
    if not largest:
        raise ValueError(f"weights must not all be zero, got {checked.size} zeros")
    return checked


def check_distinct(count: int, weights: NDArray[np.float64], name: str) -> None:
    """Refuse more draws without replacement than there are samples to draw.

    Raises:
        ValueError: ``count`` exceeds the number of positive weights.

    Example:
        >>> check_distinct(2, np.array([0.0, 3.0]), "num_samples")
        Traceback (most recent call last):
        ...
        ValueError: num_samples must be at most the number of positive weights (1) when samples are drawn \
without replacement, got 2: draw fewer, or with replacement
    """
    positive = np.count_nonzero(weights)
    if count > positive:
        raise ValueError(
            f"{name} must be at most the number of positive weights ({positive}) when samples are drawn "
            f"without replacement, got {count}: draw fewer, or with replacement"
        )


class AliasTable:
    """Draws from N weights in O(1) each (Walker, 1977): a bucket, then its coin for the sample or its alias.

    The weights are first rounded to integers that sum to exactly N * 2**k, with k at most 50 and N * 2**k
    below 2**63: each probability is within 2**(3 - k) of its weight's share, relative to the larger of that
    share and 1 / N (1e-12 up to a million weights, 1e-9 at a billion). A positive weight keeps at least one
    unit. From there on the table is exact. It is built without a loop over samples, from prefix sums of what
    light buckets lack and heavy ones have too much (Hübschle-Schneider & Sanders, "Parallel weighted random
    sampling", ACM TOMS 2022).

    Args:
        weights: shape (N,), finite, not negative, not all zero; copied.

    Raises:
        ValueError: the weights are not that.

    Example:
        >>> table = AliasTable([1, 0, 3])
        >>> table.probabilities()
        array([0.25, 0.  , 0.75])
        >>> words = seeding.bulk_words(1, 0, seeding.Stream.DRAW.word(), 0, 8_000)
        >>> counts = np.bincount(table.draw(words[0::2], words[1::2]))
        >>> (counts / 4_000).round(1)
        array([0.2, 0. , 0.8])
    """

    __slots__ = ("_alias", "_coin_shift", "_threshold", "population")

    population: int

    def __init__(self, weights: ArrayLike) -> None:
        checked = checked_weights(weights)
        self.population = checked.size
        unit_bits = min(_MAX_UNIT_BITS, _WORD_BITS - 1 - self.population.bit_length())
        self._coin_shift = np.uint64(_WORD_BITS - unit_bits)
        self._threshold, self._alias = _paired(_as_integers(checked, unit_bits), 1 << unit_bits)

    def draw(self, bucket_words: NDArray[np.uint64], coin_words: NDArray[np.uint64]) -> NDArray[np.int64]:
        """One index for each pair of independent uniform words, in the shape that both arrays have."""
        bucket = seeding.below(bucket_words, self.population).view(np.int64)
        coin = (coin_words >> self._coin_shift).view(np.int64)
        return np.where(coin < self._threshold[bucket], bucket, self._alias[bucket])

    def probabilities(self) -> NDArray[np.float64]:
        """The probability of each index that the table implies, shape (N,)."""
        unit = 1 << (_WORD_BITS - int(self._coin_shift))
        mass = self._threshold.copy()
        np.add.at(mass, self._alias, unit - self._threshold)
        return mass / (float(unit) * self.population)


def _as_integers(weights: NDArray[np.float64], unit_bits: int) -> NDArray[np.int64]:
    """The weights in proportion, as integers that sum to exactly ``len(weights) << unit_bits``."""
    total = len(weights) << unit_bits
    with np.errstate(under="ignore"):
        shares = weights / weights.max()  # so that no sum overflows
    integers: NDArray[np.int64] = np.rint(shares * (total / _pairwise_sum(shares))).astype(np.int64)
    np.maximum(integers, weights > 0, out=integers)
    # What rounding made too much or too little goes to those of at least half the mean:
    # in proportion, then by ones.
    large = np.flatnonzero(integers >= 1 << (unit_bits - 1))
    missing = total - int(integers.sum())
    integers[large] += (missing * (integers[large] / float(integers[large].sum()))).astype(np.int64)
    missing = total - int(integers.sum())
    integers[large[: abs(missing)]] += 1 if missing > 0 else -1
    return integers


def _pairwise_sum(values: NDArray[np.float64]) -> float:
    """The sum by halving, within log2(N) ulp: the same bits on every machine, unlike a vectorised ``sum``."""
    while values.size > 1:
        half = (values.size + 1) // 2
        folded = values[:half].copy()
        folded[: values.size - half] += values[half:]
        values = folded
    return float(values[0])


def _paired(integers: NDArray[np.int64], unit: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Thresholds and aliases of integer weights whose mean is ``unit``.

    Sweep over light buckets (below the unit) and heavy ones at once: the current heavy bucket fills light
    ones until its excess is used up; then it takes what it lacks itself from the next heavy one. After lights
    1..i and heavies 1..j, the current heavy bucket holds unit + excess[1..j] - lack[1..i]: prefix sums say
    where each step of the sweep happens.
    """
    light, heavy = np.flatnonzero(integers < unit), np.flatnonzero(integers >= unit)
    lack = np.concatenate([[0], np.cumsum(unit - integers[light])])
    excess = np.cumsum(integers[heavy] - unit)
    threshold, alias = integers.copy(), np.arange(len(integers), dtype=np.int64)
    alias[light] = heavy[np.searchsorted(excess, lack[:-1], side="right")]
    threshold[heavy] = unit + excess - lack[np.searchsorted(lack, excess, side="left")]
    alias[heavy[:-1]] = heavy[1:]
    return threshold, alias


@dataclass(frozen=True, slots=True, eq=False)
class WeightedOrder:
    """``length`` independent draws from a table, in O(1) to seek.

    Position p uses words 2p and 2p + 1 of the stream ``Stream.DRAW``.

    Example:
        >>> order = WeightedOrder(AliasTable([0, 1, 0]), length=4, seed=1, epoch=0)
        >>> order.take(0, 4)
        array([1, 1, 1, 1])
    """

    table: AliasTable
    length: int
    seed: int
    epoch: int

    def __post_init__(self) -> None:
        check_count(self.length, "length")

    def take(self, start: int, stop: int) -> NDArray[np.int64]:
        """See `Order.take`; a fresh array."""
        check_span(start, stop, self.length)
        stream = seeding.Stream.DRAW.word()
        words = seeding.bulk_words(self.seed, self.epoch, stream, 2 * start, 2 * (stop - start))
        return self.table.draw(words[0::2], words[1::2])


@dataclass(frozen=True, slots=True, eq=False)
class WeightedDistinctOrder:
    """Draws without replacement: each in proportion to the weights of those not drawn yet.

    Samples in ascending order of Exp(1) / weight (Efraimidis & Spirakis, "Weighted random sampling with a
    reservoir", Information Processing Letters 2006), compared by their logarithms, which neither overflow nor
    underflow. One pass at the first take, O(N) for the keys and O(k log k) to sort the k = ``length`` lowest;
    then it holds those k integers, and seeks in O(1).

    Args:
        weights: as `AliasTable` takes them; held, not copied.
        length: at most the number of positive weights.
        seed: from 0 to 2**64 - 1.
        epoch: from 0 to 2**64 - 1.

    Raises:
        ValueError: the weights are not valid, or fewer than ``length`` of them are positive.

    Example:
        >>> order = WeightedDistinctOrder(np.array([1.0, 0.0, 2.0]), length=2, seed=1, epoch=0)
        >>> sorted(order.take(0, 2).tolist())
        [0, 2]
    """

    weights: NDArray[np.float64]
    length: int
    seed: int
    epoch: int
    _drawn: NDArray[np.int64] | None = field(init=False, repr=False, default=None)

    def __post_init__(self) -> None:
        check_count(self.length, "length")
        check_distinct(self.length, checked_weights(self.weights), "length")

    def take(self, start: int, stop: int) -> NDArray[np.int64]:
        """See `Order.take`; a read-only array."""
        check_span(start, stop, self.length)
        if self._drawn is None:
            object.__setattr__(self, "_drawn", self._draw())
        assert self._drawn is not None
        return self._drawn[start:stop]

    def _draw(self) -> NDArray[np.int64]:
        keys = self._keys()
        if 0 < self.length < len(keys):  # only those that can be drawn are sorted, which makes a short epoch O(N)
            candidates = np.flatnonzero(keys <= np.partition(keys, self.length - 1)[self.length - 1])
            drawn = candidates[_ascending(keys[candidates])[: self.length]]
        else:
            drawn = _ascending(keys)[: self.length]
        drawn.flags.writeable = False
        return drawn

    def _keys(self) -> NDArray[np.float64]:
        """log(Exp(1) / weight) of each sample, infinite where the weight is zero."""
        keys = np.full(len(self.weights), np.inf)
        stream = seeding.Stream.DRAW.word()
        for start in range(0, len(keys), _CHUNK):
            weights = np.asarray(self.weights[start : start + _CHUNK], dtype=np.float64)
            positive = np.flatnonzero(weights)
            words = seeding.bulk_words(self.seed, self.epoch, stream, start, len(weights))[positive]
            # 52 bits and a half: inside (0, 1), symmetric, exact; so neither logarithm meets a zero
            uniform = ((words >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52
            keys[start + positive] = _log(-_log(uniform)) - _log(weights[positive])
        return keys


def _ascending(keys: NDArray[np.float64]) -> NDArray[np.int64]:
    """Indices that sort the keys, at equal keys the lower one first: a stable sort, at the speed of NumPy's fastest.

    That one is vectorised, seven times as fast, and leaves equal keys in an order that depends on the processor. They
    are rare here: put right afterwards.
    """
    indices: NDArray[np.int64] = np.argsort(keys)
    ranked = keys[indices]
    equal = np.flatnonzero(ranked[1:] == ranked[:-1])
    if equal.size:
        places = np.union1d(equal, equal + 1)
        among = indices[places]
        indices[places] = among[np.lexsort((among, keys[among]))]
    return indices


def _log(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The natural logarithm of positive numbers, within about 2 ulp, the same on every machine.

    ``np.log`` is not: its last bit depends on the processor's vector instructions. With the mantissa m in
    [sqrt(1/2), sqrt(2)) and s = (m - 1) / (m + 1), log(m) = 2 artanh(s) = 2 s (1 + s**2/3 + s**4/5 + ...).
    """
    mantissa, exponent = np.frexp(values)
    below = mantissa < np.sqrt(0.5)
    mantissa = np.where(below, 2 * mantissa, mantissa)
    ratio = (mantissa - 1) / (mantissa + 1)
    square = ratio * ratio
    series = np.zeros_like(square)
    for odd in range(23, 0, -2):  # the next term is below 0.03**12 / 25 = 2e-20
        series = series * square + 1 / odd
    logarithm: NDArray[np.float64] = 2 * ratio * series + (exponent - below) * _LOG_2
    return logarithm
