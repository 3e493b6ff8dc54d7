"""What a check of a loader found, and how it is shown.

Guarantee: plain frozen data; showing it runs nothing and opens nothing.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Finding", "Report"]

Severity = Literal["error", "warning"]

_WIDTH = 100  # columns: what most terminals show
_INDENT = " " * 9


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        severity: ``"error"``: an epoch would fail; ``"warning"``: it would run, and train badly, slowly or otherwise
            than meant.
        subject: what it concerns, as a name or a path of attributes: ``"dataset.rng"``.
        message: what is wrong with it.
        remedy: what to do.
    """

    severity: Severity
    subject: str
    message: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Report:
    """What a check found: it iterates over its findings, errors first, and is true where none is an error.

    Attributes:
        findings: what was found.
        samples_read: how many samples were read for it.

    Example:
        >>> report = Report((Finding("error", "dataset", "it is empty", "check the folder"),), samples_read=0)
        >>> bool(report), [finding.subject for finding in report]
        (False, ['dataset'])
        >>> print(report)
        1 error, 0 warnings (0 samples were read)
        error    dataset: it is empty
                 Remedy: check the folder
    """

    findings: tuple[Finding, ...] = ()
    samples_read: int = 0

    @property
    def ok(self) -> bool:
        """Whether there is no error; warnings may be meant so."""
        return all(finding.severity != "error" for finding in self.findings)

    def __bool__(self) -> bool:
        return self.ok

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.findings)

    def __len__(self) -> int:
        return len(self.findings)

    def _summary(self) -> str:
        read = _counted(self.samples_read, "sample")
        was = "was" if self.samples_read == 1 else "were"
        if not self.findings:
            return f"nothing was found ({read} {was} read)"
        errors = sum(finding.severity == "error" for finding in self.findings)
        return f"{_counted(errors, 'error')}, {_counted(len(self) - errors, 'warning')} ({read} {was} read)"

    def __str__(self) -> str:
        lines = [self._summary()]
        for finding in self.findings:
            lines += _wrapped(f"{finding.severity:<{len(_INDENT)}}{finding.subject}: {finding.message}")
            lines += _wrapped(f"{_INDENT}Remedy: {finding.remedy}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        from html import escape

        rows = "".join(
            f"<tr><td>{finding.severity}</td><td><code>{escape(finding.subject)}</code></td>"
            f"<td>{escape(finding.message)}</td><td>{escape(finding.remedy)}</td></tr>"
            for finding in self.findings
        )
        head = "<tr><th></th><th>subject</th><th>what is wrong</th><th>remedy</th></tr>" if rows else ""
        return f"<table><caption>feedline.check: {escape(self._summary())}</caption>{head}{rows}</table>"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, subsequent_indent=_INDENT, break_long_words=False, break_on_hyphens=False)
