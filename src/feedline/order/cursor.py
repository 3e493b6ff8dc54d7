"""The cursor: how far a loader has come, as a small piece of JSON.

Guarantee (contract 3): a `Cursor` describes what was *delivered*, is the same on every rank, is O(1) to write and to
read, and resumes with another number of ranks, workers or another batch size. Where batches came as they were ready, it
lists the steps still to come: it is this rank's alone then, and keeps its geometry. `Cursor.from_state` survives any
input: it returns a cursor that holds together, or raises `StateError` and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any

from feedline.errors import DatasetChanged, StateError

__all__ = ["NAME_LENGTH", "Cursor", "Tally"]

_VERSION = 1
_LARGEST = (1 << 63) - 1  # positions are int64; seeds may take 64 bits
_LARGEST_SEED = (1 << 64) - 1
_LARGEST_SIZE = 1 << 128  # a batch may be asked to be larger than anything, to have all in one
NAME_LENGTH = 100
_PRINTED_BITS = 256


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a loader stands.

    Attributes:
        seed: the run's seed, or None when none was needed yet.
        epoch: the epoch of the next batch.
        position: how many items of that epoch's sequence all ranks together have delivered. Items are samples; under a
            batch sampler that decides itself what a batch is they are batches.
        origin: the position at which the present batch size and world began.
        batch_size: items of a step on one rank.
        world_size: how many ranks share the epoch.
        length: how many items the epoch has, or None when that is unknown.
        sampler: the kind of sampler that ordered them.
        sampler_state: what a user's sampler saved of itself, or None.
        undelivered: this rank's steps before ``position`` that are still to come, increasing: there are some where
            batches leave as they are ready. ``sampler_state`` is of the first of them then.
    """

    seed: int | None
    epoch: int
    position: int
    origin: int
    batch_size: int
    world_size: int
    length: int | None
    sampler: str
    sampler_state: Any = None
    undelivered: tuple[int, ...] = ()

    def to_state(self) -> dict[str, Any]:
        """The cursor as JSON values, under 1 KiB unless a user's sampler saves more."""
        return {"feedline": _VERSION, **asdict(self), "undelivered": list(self.undelivered)}

    @property
    def resumes_at(self) -> int:
        """The position of the first step still to come."""
        return self.origin + self.undelivered[0] * self.span if self.undelivered else self.position

    @property
    def delivered_beyond(self) -> frozenset[int]:
        """The steps from there on that were delivered, and come no more."""
        if not self.undelivered:
            return frozenset()
        return frozenset(range(self.undelivered[0], self.next_step)) - frozenset(self.undelivered)

    @property
    def next_step(self) -> int:
        """The step that begins at ``position``."""
        return -((self.origin - self.position) // self.span)  # the last one may be short

    @property
    def span(self) -> int:
        """How many items all ranks deliver in a full step."""
        return self.batch_size * self.world_size

    @classmethod
    def from_state(cls, state: object) -> Cursor:
        """The cursor that `to_state` wrote.

        Raises:
            StateError: ``state`` is no mapping, of another version, or damaged; the message names the field.
        """
        if not isinstance(state, Mapping):
            raise StateError(f"state must be the dict that state_dict() gave, got {type(state).__name__}")
        version = state.get("feedline")
        if isinstance(version, bool) or version != _VERSION:
            raise StateError(f"state['feedline'] must be {_VERSION}, the version of the format, got {_shown(version)}")
        known = {"feedline", *cls.__dataclass_fields__}
        unknown = sorted(repr(key)[:40] for key in state if not (isinstance(key, str) and key in known))
        if unknown:
            raise StateError(f"state has fields that no version {_VERSION} state has: {', '.join(unknown[:5])}")
        sampler = state.get("sampler")
        if not isinstance(sampler, str) or not 0 < len(sampler) <= NAME_LENGTH:
            raise StateError(f"state['sampler'] must be the name of a sampler, got {_shown(sampler)}")
        cursor = cls(
            seed=None if state.get("seed") is None else _integer(state, "seed", 0, _LARGEST_SEED),
            epoch=_integer(state, "epoch", 0, _LARGEST),
            position=_integer(state, "position", 0, _LARGEST),
            origin=_integer(state, "origin", 0, _LARGEST),
            batch_size=_integer(state, "batch_size", 1, _LARGEST_SIZE),
            world_size=_integer(state, "world_size", 1, _LARGEST_SIZE),
            length=None if state.get("length") is None else _integer(state, "length", 0, _LARGEST),
            sampler=sampler,
            sampler_state=state.get("sampler_state"),
            undelivered=_steps(state.get("undelivered", ())),
        )
        cursor._check()
        return cursor

    def resumed_by(self, start: Cursor) -> Cursor:
        """This cursor for the loader that ``start`` is the beginning of; its geometry begins here if it is a new one.

        Raises:
            StateError: that loader has another kind of sampler, or another geometry and the state steps still to come.
            DatasetChanged: its epoch has another length.
        """
        if self.sampler != start.sampler:
            is_alike = self.sampler.partition("(")[0] == start.sampler.partition("(")[0]
            of_what = " (of the same size, lengths, weights, labels and options)" if is_alike else ""
            raise StateError(
                f"the state is of a loader with {self.sampler}, this one has {start.sampler}: build the loader with "
                f"the sampler that it had{of_what}, or start anew"
            )
        if self.length is not None and start.length is not None and self.length != start.length:
            raise DatasetChanged(
                f"the state is of an epoch of {self.length} samples, this loader's has {start.length}: resume with the "
                f"same data, or start anew"
            )
        if (self.batch_size, self.world_size) == (start.batch_size, start.world_size):
            return self
        if self.undelivered:
            raise StateError(
                f"the state, taken with in_order=False, lists steps still to come of batch_size={self.batch_size} and "
                f"{self.world_size} ranks; this loader has batch_size={start.batch_size} and {start.world_size} ranks: "
                f"resume with the same, or at the end of an epoch"
            )
        return replace(self, origin=self.position, batch_size=start.batch_size, world_size=start.world_size)

    def _check(self) -> None:
        """Raise unless the numbers fit together."""
        if self.length is not None and self.position > self.length:
            raise StateError(f"state['position'] is {self.position}, beyond state['length'], {self.length}")
        if self.origin > self.position:
            raise StateError(f"state['origin'] is {self.origin}, beyond state['position'], {self.position}")
        if self.position != self.length and self.length is not None and (self.position - self.origin) % self.span:
            raise StateError(
                f"state['position'] is {self.position}, not a whole number of steps of {self.span} after "
                f"state['origin'], {self.origin}"
            )
        if self.undelivered and self.undelivered[-1] >= self.next_step - 1:
            raise StateError(
                f"state['undelivered'] has step {self.undelivered[-1]}, which is not before the last one delivered, "
                f"{self.next_step - 1}"
            )


class Tally:
    """Which steps of an epoch have come out, in whatever order.

    Args:
        cursor: where the epoch was resumed.

    Attributes:
        until: the position up to which the epoch is done once the missing steps have come as well.
        missing: the steps before that are still to come.

    Example:
        >>> tally = Tally(Cursor(1, 0, 0, 0, 4, 1, 100, "RandomSampler"))
        >>> tally.count(2, until=12), tally.count(0, until=4)
        (None, None)
        >>> tally.until, tally.missing, tally.first_missing
        (12, {1}, 1)
    """

    def __init__(self, cursor: Cursor) -> None:
        self.until = cursor.position
        self.missing = set(cursor.undelivered)
        self._next = cursor.next_step

    @property
    def first_missing(self) -> int:
        """The first step still to come."""
        return min(self.missing, default=self._next)

    def count(self, step: int, until: int) -> None:
        """A step has come out, as a batch or as an error; ``until`` is the position that it ends at."""
        self.until = max(self.until, until)
        if step < self._next:
            self.missing.discard(step)
            return
        if step > self._next:
            self.missing.update(range(self._next, step))
        self._next = step + 1


def _steps(value: Any) -> tuple[int, ...]:
    is_list = isinstance(value, list | tuple) and all(type(step) is int and 0 <= step <= _LARGEST for step in value)
    if not is_list or any(one >= other for one, other in pairwise(value)):
        raise StateError(f"state['undelivered'] must be a list of increasing steps, got {_shown(value)}")
    return tuple(value)


def _integer(state: Mapping[Any, Any], name: str, smallest: int, largest: int) -> int:
    value = state.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or not smallest <= value <= largest:
        raise StateError(f"state[{name!r}] must be an integer from {smallest} to {largest}, got {_shown(value)}")
    return value


def _shown(value: Any) -> str:
    """A value as an error shows it; Python refuses to print very large integers."""
    if isinstance(value, int) and value.bit_length() > _PRINTED_BITS:
        return f"an integer of {value.bit_length()} bits"
    return f"{value!r:.80}"
