"""Laws of the benchmarks, on tiny sizes: they count, pair and report rightly. No timing is asserted."""

import gc
import json
import multiprocessing
import platform
import re
import socket
import sys
from dataclasses import replace
from multiprocessing import forkserver, resource_tracker
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import feedline

SPREAD = ("median", "lower_quartile", "upper_quartile", "min", "max")
ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # the benchmarks are a package of the repository, not of the distribution

from benchmarks import (  # noqa: E402 -- found by the line above
    arrays,
    figures,
    ipc,
    jpeg,
    memory,
    order,
    overhead,
    overlap,
    packing,
    pure_python,
    startup,
)
from benchmarks.__main__ import main  # noqa: E402
from benchmarks.apart import answer_of  # noqa: E402
from benchmarks.figures import Figures, Probe, Quantity  # noqa: E402
from benchmarks.harness import Bar, Contender, Outcome, Run, Spread, compare, measure, verify  # noqa: E402
from benchmarks.programs.order import check_due, check_first, counted  # noqa: E402
from benchmarks.programs.packing import lengths_of  # noqa: E402
from benchmarks.report import machine, record, record_case, record_figures, render  # noqa: E402


@pytest.fixture(scope="module", autouse=True)
def forkserver_there():
    """It stays until the interpreter ends: it is there before the first test, which else seems to leave it behind."""
    if "forkserver" in multiprocessing.get_all_start_methods():
        resource_tracker.ensure_running()
        forkserver.ensure_running()


@pytest.fixture(scope="module")
def case():
    (case,) = arrays.build(samples=50, batch_size=16)
    return case


def waits_of(first, second):
    """Figures of two contenders that measure these waits, in seconds."""
    return Figures(
        name="waits",
        quantities=(Quantity("wait", "ms", 1e3), Quantity("share", "%", 100.0)),
        probes=(
            Probe("ours", lambda number: {"wait": first[number - 1], "share": 0.5}),
            Probe("theirs", lambda number: {"wait": second[number - 1]}),
        ),
        bars=(
            Bar("ours", "theirs", least=2.0, quantity="wait"),
            Bar("ours", most=0.015, quantity="wait"),
            Bar("theirs", most=0.015, quantity="wait"),
        ),
        label="here",
        warm_ups=0,
    )


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


def test_a_bar_may_be_a_least_or_a_most_or_both():
    spread = Spread.of([2.0])
    met = [
        Outcome(Bar("a", least=least, most=most), spread).met for least, most in ((2, 2), (3, None), (None, 1), (1, 3))
    ]
    assert met == [True, False, False, True]
    assert Outcome(Bar("a"), spread).met is None


def test_ratios_are_formed_within_rounds(case):
    """The machine halves its speed after the first round: no ratio sees it."""
    ours, theirs = [Run(1.0, 1.0), Run(2.0, 4.0), Run(2.0, 4.0)], [Run(10.0, 5.0), Run(20.0, 20.0), Run(30.0, 40.0)]
    bars = (Bar("feedline", "torch", 10.0), Bar("torch", "feedline", 0.2), Bar("feedline", "torch"))
    ratios = compare(replace(case, bars=bars), {"feedline": ours, "torch": theirs})
    assert ratios[0].spread == Spread.of([10.0, 10.0, 15.0])
    assert ratios[0].cpu == Spread.of([5.0, 5.0, 10.0])
    assert [ratio.met for ratio in ratios] == [True, False, None]


def test_figures_are_compared_within_rounds_and_judged_by_themselves():
    waits = waits_of([0.01, 0.02], [0.03, 0.06])
    taken = figures.take(waits, repeats=2)
    assert taken["ours"] == [{"wait": 0.01, "share": 0.5}, {"wait": 0.02, "share": 0.5}]
    outcomes = figures.judge(waits, taken)
    assert outcomes[0].spread == Spread.of([3.0, 3.0])
    assert [outcome.met for outcome in outcomes] == [True, True, False]


