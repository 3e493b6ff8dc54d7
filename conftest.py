"""The pages are tests: every ``python`` block of the README and of docs/ runs, in order, and prints what is shown.

Guarantee: a block that prints must be followed by a ``text`` block that holds exactly that; one that is followed by
none must print nothing. Blocks of a page share their names, as in one session.
"""

from __future__ import annotations

import io
import re
from contextlib import redirect_stdout

import pytest
from sybil import Example, Sybil
from sybil.evaluators.python import PythonEvaluator
from sybil.integration.pytest import SybilItem
from sybil.parsers.myst import CodeBlockParser

_SHOWN = re.compile(r"\s*```text\n(.*?)```", re.DOTALL)
_run = PythonEvaluator()


def _prints_what_is_shown(example: Example) -> None:
    with redirect_stdout(io.StringIO()) as printed:
        _run(example)
    block = _SHOWN.match(example.document.text, example.end)
    shown = "" if block is None else block[1]
    assert printed.getvalue() == shown, f"{example.path}:{example.line}: the block prints\n{printed.getvalue()}"


pytest_collect_file = Sybil(
    parsers=[CodeBlockParser("python", _prints_what_is_shown)],
    patterns=["README.md", "docs/*.md"],
).pytest()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put a page's blocks back in its order after tests were shuffled: they build on each other."""
    blocks = (item for item in items if isinstance(item, SybilItem))
    in_order = iter(sorted(blocks, key=lambda item: (item.path, item.example.line)))
    items[:] = [next(in_order) if isinstance(item, SybilItem) else item for item in items]
