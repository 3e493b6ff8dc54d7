from __future__ import annotations

import dataclasses

import pytest

from feedline.insight.findings import Finding, Report

ERROR = Finding("error", "dataset.file", "it is <open>", "close it")
WARNING = Finding("warning", "batch_size", "it is odd", "take another")


def test_a_report_is_true_where_nothing_is_an_error():
    assert Report()
    assert Report((WARNING,)).ok
    assert not Report((WARNING, ERROR))


def test_a_report_holds_its_findings():
    report = Report((ERROR, WARNING), samples_read=3)
    assert (list(report), len(report), report.samples_read) == ([ERROR, WARNING], 2, 3)
    with pytest.raises(dataclasses.FrozenInstanceError):
        report.samples_read = 0
    with pytest.raises(dataclasses.FrozenInstanceError):
        ERROR.subject = "x"


def test_its_text_counts_and_names_each_finding():
    assert str(Report((ERROR, WARNING), samples_read=1)) == (
        "1 error, 1 warning (1 sample was read)\n"
        "error    dataset.file: it is <open>\n"
        "         Remedy: close it\n"
        "warning  batch_size: it is odd\n"
        "         Remedy: take another"
    )
    assert str(Report(samples_read=4)) == "nothing was found (4 samples were read)"


def test_its_lines_fit_a_terminal():
    long = Finding("error", "dataset", "word " * 100, "do " * 100)
    lines = str(Report((long,))).splitlines()
    assert max(map(len, lines)) <= 100
    assert all(line.startswith(" " * 9) for line in lines[2:])


def test_its_page_is_escaped():
    page = Report((ERROR, WARNING))._repr_html_()
    assert "it is &lt;open&gt;" in page
    assert page.count("<tr>") == 3
    assert "nothing was found" in Report()._repr_html_()
