"""The command line, as a process of its own wherever that is what the law is about."""

import json
import os
import re
import signal
import subprocess
import sys

import pytest

import feedline
from feedline.cli import main

FEEDLINE = [sys.executable, "-m", "feedline"]
ENVIRONMENT = {
    # What rich goes by in telling a terminal, and colours, is left to the test.
    name: value
    for name, value in os.environ.items()
    if name not in {"FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "COLORTERM"}
} | {"TERM": "xterm-256color"}


def run(*command):
    return subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, check=False)


def run_without(module, *arguments):
    """The command in an interpreter in which ``module`` cannot be imported."""
    code = f"import sys; sys.modules[{module!r}] = None; from feedline.cli import main; sys.exit(main(sys.argv[1:]))"
    return run(sys.executable, "-c", code, *arguments)


def losses(output):
    return re.findall(r"^ +\d+   (\d+\.\d{6}) ", output, flags=re.MULTILINE)


def test_demo_learns_the_digits():
    done = run(*FEEDLINE, "demo")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("UCI handwritten digits\n")
    best = max(float(accuracy) for accuracy in re.findall(r"(\d+\.\d)%$", done.stdout, flags=re.MULTILINE))
    assert best >= 95


def test_the_seed_that_is_shown_reproduces_the_losses():
    drawn = run(*FEEDLINE, "demo", "--epochs", "2").stdout
    seed = re.search(r"--seed (\d+)$", drawn, flags=re.MULTILINE).group(1)
    again = run(*FEEDLINE, "demo", "--epochs", "2", "--seed", seed).stdout
    assert len(losses(drawn)) == 2
    assert losses(drawn) == losses(again)


def test_a_seed_is_drawn_anew_each_time(capsys):
    outputs = []
    for _ in range(2):
        assert main(["demo", "--epochs", "1"]) == 0
        outputs.append(losses(capsys.readouterr().out))
    assert outputs[0] != outputs[1]


def test_without_a_terminal_there_are_lines_alone():
    output = run(*FEEDLINE, "demo", "--epochs", "2").stdout
    assert not [character for character in output if not character.isprintable() and character != "\n"]
    assert "━" not in output


@pytest.mark.skipif(os.name == "nt", reason="pseudo-terminals are POSIX")
def test_on_a_terminal_there_is_a_bar_and_the_cursor_comes_back():
    ours, theirs = os.openpty()
    with subprocess.Popen([*FEEDLINE, "demo"], stdout=theirs, env=ENVIRONMENT) as process:
        os.close(theirs)
        output = b""
        while True:
            try:
                read = os.read(ours, 65536)
            except OSError:  # how Linux tells that the other end is closed
                break
            if not read:
                break
            output += read
    os.close(ours)
    assert process.returncode == 0
    assert "training" in output.decode()
    assert "━" in output.decode()
    assert output.rindex(b"\x1b[?25h") > output.rindex(b"\x1b[?25l")  # shown after it was hidden


@pytest.mark.skipif(os.name == "nt", reason="SIGINT cannot be sent to one process on Windows")
def test_ctrl_c_is_one_line_and_status_130():
    # Where the tests run in the background, SIGINT is ignored, and processes inherit that.
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from feedline.cli import main; sys.exit(main(['demo', '--epochs', '1000000']))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
    ) as process:
        for line in process.stdout:
            if losses(line):
                break
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate()
    assert errors == "feedline: stopped\n"
    assert process.returncode == 130


