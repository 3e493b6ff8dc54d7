from __future__ import annotations

import subprocess
import sys
import threading

from feedline.formats.lock import exclusive


def test_one_thread_at_a_time_is_inside_and_the_file_goes_with_the_last(tmp_path):
    path, count = tmp_path / "a.lock", tmp_path / "count"
    count.write_text("0")

    def take_turns():
        for _ in range(40):
            with exclusive(path):  # without it, nearly every reading would be of a file that another one writes
                count.write_text(str(int(count.read_text()) + 1))

    threads = [threading.Thread(target=take_turns) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert count.read_text() == "320"
    assert not path.exists()


def test_the_lock_of_a_killed_process_is_free(tmp_path):
    path = tmp_path / "a.lock"
    holder = (
        "import sys, pathlib; from feedline.formats.lock import exclusive\n"
        "with exclusive(pathlib.Path(sys.argv[1])):\n    print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", holder, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout.readline().strip() == b"held"
        assert path.exists()
        process.kill()
    with exclusive(path):
        assert path.exists()
    assert not path.exists()


def test_it_is_released_when_the_body_raises(tmp_path):
    path = tmp_path / "a.lock"
    for _ in range(2):
        try:
            with exclusive(path):
                raise KeyError
        except KeyError:
            assert not path.exists()