def test_warm_up_rounds_are_not_kept():
    waits = replace(waits_of([0.01, 0.02, 0.03], [1.0, 2.0, 3.0]), warm_ups=1)
    told = []
    taken = figures.take(waits, 2, told.append)
    assert [one["wait"] for one in taken["theirs"]] == [2.0, 3.0]
    assert told == [
        *("warm-up: ours", "warm-up: theirs"),
        *("round 1 of 2: ours", "round 1 of 2: theirs"),
        *("round 2 of 2: ours", "round 2 of 2: theirs"),
    ]


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


def cases(name, folder):
    """The cases of a benchmark in which epochs are timed."""
    if name == "overhead":
        return (next(iter(overhead.build(samples=7))),)
    if name == "order":
        return [case for case in order.build(samples=600, sizes=()) if not isinstance(case, Figures)]
    return {
        "ipc": lambda: ipc.build(samples=40, sizes=ipc.SIZES[:2]),
        "jpeg": lambda: jpeg.build(samples=33),
        "jpeg --folder": lambda: jpeg.build(samples=4, folder=folder),
    }[name]()


@pytest.mark.parametrize("name", ["overhead", "order", "ipc", "jpeg", "jpeg --folder"])
def test_all_deliver_the_same_in_epoch_after_epoch(name, tmp_path):
    jpeg.write_photographs(tmp_path, 5)
    for case in cases(name, tmp_path):
        try:
            verify(case)
            assert {name for bar in case.bars for name in (bar.of, bar.to)} <= {each.name for each in case.contenders}
            verify(case)
        finally:
            case.close()


def test_photographs_of_other_files_are_refused():
    (case,) = jpeg.build(samples=2)
    case.close()
    image = np.zeros((2, 224, 224, 3), np.uint8)
    assert case.fingerprint((image, np.arange(2))) == 0


def test_decoders_agree_but_for_rounding(tmp_path):
    path = jpeg.write_photographs(tmp_path, 1)[0]
    fast, slow = jpeg.read_opencv(path), jpeg.read_pillow(path)
    assert fast.shape == slow.shape == (224, 224, 3)
    assert np.abs(fast.astype(float) - slow).mean() < 20
    out = np.empty_like(fast)
    assert jpeg.read_opencv(path, out) is out
    assert (out == fast).all()


def test_a_folder_without_photographs_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"folder must hold files that end with .jpg or .jpeg, got "):
        next(iter(jpeg.build(folder=tmp_path)))


def test_the_loop_lasts_as_long_as_it_is_asked_to():
    """Twice the time, twice the turns, but for noise; the value depends on the index."""
    short, long = pure_python.turns_for(1e-4), pure_python.turns_for(1e-2)
    assert 10 < long / short < 1_000
    dataset = pure_python.Counted(2, short)
    assert dataset[0] != dataset[1]


# -------------------------------------------------------------------------------------------------------- measurements


def probed(figures_case):
    """What each probe measures, once; each bar names what one of them does."""
    try:
        taken = figures.take(replace(figures_case, warm_ups=0), repeats=1)
        assert len(figures.judge(figures_case, taken)) == len(figures_case.bars)
        render(record("x", [record_figures(figures_case, taken, figures.judge(figures_case, taken))]))
    finally:
        figures_case.close()
    return {name: runs[0] for name, runs in taken.items()}


def test_bookkeeping_is_measured_for_each_number_of_workers():
    _, case, _ = overhead.build(samples=70, workers=(1, 2))
    measured = probed(case)
    assert set(measured) == {"feedline processes", "feedline threads", "torch"}
    assert all(set(one) == {"1 worker", "2 workers"} for one in measured.values())
    assert all(0 < value < 1 for one in measured.values() for value in one.values())


def test_waiting_is_a_share_of_the_epoch():
    (case,) = overlap.build(samples=35)
    measured = probed(case)
    assert set(measured) == {"feedline threads", "feedline processes", "torch"}
    assert all(0 < one["waiting"] < 1 and one["longest wait"] > 0 for one in measured.values())


