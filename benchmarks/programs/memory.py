"""What a loader's processes hold together: a script as users have it, run by `benchmarks/memory.py`.

Arguments (JSON): library ("feedline" or "torch"), samples, workers, batch_size. Runs one shuffled epoch over that many
path strings and prints, as JSON, how many processes there are as the last batch arrives, this one and all that come of
it, and the sum of their proportional set sizes (PSS) in bytes.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class Lengths:
    """The length of each string of a list, of whatever kind."""

    def __init__(self, paths: Sequence[str]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> int:
        return len(self.paths[index])


def paths(count: int) -> Iterator[str]:
    """Paths as a large dataset of images has them."""
    return (f"train/n{number % 1_000:08}/n{number % 1_000:08}_{number:09}.JPEG" for number in range(count))


def family() -> set[int]:
    """This process and all that come of it: the parent of each process stands in ``/proc``."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (FileNotFoundError, ProcessLookupError):  # it ended meanwhile
                continue
    members = {int(Path("/proc/self").resolve().name)}
    while more := {child for child, parent in parents.items() if parent in members} - members:
        members |= more
    return members


def proportional_bytes(process: int) -> int:
    """The proportional set size of a process: shared pages are divided among those that share them."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def main(library: str, *, samples: int, workers: int, batch_size: int) -> None:
    """Measure, and print the answer."""
    own: dict[str, Any]
    if library == "torch":
        from torch.utils.data import DataLoader

        dataset, own = Lengths(list(paths(samples))), {"persistent_workers": True}
    else:
        from feedline import DataLoader, PackedList

        dataset, own = Lengths(PackedList(paths(samples))), {"backend": "process", "seed": 0}
    loader = DataLoader(dataset, batch_size=batch_size, shuffle=True, num_workers=workers, **own)
    seen = total = held = 0
    members: set[int] = set()
    for batch in loader:
        seen += len(batch)
        total += int(batch.sum())
        if seen == samples:  # the workers are there still
            members = family()
            held = sum(map(proportional_bytes, members))
    if (seen, total) != (samples, sum(map(len, paths(samples)))) or len(members) <= workers:
        raise RuntimeError(
            f"an epoch must deliver every sample once, from {workers} processes: got {seen} of {samples}, {total} "
            f"characters, {len(members)} processes"
        )
    print(json.dumps({"all processes": held, "processes": len(members)}))


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
