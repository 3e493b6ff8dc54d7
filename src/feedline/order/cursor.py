"""The cursor: how far a loader has come, as a small piece of JSON.

Guarantee (contract 3): a `Cursor` describes what was *delivered*, is the same on every rank, is O(1) to write and to
read, and resumes with another number of ranks, workers or another batch size. `Cursor.from_state` survives any input:
it returns a cursor that holds together, or raises `StateError` and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from feedline.errors import DatasetChanged, StateError

__all__ = ["NAME_LENGTH", "Cursor"]

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
            user's batch sampler they are batches.
        origin: the position at which the present batch size and world began.
        batch_size: items of a step on one rank.
        world_size: how many ranks share the epoch.
        length: how many items the epoch has, or None when that is unknown.
        sampler: the kind of sampler that ordered them.
        sampler_state: what a user's sampler saved of itself, or None.
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

    def to_state(self) -> dict[str, Any]:
        """The cursor as JSON values, under 1 KiB unless a user's sampler saves more."""
        return {"feedline": _VERSION, **asdict(self)}

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
        )
        cursor._check()
        return cursor

    def resumed_by(self, start: Cursor) -> Cursor:
        """This cursor for the loader that ``start`` is the beginning of; its geometry begins here if it is a new one.

        Raises:
            StateError: that loader has another kind of sampler.
            DatasetChanged: its epoch has another length.
        """
        if self.sampler != start.sampler:
            raise StateError(
                f"the state is of a loader with {self.sampler}, this one has {start.sampler}: build the loader with "
                f"the sampler that it had, or start anew"
            )
        if self.length is not None and start.length is not None and self.length != start.length:
            raise DatasetChanged(
                f"the state is of an epoch of {self.length} samples, this loader's has {start.length}: resume with the "
                f"same data, or start anew"
            )
        if (self.batch_size, self.world_size) == (start.batch_size, start.world_size):
            return self
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
