"""What came of a benchmark: a table for people, JSON for programs.

Guarantee: the report says on what it was measured (processor, memory, system, versions, commit), and names neither
the host nor a path.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.harness import Spread

if TYPE_CHECKING:
    from benchmarks.harness import Case, Ratio, Run

__all__ = ["machine", "record", "render"]

_COLUMNS = ("contender", "median ms", "quartiles", "min", "max", "CPU ms", "us/batch", "samples/s", "GB/s")


def machine() -> dict[str, Any]:
    """The machine and the software, as JSON values; None for what cannot be told."""
    return {
        "cpu": _cpu_model(),
        "usable_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load_average_1min": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "memory_gib": _memory_gib(),
        "os": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "feedline": _version("feedline"),
        "numpy": _version("numpy"),
        "torch": _version("torch"),
        "commit": _commit(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _cpu_model() -> str:
    listing = Path("/proc/cpuinfo")
    if listing.exists():
        for line in listing.read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The commit that is checked out here, with a ``+`` where files differ from it."""
    commit = _git("rev-parse", "--short=12", "HEAD")
    return None if commit is None else commit + ("+" if _git("status", "--porcelain", "--untracked-files=no") else "")


def _git(*arguments: str) -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 -- fixed words
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def record(case: Case, runs: dict[str, list[Run]], ratios: list[Ratio]) -> dict[str, Any]:
    """Everything that was measured, as JSON values; the ratios come last."""
    contenders = {}
    for name, own in runs.items():
        spread = Spread.of([run.wall_s for run in own])
        contenders[name] = {
            "seconds": asdict(spread),
            "cpu_seconds": asdict(Spread.of([run.cpu_s for run in own])),
            "runs": [asdict(run) for run in own],
            "samples_per_s": case.samples / spread.median,
            "gb_per_s": case.nbytes / spread.median / 1e9,
            "us_per_batch": spread.median / case.batches * 1e6,
        }
    return {
        "benchmark": case.name,
        "settings": {"samples": case.samples, "batches": case.batches, "nbytes": case.nbytes, **case.settings},
        "machine": machine(),
        "contenders": contenders,
        "ratios": [
            {
                "of": each.bar.of,
                "to": each.bar.to,
                **asdict(each.spread),
                "cpu": asdict(each.cpu),
                "bar": each.bar.least,
                "met": each.met,
            }
            for each in ratios
        ],
    }


def render(result: dict[str, Any]) -> str:
    """A record as text: the machine, the table, the ratios, and as the last line the ratios' medians as JSON."""
    facts = result["machine"]
    size, system = f"{facts['usable_cores']} cores, {facts['memory_gib']} GiB", facts["os"]
    versions = f"Python {facts['python']}, NumPy {facts['numpy']}, torch {facts['torch']}, feedline {facts['feedline']}"
    head = [
        f"{result['benchmark']}: " + ", ".join(f"{name} {value}" for name, value in result["settings"].items()),
        f"{facts['cpu']}, {size}, {system}, load {facts['load_average_1min']}",
        f"{versions} ({facts['commit'] or 'commit unknown'}), {facts['date']}",
        "",
    ]
    rows = [_COLUMNS, *(_row(name, values) for name, values in result["contenders"].items())]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    table = [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]
    table.insert(1, "  ".join("-" * width for width in widths))
    medians = {f"{ratio['of']}/{ratio['to']}": round(ratio["median"], 3) for ratio in result["ratios"]}
    return "\n".join([*head, *table, "", *map(_verdict, result["ratios"]), json.dumps(medians)])


def _row(name: str, values: dict[str, Any]) -> tuple[str, ...]:
    spread = {key: value * 1e3 for key, value in values["seconds"].items()}
    return (
        name,
        f"{spread['median']:.2f}",
        f"{spread['lower_quartile']:.2f}..{spread['upper_quartile']:.2f}",
        f"{spread['min']:.2f}",
        f"{spread['max']:.2f}",
        f"{values['cpu_seconds']['median'] * 1e3:.2f}",
        f"{values['us_per_batch']:.1f}",
        f"{values['samples_per_s']:,.0f}",
        f"{values['gb_per_s']:.3f}",
    )


def _verdict(ratio: dict[str, Any]) -> str:
    bar = ""
    if ratio["met"] is not None:
        bar = f"; bar {ratio['bar']:g}: {'met' if ratio['met'] else 'missed'}"
    return (
        f"throughput of {ratio['of']} / {ratio['to']}, in pairs: median {ratio['median']:.2f} "
        f"(quartiles {ratio['lower_quartile']:.2f}..{ratio['upper_quartile']:.2f}, "
        f"{ratio['min']:.2f}..{ratio['max']:.2f}; in CPU time {ratio['cpu']['median']:.2f}){bar}"
    )
