"""The command: ``python -m benchmarks NAME [--repeats N] [--json FILE]``; without a name it lists what there is."""

from __future__ import annotations

import argparse
import json
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.harness import compare, measure, verify
from benchmarks.report import record, render

if TYPE_CHECKING:
    from collections.abc import Sequence

_NAMES = ("arrays", "overhead")


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a positive integer, got {text}")
    return int(text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one benchmark and print its report. The exit status is 0 also where a bar is missed: timings are noisy."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Feedline beside its alternatives.")
    parser.add_argument("name", nargs="?", choices=_NAMES, help="which benchmark; without it they are listed")
    parser.add_argument("--repeats", type=_positive, default=9, metavar="N", help="rounds that are timed (9)")
    parser.add_argument("--samples", type=_positive, metavar="N", help="a size of your own")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the whole record there")
    options = parser.parse_args(arguments)
    if options.name is None:
        for name in _NAMES:
            summary = (import_module(f"benchmarks.{name}").__doc__ or "").partition("\n")[0]
            print(f"{name:10} {summary}")
        return 0
    build = import_module(f"benchmarks.{options.name}").build
    case = build() if options.samples is None else build(options.samples)
    verify(case)
    runs = measure(case, options.repeats)
    result = record(case, runs, compare(case, runs))
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(render(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
