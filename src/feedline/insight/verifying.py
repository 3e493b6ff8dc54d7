"""``feedline verify``: what a saved state says, in plain words.

Guarantee: a state that ``load_state_dict`` would refuse as damaged is refused here, by the same message; whatever the
file holds, the outcome is a text or a `StateError` that names the file and what is wrong with it. Nothing is loaded.
"""

from __future__ import annotations

import json
import re
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from feedline.errors import StateError
from feedline.order.cursor import Cursor

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

__all__ = ["explained", "verified"]

_WIDTH = 80
_STEPS_SHOWN = 5
_FIELDS = frozenset(Cursor.__dataclass_fields__)
_ENDLESS = "Infinite("  # how `InfiniteDataLoader` calls its sequence; the name of its sampler comes last
_OF_SAMPLES = re.compile(  # what these count is samples; what a sampler of the user's yields may be batches
    r"(Infinite\(\w+, population=\w+, )?"
    r"((Sequential|Random|SubsetRandom|WeightedRandom|Distributed)Sampler|StratifiedBatchSampler|IterableDataset"
    r"|LengthBucketBatchSampler(?!\(.*max_tokens))"
    r"(\W|$)"
)


def verified(path: str | os.PathLike[str]) -> str:
    """The explanation of the state in a file, or of each in a file that has several.

    Args:
        path: a JSON file: what ``state_dict()`` gave, or an object or array that has such states in it at any depth.

    Raises:
        StateError: the file cannot be read, is no JSON, holds no state, or a damaged one.
    """
    shown = _plain(str(path))
    texts = []
    for key, state in _states(path, shown).items():
        place = shown if key is None else f"{shown}, {_plain(json.dumps(key))}"
        try:
            cursor = Cursor.from_state(state)
        except StateError as error:
            raise StateError(f"{place}: {error}") from error
        except RecursionError as error:  # as a message is made of it
            raise StateError(f"{place}: the state is nested too deeply") from error
        texts.append(f"{place}: a valid state of a Feedline loader\n\n{explained(cursor)}")
    return "\n\n".join(texts)


def explained(cursor: Cursor) -> str:
    """What a cursor says: a table, and what comes of a resume.

    Example:
        >>> print(explained(Cursor(7, 2, 400, 0, 50, 4, 1_000, "RandomSampler")))
          order      RandomSampler, seed 7
          epoch      2 (the first is 0)
          batches    50 samples on each of 4 ranks: 200 a step
          delivered  400 of 1,000 samples (40.0%), in 2 steps
          left       600 samples: 3 steps
        <BLANKLINE>
        A loader with the same batch size and number of ranks goes on with step 2. With
        another batch size or number of ranks it goes on with the same 600 samples, and
        counts steps from 0 again. The number of workers makes no difference.
    """
    item = "sample" if _OF_SAMPLES.match(cursor.sampler) else "item"
    rows = {
        "order": f"{_plain(cursor.sampler)}, seed {'not drawn yet' if cursor.seed is None else cursor.seed}",
        "epoch": f"{cursor.epoch:,} (the first is 0)" if cursor.epoch else "0 (the first)",
        "batches": _batches(cursor, item),
        "delivered": _delivered(cursor, item),
    }
    if cursor.origin and not cursor.sampler.startswith(_ENDLESS):  # whose loops begin anywhere
        rows["resumed"] = f"at {item} {cursor.origin:,} with this batch size and these ranks; steps count from there"
    if cursor.undelivered:
        rows["still out"] = _still_out(cursor)
    rows["left"] = _left(cursor, item)
    if cursor.sampler_state is not None:
        rows["sampler"] = "has a state of its own, which it goes on from"
    width = max(map(len, rows)) + 2
    table = "\n".join(
        textwrap.fill(text, _WIDTH, initial_indent=f"  {name:{width}}", subsequent_indent=" " * (width + 2))
        for name, text in rows.items()
    )
    notes = [_resume(cursor, item)]
    if item == "item":
        notes.append("An item is what the sampler yields: a sample, or under a batch sampler a whole batch.")
    return "\n\n".join([table, *(textwrap.fill(note, _WIDTH) for note in notes)])


# ---------------------------------------------------------------------------------------------------------------- rows


def _batches(cursor: Cursor, item: str) -> str:
    size = _counted(cursor.batch_size, item)
    if cursor.world_size == 1:
        return f"{size} on one rank"
    return f"{size} on each of {cursor.world_size:,} ranks: {cursor.span:,} a step"


