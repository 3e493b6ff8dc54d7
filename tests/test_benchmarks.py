"""Laws of the benchmark harness, on tiny sizes: it counts, pairs and reports rightly. No timing is asserted."""

import gc
import json
import platform
import re
import socket
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # the benchmarks are a package of the repository, not of the distribution

from benchmarks import arrays, overhead  # noqa: E402 -- found by the line above
from benchmarks.__main__ import main  # noqa: E402
from benchmarks.harness import Bar, Contender, Run, Spread, compare, measure, verify  # noqa: E402
from benchmarks.report import machine, record, render  # noqa: E402


@pytest.fixture(scope="module")
def case():
    return arrays.build(samples=50, batch_size=16)


def batches_of(case, name):
    contender = next(each for each in case.contenders if each.name == name)
    return [tuple(np.asarray(part).copy() for part in batch) for batch in contender.epoch(1)]


# -------------------------------------------------------------------------------------------------------- statistics


def test_spread_of_known_values():
    assert Spread.of([4.0, 1.0, 3.0, 2.0, 5.0]) == Spread(3.0, 2.0, 4.0, 1.0, 5.0)
    assert Spread.of([7.0]) == Spread(7.0, 7.0, 7.0, 7.0, 7.0)


def test_spread_of_nothing_is_refused():
    with pytest.raises(ValueError, match="values must hold at least one measurement, got none"):
        Spread.of([])


@given(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=20))
def test_spread_is_that_of_numpy(values):
    spread = Spread.of(values)
    expected = np.quantile(values, [0.5, 0.25, 0.75, 0, 1])
    np.testing.assert_allclose(
        [spread.median, spread.lower_quartile, spread.upper_quartile, spread.min, spread.max], expected, rtol=1e-12
    )


def test_ratios_are_formed_within_rounds(case):
    """The machine halves its speed after the first round: no ratio sees it."""
    ours, theirs = [Run(1.0, 1.0), Run(2.0, 4.0), Run(2.0, 4.0)], [Run(10.0, 5.0), Run(20.0, 20.0), Run(30.0, 40.0)]
    bars = (Bar("feedline", "torch", 10.0), Bar("torch", "feedline", 0.2), Bar("feedline", "torch"))
    ratios = compare(replace(case, bars=bars), {"feedline": ours, "torch": theirs})
    assert ratios[0].spread == Spread.of([10.0, 10.0, 15.0])
    assert ratios[0].cpu == Spread.of([5.0, 5.0, 10.0])
    assert [ratio.met for ratio in ratios] == [True, False, None]


# --------------------------------------------------------------------------------------------------------- measuring


def test_contenders_take_turns_and_each_run_is_kept(case):
    """One warm-up round, then the timed ones; the epoch's number is the round's."""
    turns = []

    def recorded(name):
        def epoch(number):
            turns.append((name, number, gc.isenabled()))
            return iter([name])

        return Contender(name, epoch)

    runs = measure(replace(case, contenders=(recorded("a"), recorded("b"))), repeats=2)
    assert [(name, number) for name, number, _ in turns] == [(name, number) for number in (1, 2, 3) for name in "ab"]
    assert {name: len(each) for name, each in runs.items()} == {"a": 2, "b": 2}
    assert all(run.wall_s > 0 and run.cpu_s > 0 for each in runs.values() for run in each)
    assert gc.isenabled()


def test_garbage_is_not_collected_while_the_clock_runs(case):
    seen = []

    def batches(_round):
        seen.append(gc.isenabled())
        yield 0

    measure(replace(case, contenders=(Contender("a", batches),)), repeats=1)
    assert seen == [False, False]
    assert gc.isenabled()


def test_the_collector_is_as_before_after_an_error(case):
    def batches(_round):
        yield 1 / 0

    with pytest.raises(ZeroDivisionError):
        measure(replace(case, contenders=(Contender("a", batches),)), repeats=1)
    assert gc.isenabled()


def test_no_repeats_are_refused(case):
    with pytest.raises(ValueError, match="repeats must be a positive integer, got 0"):
        measure(case, repeats=0)


# --------------------------------------------------------------------------------------------------------- contenders


def test_all_contenders_deliver_the_same_samples(case):
    verify(case)
    verify(overhead.build(samples=7))
    delivered = {}
    for contender in case.contenders:
        batches = batches_of(case, contender.name)
        assert [len(labels) for _, labels in batches] == [16, 16, 16, 2]
        rows = np.concatenate([np.c_[x.reshape(len(x), -1), y] for x, y in batches])
        delivered[contender.name] = sorted(map(tuple, rows.tolist()))
    assert delivered["feedline"] == delivered["torch"] == delivered["np.take"]


def test_the_bare_loop_keeps_the_last_batch_while_it_makes_the_next(case):
    batches = iter(next(each for each in case.contenders if each.name == "np.take").epoch(1))
    first = next(batches)
    copies = [part.copy() for part in first]
    next(batches)
    assert all((part == copy).all() for part, copy in zip(first, copies, strict=True))


def missing(batches):
    return batches[:-1]