@pytest.mark.parametrize("measure_epoch", [overhead.bookkeeping_s, overlap.waiting])
def test_an_epoch_that_loses_samples_is_not_measured(measure_epoch):
    with pytest.raises(RuntimeError, match="an epoch must deliver every sample: got 4 of 5"):
        measure_epoch([[0, 1], [2, 3]], 5)


def test_waiting_is_what_passes_within_next():
    """The loop's own 20 ms steps are no waiting, however many there are."""
    assert overlap.waiting([[0]] * 5, 5)["waiting"] < 0.5


def test_startup_is_measured_in_a_process_of_its_own():
    """Importing torch takes long: once is enough here."""
    (case,) = startup.build(samples=100, methods=("fork",))
    ours, both, theirs = case.probes
    assert [bar.of for bar in case.bars] == [both.name] * 2
    assert set(ours.take(1)) == {"first batch", "epoch 2"}
    measured = theirs.take(1)
    assert set(measured) == {quantity.name for quantity in case.quantities}
    assert measured["first batch"] > measured["epoch 2"] > 0


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs Linux")
def test_memory_is_that_of_all_processes():
    (case,) = memory.build(samples=20_000, workers=2, batch_size=100)
    measured = case.probes[0].take(1)
    assert set(measured) == {quantity.name for quantity in case.quantities}
    assert measured["processes"] >= 3
    assert measured["times held"] == measured["for the strings"] / case.settings["list_nbytes"]
    assert answer_of("memory", library="torch", samples=100, workers=2, batch_size=10)["all processes"] > 1e7


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux")
def test_an_order_is_measured_in_processes_of_its_own():
    sized = next(iter(order.build(sizes=(100_000,), prefix=5_000)))
    measured = probed(sized)["feedline"]
    assert set(measured) == {quantity.name for quantity in sized.quantities}
    assert sized.settings["step"] == 100_000 // 256 - 1
    assert 0 < measured["allocated"] < 1 << 20
    theirs = answer_of("order", measure="times", library="torch", samples=1_000, batch_size=16, prefix=500)
    assert set(theirs) == set(measured) - {"long takes", "resume", "resident", "allocated"}
    assert all(value > 0 for value in theirs.values())


def test_resuming_is_measured_at_the_batch_that_is_due():
    """Whether all batches before it were taken, or the state was moved on."""
    arguments = {"library": "feedline", "samples": 70_000, "batch_size": 64, "step": 1_000}
    for run in (3, 1_000):
        assert answer_of("order", measure="resume", run=run, **arguments)["resume"] > 0


def test_resuming_torchdata_is_measured():
    pytest.importorskip("torchdata", reason="of the benchmarks alone")
    answer = answer_of("order", measure="resume", library="torchdata", samples=1_000, batch_size=16, step=40, run=40)
    assert answer["resume"] > 0


def test_an_order_that_is_none_is_not_measured():
    check_first(np.array([3, 0]), 4, 2)
    for indices in ([3, 3], [0, 4], [-1, 0], [0]):
        with pytest.raises(RuntimeError, match="an epoch of 4 must begin with 2 samples, each once: got"):
            check_first(np.array(indices), 4, 2)
    with pytest.raises(RuntimeError, match=r"at step 5 the batch of \[1 2\] is due, got \[2 1\]"):
        check_due(np.array([2, 1]), np.array([1, 2]), 5)


def test_indices_are_counted_up_to_the_batch_that_reaches_the_prefix():
    batches = iter([range(4), range(4), range(4)])
    assert counted(batches, 5) == 8
    assert counted(batches, 100) == 4