def test_a_reader_that_leaves_early_is_no_traceback():
    with subprocess.Popen(
        [*FEEDLINE, "demo"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
    ) as process:
        process.stdout.readline()
        process.stdout.close()
        errors = process.stderr.read()
    assert "Traceback" not in errors


def test_version_and_help_need_no_rich():
    done = run_without("rich", "--version")
    assert (done.returncode, done.stdout) == (0, f"feedline {feedline.__version__}\n")
    assert run_without("rich", "demo", "--help").returncode == 0


def test_verify_explains_a_state_and_needs_no_rich(tmp_path):
    path = tmp_path / "state.json"
    loader = feedline.DataLoader(range(10), 4, seed=7)
    next(iter(loader))
    path.write_text(json.dumps(loader.state_dict()))
    done = run_without("rich", "verify", str(path))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (
        f"{path}: a valid state of a Feedline loader\n"
        "\n"
        "  order      SequentialSampler, seed 7\n"
        "  epoch      0 (the first)\n"
        "  batches    4 samples on one rank\n"
        "  delivered  4 of 10 samples (40.0%), in 1 step\n"
        "  left       6 samples: 1 step and one of 2 unless drop_last\n"
        "\n"
        "A loader with the same batch size and number of ranks goes on with step 1. With\n"
        "another batch size or number of ranks it goes on with the same 6 samples, and\n"
        "counts steps from 0 again. The number of workers makes no difference.\n"
    )


def test_verify_of_a_damaged_state_is_one_line_and_status_1(tmp_path):
    path = tmp_path / "state.json"
    path.write_text('{"feedline": 2}')
    done = run(*FEEDLINE, "verify", str(path))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (f"feedline: error: {path}: state['feedline'] must be 1, the version of the format, got 2\n")


def test_verify_needs_a_file(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["verify"])
    assert caught.value.code == 2
    assert "the following arguments are required: FILE" in capsys.readouterr().err


def test_without_rich_the_demo_names_the_extra():
    done = run_without("rich", "demo")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "feedline: error: feedline demo needs rich, which is not installed: pip install 'feedline[cli]'\n"
    )


def test_a_missing_folder_is_one_line(tmp_path, capsys):
    assert main(["demo", "--data", str(tmp_path / "none")]) == 1
    output = capsys.readouterr()
    assert (output.out, output.err) == ("", f"feedline: error: {tmp_path / 'none'} is no folder\n")


def test_a_folder_of_something_else_is_one_line(tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("nothing to learn")
    assert main(["demo", "--data", str(tmp_path)]) == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith(f"feedline: error: {tmp_path}: not recognised. Looked for MNIST")
    assert output.err.count("\n") == 1


def test_a_damaged_file_is_one_line(tmp_path, capsys):
    (tmp_path / "test_batch.bin").write_bytes(b"short")
    assert main(["demo", "--data", str(tmp_path)]) == 1
    output = capsys.readouterr()
    assert output.err.startswith(f"feedline: error: {tmp_path / 'test_batch.bin'}")
    assert output.err.count("\n") == 1


def test_a_warning_is_one_line(tmp_path):
    (tmp_path / "data_batch_2.bin").write_bytes(bytes(3073) + bytes([1] * 3073))
    done = run(*FEEDLINE, "demo", "--data", str(tmp_path), "--epochs", "1")
    assert done.returncode == 0
    assert done.stderr.startswith("feedline: warning: CIFAR10 is incomplete: data_batch_1.bin")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("option", ["--epochs", "--batch-size"])
@pytest.mark.parametrize("value", ["0", "-1", "1.5", "many", ""])
def test_counts_are_positive_integers(option, value, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["demo", f"{option}={value}"])
    assert caught.value.code == 2
    assert f"argument {option}: must be a positive integer, got {value}\n" in capsys.readouterr().err


@pytest.mark.parametrize("value", ["-1", str(2**64), "0.5", "one"])
def test_a_seed_has_64_bits(value, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["demo", f"--seed={value}"])
    assert caught.value.code == 2
    assert f"argument --seed: must be an integer from 0 to 2**64 - 1, got {value}\n" in capsys.readouterr().err


def test_the_greatest_seed_is_one(capsys):
    assert main(["demo", "--epochs", "1", "--seed", str(2**64 - 1)]) == 0
    assert f"seed {2**64 - 1}\n" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [[], ["serve"], ["demo", "--fast"]])
def test_an_unknown_command_or_option_is_a_usage_error(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: feedline" in capsys.readouterr().err
