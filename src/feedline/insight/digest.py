"""The digest: a running hash of what a loader has delivered, by which two runs prove that they saw the same data.

Guarantee: equal for equal streams of batches, and, but for a chance of about 2⁻¹²⁸, different where an index, its place
or a step differs. A batch has a mark, a hash of 128 bits of its epoch, its step and its indices; the digest is the sum
of the marks of the batches handed out, modulo 2¹²⁸. So neither the backend nor the order of delivery matters, and the
digests of the parts of a run add up to that of the whole. It finds mistakes; it is no protection from a forger.

What the mark is of:

- the indices as they were asked for: integers are equal whether they come in an array or in a list; what else a user's
  sampler yields counts by its value where it is a container or an array (tuples and lists alike), else by its type and
  its ``repr``;
- samples that were skipped or replaced: the indices that failed count as well, so that a run in which samples failed
  differs from one in which they did not;
- of a stream, which has no indices: the position up to which it is read with this batch, and its number of samples.

Batches that were not handed out (an error was raised in their place, or ``collate_fn`` left nothing) do not count. What
``collate_fn`` or ``batch_transform`` make of a batch is not looked at, nor is what the dataset gives.
"""

from __future__ import annotations

import json
import operator
import re
import struct
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from feedline.order.plan import BatchPlan

__all__ = ["Digest", "add_digests", "mark"]

_NBYTES = 16  # two of 10**15 batches share a mark with a chance of 10**-9; blake2b hashes 256 indices in 1.9 µs
_MASK = (1 << 8 * _NBYTES) - 1
_PAIR = struct.Struct("<QQ").pack  # two numbers fill the salt of blake2b
_LITTLE = np.dtype("<i8")


class Digest:
    """The sum of the marks of what was delivered.

    Attributes:
        total: the sum, not reduced. To change it is one statement that calls nothing, so that Ctrl-C does not come in
            between.

    Example:
        >>> digest = Digest()
        >>> digest.total += 255
        >>> str(digest)
        '000000000000000000000000000000ff'
    """

    __slots__ = ("total",)

    def __init__(self) -> None:
        self.total = 0

    def __str__(self) -> str:
        return f"{self.total & _MASK:0{2 * _NBYTES}x}"


def add_digests(*digests: str) -> str:
    """The digest of a run, of the digests of its parts: of the process that was interrupted and of those that went on.

    They must have had the same batch size and number of ranks: the digest is of batches. The digests of the ranks add
    up as well, to one of what all of them delivered, which is not that of one process that delivers it all.

    Raises:
        ValueError: one is not 32 hexadecimal digits.

    Example:
        >>> import feedline
        >>> whole, first, rest = (feedline.DataLoader(range(100), 10, shuffle=True, seed=1) for _ in range(3))
        >>> batches = list(whole), [batch for batch, _ in zip(first, range(3))]
        >>> rest.load_state_dict(first.state_dict())
        >>> batches += (list(rest),)
        >>> add_digests(first.digest(), rest.digest()) == whole.digest()
        True
    """
    digest = Digest()
    for each in digests:
        if not isinstance(each, str) or re.fullmatch(f"[0-9a-fA-F]{{{2 * _NBYTES}}}", each) is None:
            raise ValueError(f"a digest must be the {2 * _NBYTES} hexadecimal digits of loader.digest(), got {each!r}")
        digest.total += int(each, 16)
    return str(digest)


def mark(plan: BatchPlan, until: int, samples: int, failed: Sequence[Any] = ()) -> int:
    """What a delivered batch adds to the digest: a number of 128 bits.

    Args:
        plan: the batch; without indices it is of a stream.
        until: the position up to which the epoch is done with it; counts for a stream alone.
        samples: how many samples it has; counts for a stream alone.
        failed: the indices of the samples that failed.

    Example:
        >>> from feedline.order.plan import BatchPlan
        >>> plans = BatchPlan(0, 5, np.arange(3), 0, 3), BatchPlan(0, 5, [0, 1, 2], 0, 3), BatchPlan(0, 5, [0, 2], 0, 3)
        >>> one, same, other = (mark(plan, 3, 3) for plan in plans)
        >>> one == same, one == other
        (True, False)
    """
    indices = plan.indices
    data: Any  # a buffer
    if isinstance(indices, np.ndarray):
        kind, data = b"integers", np.ascontiguousarray(indices, _LITTLE)
    elif len(indices):
        kind, data = _encoded(indices)
    else:
        kind, data = b"stream", _PAIR(until, samples)
    if failed:
        how, failures = _encoded(failed)
        kind, data = kind + b"-failed", b"".join((_PAIR(len(data), len(failed)), data, how, failures))
    hashed = blake2b(data, digest_size=_NBYTES, salt=_PAIR(plan.epoch, plan.step), person=kind)
    return int.from_bytes(hashed.digest(), "little")


def _encoded(indices: Sequence[Any]) -> tuple[bytes, bytes]:
    """Indices that a user's sampler listed: integers as an array of them has it, all else as JSON."""
    try:
        return b"integers", struct.pack(f"<{len(indices)}q", *indices)
    except Exception:  # noqa: BLE001 -- the user's objects may raise anything where they are no integers
        try:
            return b"items", json.dumps(list(indices), default=_plain).encode()
        except Exception:  # noqa: BLE001 -- a list within itself, or an integer of thousands of digits
            return b"written", _written(indices).encode()


def _plain(value: Any) -> Any:
    """What JSON has no form of: sets, integers and arrays of any library; all else by its type and its ``repr``."""
    if isinstance(value, set | frozenset):
        return sorted(map(_written, value))
    try:
        return operator.index(value)
    except Exception:  # noqa: BLE001 -- no integer
        try:
            listed = value.tolist()
        except Exception:  # noqa: BLE001 -- no array either
            listed = value
    return {"": _written(value)} if type(listed) is type(value) else listed


def _written(value: Any) -> str:
    try:
        text = ascii(value)
    except Exception:  # noqa: BLE001 -- the user's code; delivery shall not fail for it
        text = ""
    return f"{type(value).__module__}.{type(value).__qualname__} {text!a}"
