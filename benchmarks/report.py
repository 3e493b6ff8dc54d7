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

from benchmarks.figures import Quantity
from benchmarks.harness import Spread

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from benchmarks.figures import Figures
    from benchmarks.harness import Bar, Case, Outcome, Run

__all__ = ["machine", "record", "record_case", "record_figures", "render", "version_of"]

_COLUMNS = ("contender", "median ms", "quartiles", "min", "max", "CPU ms", "us/batch", "samples/s", "GB/s")
_RATIO = Quantity("ratio", "", 1.0, 2)
_SIGNS = {"least": ">=", "most": "<="}


def machine() -> dict[str, Any]:
    """The machine and the software, as JSON values; None for what cannot be told."""
    return {
        "cpu": _cpu_model(),
        "usable_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load_average_1min": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "memory_gib": _memory_gib(),
        "os": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "feedline": version_of("feedline"),
        "numpy": version_of("numpy"),
        "torch": version_of("torch"),
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


def version_of(package: str) -> str | None:
    """The version that is installed, or None."""
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


def record(name: str, cases: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Everything that was measured by a benchmark, as JSON values."""
    return {"benchmark": name, "machine": machine(), "cases": list(cases)}


def record_case(case: Case, runs: dict[str, list[Run]], outcomes: list[Outcome]) -> dict[str, Any]:
    """Timed epochs, as JSON values; what came of the bars stands last."""
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
        "label": case.label,
        "settings": {"samples": case.samples, "batches": case.batches, "nbytes": case.nbytes, **case.settings},
        "contenders": contenders,
        "outcomes": [_outcome(each, _RATIO) for each in outcomes],
    }


def record_figures(
    figures: Figures, taken: dict[str, list[Mapping[str, float]]], outcomes: list[Outcome]
) -> dict[str, Any]:
    """Figures, as JSON values; what came of the bars stands last."""
    quantities = {quantity.name: quantity for quantity in figures.quantities}
    contenders = {}
    for name, own in taken.items():
        held = [each for each in quantities if each in own[0]]
        spreads = {quantity: asdict(Spread.of([one[quantity] for one in own])) for quantity in held}
        contenders[name] = {"figures": spreads, "runs": [dict(one) for one in own]}
    return {
        "label": figures.label,
        "settings": figures.settings,
        "quantities": [asdict(quantity) for quantity in figures.quantities],
        "contenders": contenders,
        "outcomes": [_outcome(each, quantities[each.bar.quantity]) for each in outcomes],
    }


def _outcome(outcome: Outcome, quantity: Quantity) -> dict[str, Any]:
    bar = outcome.bar
    shown = _RATIO if bar.to is not None else quantity
    return {
        "what": _title(bar),
        **{key: value for key, value in asdict(bar).items() if value is not None},
        **asdict(outcome.spread),
        "cpu": None if outcome.cpu is None else asdict(outcome.cpu),
        "met": outcome.met,
        "shown_as": asdict(shown),
    }


def _title(bar: Bar) -> str:
    if bar.to is None:
        return f"{bar.quantity} of {bar.of}"
    above, below = (bar.of, bar.to) if bar.quantity == "throughput" else (bar.to, bar.of)
    return f"{bar.quantity} of {above} / {below}"


def render(result: dict[str, Any]) -> str:
    """A record as text: the machine, the tables, what came of the bars, and as the last line its medians as JSON."""
    facts = result["machine"]
    size, system = f"{facts['usable_cores']} cores, {facts['memory_gib']} GiB", facts["os"]
    versions = f"Python {facts['python']}, NumPy {facts['numpy']}, torch {facts['torch']}, feedline {facts['feedline']}"
    lines = [
        result["benchmark"],
        "=" * len(result["benchmark"]),
        f"{facts['cpu']}, {size}, {system}, load {facts['load_average_1min']}",
        f"{versions} ({facts['commit'] or 'commit unknown'}), {facts['date']}",
    ]
    medians: dict[str, float] = {}
    verdicts: list[tuple[str, ...]] = [("outcome", "median", "quartiles", "extremes", "CPU", "bar", "")]
    for case in result["cases"]:
        settings = ", ".join(f"{name} {value}" for name, value in case["settings"].items())
        rows = _figure_rows(case) if "quantities" in case else _epoch_rows(case)
        lines += ["", f"{case['label']}: {settings}" if case["label"] else settings, "", *_table(rows)]
        mark = f"{case['label']}: " if case["label"] else ""
        verdicts += [_verdict(mark, outcome) for outcome in case["outcomes"]]
        medians |= {mark + outcome["what"]: _rounded(outcome["median"]) for outcome in case["outcomes"]}
    if len(verdicts) > 1:
        lines += ["", *_table(verdicts)]
    return "\n".join([*lines, "", json.dumps(medians)])


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Rows of equal width, the first of them a head; numbers flush right. A column that is empty is left out."""
    columns = [column for column in zip(*rows, strict=True) if any(column)]
    widths = [max(map(len, column)) for column in columns]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
        for row in zip(*columns, strict=True)
    ]
    return [lines[0].rstrip(), "  ".join("-" * width for width in widths), *(line.rstrip() for line in lines[1:])]


def _epoch_rows(case: dict[str, Any]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [_COLUMNS]
    for name, values in case["contenders"].items():
        spread = {key: value * 1e3 for key, value in values["seconds"].items()}
        row = (
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
        rows.append(row)
    return rows


def _figure_rows(case: dict[str, Any]) -> list[tuple[str, ...]]:
    quantities = [Quantity(**each) for each in case["quantities"]]
    rows = [("contender", *(text for each in quantities for text in (f"{each.name} {each.unit}".strip(), "quartiles")))]
    for name, values in case["contenders"].items():
        row = [name]
        for quantity in quantities:
            spread = values["figures"].get(quantity.name)
            row += ["-", "-"] if spread is None else [quantity.shown(spread["median"]), _quartiles(quantity, spread)]
        rows.append(tuple(row))
    return rows


def _quartiles(quantity: Quantity, spread: dict[str, Any]) -> str:
    return f"{quantity.shown(spread['lower_quartile'])}..{quantity.shown(spread['upper_quartile'])}"


def _verdict(mark: str, outcome: dict[str, Any]) -> tuple[str, ...]:
    quantity = Quantity(**outcome["shown_as"])
    signs = [f"{sign} {quantity.scale * outcome[key]:g}" for key, sign in _SIGNS.items() if key in outcome]
    return (
        mark + outcome["what"],
        f"{quantity.shown(outcome['median'])} {quantity.unit}".strip(),
        _quartiles(quantity, outcome),
        f"{quantity.shown(outcome['min'])}..{quantity.shown(outcome['max'])}",
        "" if outcome["cpu"] is None else f"{outcome['cpu']['median']:.2f}",
        " ".join([*signs, quantity.unit] if signs else []).strip(),
        {None: "", True: "met", False: "MISSED"}[outcome["met"]],
    )