def test_waste_is_counted_row_by_row():
    lengths = lengths_of(500, 300, 1_024, seed=0)
    assert lengths.min() >= 1
    assert lengths.max() == 1_024
    for strategy in ("best-fit", "first-fit"):
        shares = packing.packed(lengths, 1_024, strategy)
        rows = feedline.pack_sequences(lengths, 1_024, strategy=strategy)
        assert shares["waste"] == pytest.approx(rows.waste)
        assert shares["split"] == 0
    with pytest.raises(RuntimeError, match="499 sequences must each be in one row of at most 1024: got 500 pieces"):
        packing.checked_waste(rows, lengths[1:])


def test_cutting_splits_and_padding_wastes():
    lengths = np.array([5, 3, 6, 4])
    assert packing.cut(lengths, 8) == {"waste": 1 - 18 / 24, "split": 0.25}
    assert packing.padded(lengths, 8) == {"waste": 1 - 18 / 32, "split": 0.0}


def test_packing_is_measured_for_each_median():
    *wastes, first = packing.packing_cases(2_000, medians=(300, 700), row_length=1_024)
    assert [case.bars[0].most for case in wastes] == [0.01, 0.02]
    for case in wastes:
        measured = probed(case)
        assert set(measured) == {"best-fit", "first-fit", "cut", "padded"}
        assert all(0 <= one[share] < 1 for one in measured.values() for share in ("waste", "of 1,000", "split"))
        assert measured["best-fit"]["waste"] < measured["padded"]["waste"]
    assert set(first.probes[-1].take(1)) == {"first call", "second call"}


def test_a_program_that_fails_is_an_error_with_what_it_wrote():
    with pytest.raises(RuntimeError, match=r"(?s)program 'startup' must end with status 0, got 1:.*'no-such-method'"):
        answer_of("startup", library="feedline", method="no-such-method", with_torch=False, samples=1)


# ---------------------------------------------------------------------------------------------------------- reporting


def test_the_record_is_json_with_every_run_and_the_outcomes_last(case):
    runs = {name: [Run(0.5, 0.25), Run(1.0, 0.25), Run(2.0, 0.25)] for name in ("feedline", "np.take", "torch")}
    result = record("arrays", [record_case(case, runs, compare(case, runs))])
    assert json.loads(json.dumps(result)) == result
    assert list(result) == ["benchmark", "machine", "cases"]
    (own,) = result["cases"]
    assert list(own) == ["label", "settings", "contenders", "outcomes"]
    ours = own["contenders"]["feedline"]
    assert ours["runs"][2] == {"wall_s": 2.0, "cpu_s": 0.25}
    assert ours["seconds"] == {"median": 1.0, "lower_quartile": 0.75, "upper_quartile": 1.5, "min": 0.5, "max": 2.0}
    assert ours["samples_per_s"] == 50.0
    assert ours["gb_per_s"] == pytest.approx(50 * (32 * 32 * 3 + 8) / 1e9)
    assert ours["us_per_batch"] == 250_000
    assert [(each["of"], each["to"], each["least"], each["met"]) for each in own["outcomes"]] == [
        ("feedline", "torch", 10.0, False),
        ("feedline", "np.take", 0.8, True),
    ]


def test_the_record_of_figures_is_json_in_base_units():
    waits = waits_of([0.01], [0.03])
    taken = figures.take(waits, repeats=1)
    result = record("waits", [record_figures(waits, taken, figures.judge(waits, taken))])
    assert json.loads(json.dumps(result)) == result
    (own,) = result["cases"]
    assert own["contenders"]["theirs"]["figures"] == {"wait": dict.fromkeys(SPREAD, 0.03)}
    assert [each["median"] for each in own["outcomes"]] == [3.0, 0.01, 0.03]


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


