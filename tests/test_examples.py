"""The teaching examples run as a student runs them, and their numbers are those of the lesson."""

import doctest
import importlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
NAMES = sorted(path.stem for path in EXAMPLES.glob("*.py"))
ARGUMENTS = {"offline_inference": ["5000"]}  # not a million requests
needs_torch = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")


@pytest.fixture
def example(monkeypatch):
    """An example, imported as one example imports another: from its own folder."""
    monkeypatch.syspath_prepend(EXAMPLES)
    yield importlib.import_module
    for name in NAMES:
        sys.modules.pop(name, None)


def run(*arguments, folder):
    environment = {**os.environ, "PYTHONWARNINGS": "error", "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


@cache
def printed(name):
    """What a student sees: the lines, after nothing went to stderr and no file was left in the current folder."""
    with tempfile.TemporaryDirectory() as folder:
        done = run(str(EXAMPLES / f"{name}.py"), *ARGUMENTS.get(name, ()), folder=folder)
        assert (done.returncode, done.stderr) == (0, "")
        assert not list(Path(folder).iterdir())
    return done.stdout.splitlines()


def test_there_are_eight_examples():
    assert NAMES == [
        "batch_arithmetic",
        "gradient_accumulation",
        "gradient_noise",
        "offline_inference",
        "resume",
        "sgd_from_scratch",
        "sgd_torch",
        "workers",
    ]


@pytest.mark.parametrize("name", [pytest.param(name, marks=needs_torch if "torch" in name else ()) for name in NAMES])
def test_example_runs_from_any_folder_without_a_warning(name):
    assert len(printed(name)) >= 5


def test_printed_epoch_shows_weights_and_bias_after_each_batch():
    lines = printed("sgd_from_scratch")
    assert lines[0].endswith(" 10.65625")
    assert [line.split("]")[1].split() for line in lines[3:7]] == [
        ["9.1250", "0.4375", "0.2375", "0.2750"],
        ["1.4854", "0.5425", "0.3116", "0.3800"],
        ["5.3878", "0.9644", "0.4110", "0.4675"],
        ["0.9975", "1.1054", "0.4755", "0.5515"],
    ]
    assert lines[-2].endswith(" 0.9971 (90.6% less)")
    assert lines[-1].endswith(" 3.3275")


@pytest.mark.parametrize("name", ["sgd_from_scratch", pytest.param("sgd_torch", marks=needs_torch)])
def test_sgd_gives_the_numbers_of_the_lesson(example, name):
    lesson = example("sgd_from_scratch")
    train = lesson.train_one_epoch if name == "sgd_from_scratch" else example(name).train_one_epoch_in_torch
    assert lesson.loss_on_all(np.zeros(2), 0.0) == 10.65625
    steps = train(batch_size=2)
    assert [round(step.loss, 4) for step in steps] == [9.125, 1.4854, 5.3878, 0.9975]
    last = steps[-1]
    assert last.w.round(4).tolist() == [1.1054, 0.4755]
    assert round(last.b, 4) == 0.5515
    after = lesson.loss_on_all(last.w, last.b)
    assert round(after, 4) == 0.9971
    assert round(1 - after / 10.65625, 3) == 0.906
    (whole,) = train(batch_size=8)
    assert round(lesson.loss_on_all(whole.w, whole.b), 4) == 3.3275


@needs_torch
def test_autograd_and_the_gradient_by_hand_agree(example):
    by_hand = example("sgd_from_scratch").train_one_epoch(batch_size=2)
    by_autograd = example("sgd_torch").train_one_epoch_in_torch(batch_size=2)
    for ours, theirs in zip(by_hand, by_autograd, strict=True):
        np.testing.assert_allclose([*ours.w, ours.b, ours.loss], [*theirs.w, theirs.b, theirs.loss], rtol=1e-14)


def test_accumulated_gradients_equal_the_large_batch(example):
    lesson = example("gradient_accumulation")
    sizes = [(batch_size, batches) for batch_size in range(1, 9) for batches in range(1, 9)]
    assert max(lesson.difference(*each) for each in sizes) < 1e-14
    assert abs(lesson.train(6) - lesson.train(8)).max() > 1e-3  # the large batch makes a difference


def test_the_shortcut_is_right_only_where_the_length_is_a_multiple(example):
    lesson = example("gradient_accumulation")
    assert lesson.difference(2, 2, shortcut=True) < 1e-14
    assert all(lesson.difference(*short, shortcut=True) > 1e-3 for short in [(2, 3), (3, 2), (3, 3)])


def test_gradient_noise_is_that_of_the_formulas(example):
    lesson = example("gradient_noise")
    mean, sigma2 = lesson.mean_and_variance(1, replacement=True)
    assert mean[:2].tolist() == [-11.125, -6.5625]
    assert sigma2[0] == 112.671875
    shown = {True: [], False: []}
    for B in (2, 4, 8):
        for replacement in (True, False):
            centre, variance = lesson.mean_and_variance(B, replacement=replacement)
            np.testing.assert_allclose(centre, mean, rtol=1e-12)  # no bias, for every parameter
            factor = 1 if replacement else (8 - B) / 7
            np.testing.assert_allclose(variance, sigma2 / B * factor, rtol=1e-12, atol=1e-12)
            shown[replacement].append(round(float(variance[0]), 2))
    assert shown == {True: [56.34, 28.17, 14.08], False: [48.29, 16.1, 0.0]}


def test_counting_each_multiset_as_often_as_it_is_ordered_is_counting_every_draw(example):
    """For batches of 3, all 512 ordered draws one by one."""
    lesson = example("gradient_noise")
    draws = [[i, j, k] for i in range(8) for j in range(8) for k in range(8)]
    every = lesson.gradients(draws)
    mean, variance = lesson.mean_and_variance(3, replacement=True)
    np.testing.assert_allclose(mean, every.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(variance, every.var(axis=0), rtol=1e-12)


@pytest.mark.parametrize(("name", "least"), [("batch_arithmetic", 10), ("gradient_noise", 1)])
def test_doctests_hold(example, name, least):
    result = doctest.testmod(example(name))
    assert result.failed == 0
    assert result.attempted >= least


def test_batch_arithmetic_passes_as_a_doctest_of_its_own(tmp_path):
    done = run("-m", "doctest", str(EXAMPLES / "batch_arithmetic.py"), folder=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_making_a_batch_copies_its_bytes_and_not_one_sample_more(example):
    lesson = example("batch_arithmetic")
    nbytes, photo = 77_070_336, 602_112
    assert lesson.load(128).nbytes == nbytes
    beyond = lesson.most_memory(lesson.load_from_memory, 128) - nbytes - photo  # the photo that was there
    assert beyond < 32_768


def test_inverse_frequency_draws_each_class_a_third(example):
    """Within four standard errors of 30,000 draws, for several seeds."""
    shares = [example("batch_arithmetic").balanced_shares([1000, 100, 50], 30_000, seed=seed) for seed in range(5)]
    np.testing.assert_allclose(shares, 1 / 3, rtol=0, atol=4 * (2 / 9 / 30_000) ** 0.5)
    assert len({tuple(each) for each in shares}) == 5


def test_printed_resume_sees_each_sample_once_in_the_order_of_a_run_never_stopped():
    assert [line.split() for line in printed("resume")[-3:]] == [
        ["0", "20", "0", "20", "of", "20", "True"],
        ["1", "12", "8", "20", "of", "20", "True"],
        ["2", "0", "20", "20", "of", "20", "True"],
    ]


@pytest.mark.parametrize("stop_in", [(0, 1), (1, 3), (1, 5), (2, 4)])
def test_resume_with_any_batch_size_sees_exactly_the_rest(example, tmp_path, stop_in):
    lesson = example("resume")
    unstopped = lesson.train(tmp_path / "unstopped.json", 4)
    assert all(sorted(seen) == list(range(20)) for seen in unstopped)
    for batch_size in (1, 3, 4, 7, 20):
        checkpoint = tmp_path / f"{batch_size}.json"
        before = lesson.train(checkpoint, 4, stop_in)
        assert [len(seen) for seen in before] == [20] * stop_in[0] + [4 * stop_in[1]] + [0] * (2 - stop_in[0])
        assert lesson.train(checkpoint, batch_size) == unstopped


def test_resume_with_the_same_batch_size_gives_the_same_weights_to_the_bit(example, tmp_path):
    lesson = example("resume")
    lesson.train(tmp_path / "a.json", 4, (1, 3))
    lesson.train(tmp_path / "a.json", 4)
    lesson.train(tmp_path / "b.json", 4)
    stopped, unstopped = (json.loads((tmp_path / name).read_text(encoding="utf-8")) for name in ("a.json", "b.json"))
    assert stopped["w"] == unstopped["w"]


def test_printed_epochs_of_threads_and_processes_hold_the_same_batches():
    lines = printed("workers")
    times = {line[:24].strip(): [float(word) for word in line[24:].split()] for line in lines[3:5]}
    assert lines[2].split() == ["alone", "2", "threads", "2", "processes"]
    assert list(times) == ["waiting for the disk", "arithmetic in Python"]
    assert times["waiting for the disk"][0] >= 0.19  # 192 images, each at least 1 ms
    assert lines[-1] == "the batches are the same, to the last bit: True"


@pytest.mark.parametrize("backend", ["thread", "process"])
def test_each_backend_gives_the_rotations_of_the_seed(example, backend):
    lesson = example("workers")
    alone, _ = lesson.epoch(lesson.rotated, "serial")
    made, _ = lesson.epoch(lesson.rotated, backend)
    assert [len(images) for images in made] == [16] * 12
    assert all(np.array_equal(*pair) for pair in zip(alone, made, strict=True))
    assert len({images.tobytes() for images in made}) == 12


def test_images_are_turned_about_their_middle_by_at_most_fifteen_degrees(example):
    lesson = example("workers")
    middle = np.zeros((9, 9), np.uint8)
    middle[4, 4] = 7  # one pixel becomes six by six
    for _ in range(20):
        rows, columns = np.nonzero(lesson.rotated(middle))
        assert abs(rows.mean() - 26.5) < 0.5
        assert abs(columns.mean() - 26.5) < 0.5
    edge = np.zeros((9, 9), np.uint8)
    edge[4, 8] = 7  # at the right, 24 pixels from the middle: sin(15 degrees) moves it up or down by 6.2 at most
    shifts = [np.nonzero(lesson.rotated(edge))[0].mean() - 26.5 for _ in range(20)]
    assert 1 < max(map(abs, shifts)) < 7


def test_printed_requests_are_answered_once_by_two_ranks_with_little_padding():
    lines = printed("offline_inference")
    ranks = [line.replace(",", "").split() for line in lines[3:5]]
    assert [rank[0] for rank in ranks] == ["0", "1"]
    assert sum(int(rank[1]) for rank in ranks) == 5000
    ours, shuffled = (float(part.split("%")[0].split()[-1]) for part in lines[-2].split(";"))
    assert 2 * ours < shuffled
    assert lines[-1].startswith("each request was answered exactly once")


@pytest.mark.parametrize("tokens", [2_048, 65_536])
def test_answers_stand_at_the_places_of_their_requests_for_any_batches(example, tmp_path, monkeypatch, tokens):
    lesson = example("offline_inference")
    monkeypatch.setattr(lesson, "MAX_TOKENS", tokens)
    lesson.write_requests(tmp_path, 700)
    done = [lesson.answer(tmp_path, rank) for rank in range(lesson.RANKS)]
    requests = lesson.Requests(tmp_path)
    by_hand = [
        (lesson.WEIGHTS[tokens] * (np.arange(len(tokens)) + 1)).sum()
        for _, tokens in map(requests.__getitem__, range(700))
    ]
    assert np.load(tmp_path / "answers.npy").tolist() == by_hand == lesson.expected(requests).tolist()
    assert (np.load(tmp_path / "times.npy") == 1).all()
    assert sum(rank["requests"] for rank in done) == 700
