"""Measurements that need a process of their own: a program of `benchmarks/programs/`, run anew each time.

Guarantee: the program inherits nothing that was imported, started or allocated here; what it prints last is its answer.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

__all__ = ["answer_of"]

_PROGRAMS = Path(__file__).parent / "programs"


def answer_of(program: str, **arguments: Any) -> dict[str, float]:
    """What the program measured, given its arguments as JSON.

    Raises:
        RuntimeError: it failed; the message holds what it wrote.
    """
    command = [sys.executable, "-W", "ignore", str(_PROGRAMS / f"{program}.py"), json.dumps(arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 -- our own program
    if done.returncode:
        raise RuntimeError(f"program {program!r} must end with status 0, got {done.returncode}:\n{done.stderr.strip()}")
    answer: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return answer