def test_the_text_ends_with_the_outcomes_and_their_medians_as_json(case):
    runs = {"feedline": [Run(1.0, 1.0)], "np.take": [Run(0.5, 0.9)], "torch": [Run(20.0, 30.0)]}
    lines = render(record("arrays", [record_case(case, runs, compare(case, runs))])).splitlines()
    assert json.loads(lines[-1]) == {"throughput of feedline / torch": 20.0, "throughput of feedline / np.take": 0.5}
    assert lines[-4].split("  ")[0] == "throughput of feedline / torch"
    assert lines[-4].split()[5:] == ["20.00", "20.00..20.00", "20.00..20.00", "30.00", ">=", "10", "met"]
    assert lines[-3].split()[5:] == ["0.50", "0.50..0.50", "0.50..0.50", "0.90", ">=", "0.8", "MISSED"]
    header = next(number for number, line in enumerate(lines) if line.startswith("contender"))
    assert [line.split()[0] for line in lines[header + 2 : header + 5]] == ["feedline", "np.take", "torch"]
    assert len({len(line) for line in lines[header : header + 5]}) == 1


def test_figures_are_shown_in_their_units():
    waits = waits_of([0.01], [0.03])
    taken = figures.take(waits, repeats=1)
    lines = render(record("waits", [record_figures(waits, taken, figures.judge(waits, taken))])).splitlines()
    assert json.loads(lines[-1]) == {
        "here: wait of theirs / ours": 3.0,
        "here: wait of ours": 0.01,
        "here: wait of theirs": 0.03,
    }
    assert lines[-5].split()[6:] == ["3.00", "3.00..3.00", "3.00..3.00", ">=", "2", "met"]
    assert lines[-4].split()[4:] == ["10.0", "ms", "10.0..10.0", "10.0..10.0", "<=", "15", "ms", "met"]
    assert lines[-3].split()[4:] == ["30.0", "ms", "30.0..30.0", "30.0..30.0", "<=", "15", "ms", "MISSED"]
    header = next(number for number, line in enumerate(lines) if line.startswith("contender"))
    assert lines[header].split() == ["contender", "wait", "ms", "quartiles", "share", "%", "quartiles"]
    assert lines[header + 2].split() == ["ours", "10.0", "10.0..10.0", "50.0", "50.0..50.0"]
    assert lines[header + 3].split() == ["theirs", "30.0", "30.0..30.0", "-", "-"]


# ------------------------------------------------------------------------------------------------------------ command


def test_without_a_name_the_benchmarks_are_listed(capsys):
    assert main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    names = ["arrays", "ipc", "jpeg", "memory", "order", "overhead", "overlap", "pure-python", "startup"]
    assert [line.split()[0] for line in lines] == names
    assert all(line.endswith(".") for line in lines)


@pytest.mark.parametrize("name", ["arrays", "pure-python", "overlap"])
def test_a_benchmark_runs_and_writes_its_record(name, tmp_path, capsys):
    """Whether bars are met or not, the exit status is 0."""
    file = tmp_path / "results" / "record.json"
    assert main([name, "--repeats", "1", "--samples", "40", "--json", str(file)]) == 0
    result = json.loads(file.read_text(encoding="utf-8"))
    assert result["benchmark"] == name
    for case in result["cases"]:
        assert case["settings"]["samples"] == 40
        assert all(len(values["runs"]) == 1 for values in case["contenders"].values())
    last = capsys.readouterr().out.splitlines()[-1]
    assert len(json.loads(last)) == sum(len(case["outcomes"]) for case in result["cases"])


@pytest.mark.parametrize("arguments", [["nothing"], ["arrays", "--repeats", "0"], ["arrays", "--samples", "-1"]])
def test_wrong_arguments_are_refused(arguments, capsys):
    with pytest.raises(SystemExit) as refused:
        main(arguments)
    assert refused.value.code == 2
    message = capsys.readouterr().err
    assert "invalid choice" in message or "must be a positive integer, got" in message


def test_a_folder_is_for_photographs(tmp_path, capsys):
    for arguments, message in (
        (["arrays", "--folder", str(tmp_path)], "arrays has no --folder"),
        (["jpeg", "--folder", str(tmp_path / "none")], "must be a folder, got"),
    ):
        with pytest.raises(SystemExit):
            main(arguments)
        assert message in capsys.readouterr().err
