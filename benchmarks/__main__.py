"""The command: ``python -m benchmarks NAME [--repeats N] [--json FILE]``; without a name it lists what there is."""

from __future__ import annotations

import argparse
import inspect
import json
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import figures, harness
from benchmarks.report import record, record_case, record_figures, render

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_NAMES = ("arrays", "ipc", "jpeg", "memory", "order", "overhead", "overlap", "pure-python", "startup")


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a positive integer, got {text}")
    return int(text)


def _folder(text: str) -> Path:
    if not Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"must be a folder, got {text}")
    return Path(text)


def _tell(text: str) -> None:
    """Show on a terminal what is going on, in one line that the next one replaces."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def _measured(case: harness.Case | figures.Figures, repeats: int, tell: Callable[[str], None]) -> dict[str, Any]:
    tell = _prefixed(case.label, tell)
    try:
        if isinstance(case, figures.Figures):
            taken = figures.take(case, repeats, tell)
            return record_figures(case, taken, figures.judge(case, taken))
        tell("each delivers the same samples?")
        harness.verify(case)
        runs = harness.measure(case, repeats, tell)
        return record_case(case, runs, harness.compare(case, runs))
    finally:
        case.close()
        tell("")


def _prefixed(label: str, tell: Callable[[str], None]) -> Callable[[str], None]:
    return lambda text: tell(f"{label}: {text}" if label and text else text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Feedline beside its alternatives.")
    parser.add_argument("name", nargs="?", choices=_NAMES, help="which benchmark; without it they are listed")
    parser.add_argument(
        "--repeats", type=_positive, metavar="N", help="rounds that are timed (9; of some benchmarks 5)"
    )
    parser.add_argument("--samples", type=_positive, metavar="N", help="a size of your own")
    parser.add_argument("--folder", type=_folder, metavar="DIR", help="jpeg: a folder of JPEG files of your own")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the whole record there")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one benchmark and print its report. The exit status is 0 also where a bar is missed: timings are noisy."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.name is None:
        for name in _NAMES:
            summary = (_module(name).__doc__ or "").partition("\n")[0]
            print(f"{name:12} {summary}")
        return 0
    module = _module(options.name)
    sizes = {key: value for key in ("samples", "folder") if (value := getattr(options, key)) is not None}
    if unknown := set(sizes) - set(inspect.signature(module.build).parameters):
        parser.error(f"{options.name} has no --{' and no --'.join(sorted(unknown))}")
    repeats = options.repeats or getattr(module, "REPEATS", 9)
    result = record(options.name, [_measured(case, repeats, _tell) for case in module.build(**sizes)])
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(render(result))
    return 0


def _module(name: str) -> Any:
    return import_module(f"benchmarks.{name.replace('-', '_')}")


if __name__ == "__main__":
    sys.exit(main())