def repeated(batches):
    return [batches[1], *batches[1:]]


def labels_swapped(batches):
    (x, y), *others = batches
    at = int(np.flatnonzero(y != y[0])[0])
    y[[0, at]] = y[[at, 0]]
    return [(x, y), *others]


def pixel_changed(batches):
    batches[0][0][3, 5, 5, 1] ^= 1
    return batches


@pytest.mark.parametrize("fault", [missing, repeated, labels_swapped, pixel_changed])
def test_a_contender_that_delivers_anything_else_is_refused(case, fault):
    faulty = Contender("faulty", lambda _round: fault(batches_of(case, "np.take")))
    expected = (
        r"contender 'faulty' must deliver every sample once: expected 4 batches, 50 samples, checksum \w{16}; got"
    )
    with pytest.raises(RuntimeError, match=expected):
        verify(replace(case, contenders=(faulty,)))


# ---------------------------------------------------------------------------------------------------------- reporting


def test_the_record_is_json_with_every_run_and_the_ratios_last(case):
    runs = {name: [Run(0.5, 0.25), Run(1.0, 0.25), Run(2.0, 0.25)] for name in ("feedline", "np.take", "torch")}
    result = record(case, runs, compare(case, runs))
    assert json.loads(json.dumps(result)) == result
    assert list(result) == ["benchmark", "settings", "machine", "contenders", "ratios"]
    ours = result["contenders"]["feedline"]
    assert ours["runs"][2] == {"wall_s": 2.0, "cpu_s": 0.25}
    assert ours["seconds"] == {"median": 1.0, "lower_quartile": 0.75, "upper_quartile": 1.5, "min": 0.5, "max": 2.0}
    assert ours["samples_per_s"] == 50.0
    assert ours["gb_per_s"] == pytest.approx(50 * (32 * 32 * 3 + 8) / 1e9)
    assert ours["us_per_batch"] == 250_000
    assert [(ratio["of"], ratio["to"], ratio["bar"], ratio["met"]) for ratio in result["ratios"]] == [
        ("feedline", "torch", 10.0, False),
        ("feedline", "np.take", 0.8, True),
    ]


def test_the_machine_is_described_without_host_name_and_paths():
    facts = machine()
    assert set(facts) == {
        *("cpu", "usable_cores", "load_average_1min", "memory_gib", "os"),
        *("python", "feedline", "numpy", "torch", "commit", "date"),
    }
    assert facts["cpu"]
    assert facts["usable_cores"] >= 1
    assert facts["python"] == platform.python_version()
    assert facts["numpy"] == np.__version__
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", facts["date"])
    text = json.dumps(facts)
    assert str(ROOT) not in text
    assert str(Path.home()) not in text
    assert not re.search(rf"\b{re.escape(socket.gethostname())}\b", text)


def test_the_text_ends_with_the_ratios_as_json(case):
    runs = {"feedline": [Run(1.0, 1.0)], "np.take": [Run(0.5, 0.9)], "torch": [Run(20.0, 30.0)]}
    lines = render(record(case, runs, compare(case, runs))).splitlines()
    assert json.loads(lines[-1]) == {"feedline/torch": 20.0, "feedline/np.take": 0.5}
    assert lines[-3].endswith("median 20.00 (quartiles 20.00..20.00, 20.00..20.00; in CPU time 30.00); bar 10: met")
    assert lines[-2].endswith("; bar 0.8: missed")
    header = next(number for number, line in enumerate(lines) if line.startswith("contender"))
    assert [line.split()[0] for line in lines[header + 2 : header + 5]] == ["feedline", "np.take", "torch"]
    assert len({len(line) for line in lines[header : header + 5]}) == 1


# ------------------------------------------------------------------------------------------------------------ command


def test_without_a_name_the_benchmarks_are_listed(capsys):
    assert main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["arrays", "overhead"]
    assert all(line.endswith(".") for line in lines)


@pytest.mark.parametrize("name", ["arrays", "overhead"])
def test_a_benchmark_runs_and_writes_its_record(name, tmp_path, capsys):
    """Whether bars are met or not, the exit status is 0."""
    file = tmp_path / "results" / "record.json"
    assert main([name, "--repeats", "2", "--samples", "40", "--json", str(file)]) == 0
    result = json.loads(file.read_text(encoding="utf-8"))
    assert result["benchmark"] == name
    assert result["settings"]["samples"] == 40
    assert all(len(values["runs"]) == 2 for values in result["contenders"].values())
    last = capsys.readouterr().out.splitlines()[-1]
    assert json.loads(last) == {f"{each['of']}/{each['to']}": round(each["median"], 3) for each in result["ratios"]}


@pytest.mark.parametrize("arguments", [["nothing"], ["arrays", "--repeats", "0"], ["arrays", "--samples", "-1"]])
def test_wrong_arguments_are_refused(arguments, capsys):
    with pytest.raises(SystemExit) as refused:
        main(arguments)
    assert refused.value.code == 2
    message = capsys.readouterr().err
    assert "invalid choice" in message or "must be a positive integer, got" in message