def _delivered(cursor: Cursor, item: str) -> str:
    if cursor.sampler.startswith(_ENDLESS):
        amount = f"{_counted(cursor.position, item)} of the passes laid end to end"
    elif cursor.length is None:
        amount = f"{_counted(cursor.position, item)}, of a number that is not known"
    elif cursor.length:
        tenths = cursor.position * 1000 // cursor.length  # 100.0 is all of them
        amount = f"{cursor.position:,} of {_counted(cursor.length, item)} ({tenths // 10}.{tenths % 10}%)"
    else:
        amount = "nothing: the epoch is empty"
    if cursor.position == cursor.origin:
        return amount
    since = f" since {item} {cursor.origin:,}" if cursor.origin else ""
    but = ", but for those still out" if cursor.undelivered else ""
    return f"{amount}, in {_counted(cursor.next_step, 'step')}{since}{but}"


def _still_out(cursor: Cursor) -> str:
    steps = cursor.undelivered
    shown = ", ".join(f"{step:,}" for step in steps[:_STEPS_SHOWN])
    more = f" and {len(steps) - _STEPS_SHOWN:,} more" if len(steps) > _STEPS_SHOWN else ""
    return f"{'step' if len(steps) == 1 else 'steps'} {shown}{more}, which in_order=False let others overtake"


def _left(cursor: Cursor, item: str) -> str:
    if cursor.sampler.startswith(_ENDLESS):
        return "passes over the data without end; batches_per_epoch says where the epoch ends"
    if cursor.length is None:
        return "what the sampler or the stream still yields"
    left = cursor.length - cursor.position
    if not left:
        return "the steps still out" if cursor.undelivered else "nothing of this epoch"
    full, tail = divmod(left, cursor.span)
    parts = [_counted(full, "step")] if full else []
    if tail:
        parts.append(f"one of {tail:,} unless drop_last")
    return f"{_counted(left, item)}: {' and '.join(parts)}"


def _resume(cursor: Cursor, item: str) -> str:
    """What a loader does that takes the state."""
    if cursor.undelivered:
        return (
            "The state is of one rank alone. A loader of that rank with the same batch size and number of ranks first "
            f"delivers the steps still out, then goes on with step {cursor.next_step:,}; others are refused."
        )
    if cursor.length is not None and cursor.position == cursor.length:
        return (
            "The epoch's last batch was delivered, and its end was not seen: the next loop of a loader that takes this "
            f"state has nothing left, the one after it begins epoch {cursor.epoch + 1:,}."
        )
    if not cursor.position:
        return f"A loader that takes this state begins epoch {cursor.epoch:,}, with any batch size and number of ranks."
    rest = (
        "the rest of them" if cursor.length is None else f"the same {_counted(cursor.length - cursor.position, item)}"
    )
    return (
        f"A loader with the same batch size and number of ranks goes on with step {cursor.next_step:,}. With another "
        f"batch size or number of ranks it goes on with {rest}, and counts steps from 0 again. The number of workers "
        f"makes no difference."
    )


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


# ------------------------------------------------------------------------------------------------------------- reading


def _found_in(content: Any) -> Iterator[tuple[str, Any]]:
    """The states within a value of JSON, each with where it is, in their order."""
    waiting = [("", content)]
    while waiting:
        place, value = waiting.pop()
        if _is_state(value):
            yield place, value
            continue
        inner = value.items() if isinstance(value, dict) else enumerate(value)
        waiting += reversed(
            [
                (f"{place}[{key}]" if isinstance(key, int) else f"{place}.{key}" if place else key, item)
                for key, item in inner
                if isinstance(item, dict | list)
            ]
        )


def _states(path: str | os.PathLike[str], shown: str) -> dict[str | None, Any]:
    """What a file holds that is to be a state, by its key; None for the file as a whole."""
    try:
        content = json.loads(Path(path).read_bytes())
    except OSError as error:
        raise StateError(f"{shown} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        reason = f"{error}"[:_WIDTH] if isinstance(error, json.JSONDecodeError) else type(error).__name__
        raise StateError(
            f"{shown} is no JSON file ({reason}); write one by json.dump(loader.state_dict(), file)"
        ) from error
    if not isinstance(content, dict | list):
        raise StateError(f"{shown} must hold the object that state_dict() gave, got {type(content).__name__}")
    if _is_state(content):
        return {None: content}
    found: dict[str | None, Any] = dict(_found_in(content))
    if not found:
        raise StateError(
            f"{shown} holds no state of a loader, no object with the field 'feedline'; write loader.state_dict() to it"
        )
    return found


def _is_state(value: object) -> bool:
    """Whether it is to be one: also if a field is damaged or lost."""
    return isinstance(value, dict) and ("feedline" in value or len(_FIELDS & value.keys()) > len(_FIELDS) // 2)


def _plain(text: str) -> str:
    """A text that any terminal can show, and that does nothing to it."""
    return "".join(letter if " " <= letter <= "~" else ascii(letter)[1:-1] for letter in text)
