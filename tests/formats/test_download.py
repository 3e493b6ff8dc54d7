from __future__ import annotations

import hashlib
import socket
import subprocess
import sys

import pytest

from feedline.errors import FeedlineError
from feedline.formats.download import Checksum, download


def sha256(content):
    return Checksum("sha256", hashlib.sha256(content).hexdigest())


def ranges(server):
    return [request.get("Range") for request in server.requests]


def test_the_file_arrives_and_nothing_else_is_left(server, tmp_path):
    path = tmp_path / "new" / "folder" / "file.bin"
    md5 = Checksum("md5", hashlib.md5(server.content).hexdigest().upper())
    assert download(server.url, path, checksum=md5) == path
    assert path.read_bytes() == server.content
    assert list(path.parent.iterdir()) == [path]
    assert ranges(server) == [None]


def test_an_empty_file_arrives(server, tmp_path):
    server.content = b""
    path = download(server.url, tmp_path / "file.bin", checksum=sha256(b""))
    assert path.read_bytes() == b""


def test_a_file_with_the_checksum_is_not_fetched_again(server, tmp_path):
    path = tmp_path / "file.bin"
    path.write_bytes(server.content)
    download(server.url, path, checksum=sha256(server.content))
    download(server.url, path)
    assert server.requests == []


def test_a_file_with_another_checksum_is_replaced(server, tmp_path):
    path = tmp_path / "file.bin"
    path.write_bytes(b"an older one")
    download(server.url, path, checksum=sha256(server.content))
    assert path.read_bytes() == server.content


def test_a_broken_transfer_goes_on_where_it_stopped(server, tmp_path):
    server.script = [("serve", 1000), ("hang_up",), ("serve", 300_000), ("serve",)]
    path = download(server.url, tmp_path / "file.bin", backoff_s=0)
    assert path.read_bytes() == server.content
    assert ranges(server) == [None, "bytes=1000-", "bytes=1000-", "bytes=301000-"]
    assert server.requests[1]["If-Range"] == server.etag


@pytest.mark.parametrize("etag", [None, 'W/"weak"'])
def test_without_a_strong_tag_the_date_says_whether_the_file_is_the_same(server, tmp_path, etag):
    server.etag, server.script = etag, [("serve", 1000)]
    path = download(server.url, tmp_path / "file.bin", backoff_s=0)
    assert path.read_bytes() == server.content
    assert server.requests[1]["If-Range"] == server.date


def test_a_server_without_ranges_is_asked_for_the_whole_again(server, tmp_path):
    server.script = [("serve", 1000), ("ignore_range",)]
    path = download(server.url, tmp_path / "file.bin", backoff_s=0)
    assert path.read_bytes() == server.content


def test_a_file_that_changed_meanwhile_starts_anew(server, tmp_path):
    server.script = [("serve", 1000), ("change", b"now shorter", '"two"', "Tue, 02 Jan 2024 00:00:00 GMT")]
    path = download(server.url, tmp_path / "file.bin", backoff_s=0)
    assert path.read_bytes() == b"now shorter"
    assert ranges(server) == [None, "bytes=1000-"]


def test_a_later_call_goes_on_from_the_part_if_a_checksum_will_tell(server, tmp_path):
    path = tmp_path / "file.bin"
    server.script = [("serve", 1000)]
    message = r"file\.bin: not complete after 1 tries; .*1000 of 700000 bytes arrived"
    with pytest.raises(FeedlineError, match=message):
        download(server.url, path, tries=1)
    assert not path.exists()
    assert (tmp_path / "file.bin.part").stat().st_size == 1000
    download(server.url, path, checksum=sha256(server.content))
    assert path.read_bytes() == server.content
    assert ranges(server) == [None, "bytes=1000-"]


def test_without_a_checksum_an_older_part_is_not_trusted(server, tmp_path):
    (tmp_path / "file.bin.part").write_bytes(b"of another file")
    path = download(server.url, tmp_path / "file.bin")
    assert path.read_bytes() == server.content
    assert ranges(server) == [None]


def test_a_part_that_was_complete_needs_only_the_servers_word(server, tmp_path):
    (tmp_path / "file.bin.part").write_bytes(server.content)
    path = download(server.url, tmp_path / "file.bin", checksum=sha256(server.content), tries=1)
    assert path.read_bytes() == server.content


def test_a_part_longer_than_the_file_starts_anew(server, tmp_path):
    (tmp_path / "file.bin.part").write_bytes(server.content + b"and more")
    path = download(server.url, tmp_path / "file.bin", checksum=sha256(server.content), backoff_s=0)
    assert path.read_bytes() == server.content
    assert ranges(server) == ["bytes=700008-", None]


def test_a_part_longer_than_the_file_is_said_to_be_no_beginning_of_it(server, tmp_path):
    part = tmp_path / "file.bin.part"
    part.write_bytes(server.content + b"and more")
    with pytest.raises(FeedlineError, match="the 700008 bytes so far are no beginning of what the server has now"):
        download(server.url, tmp_path / "file.bin", checksum=sha256(server.content), tries=1)
    assert not part.exists()


@pytest.mark.parametrize(
    ("content_range", "body", "reason"),
    [
        ("bytes 0-2/700000", b"abc", "the server sent bytes from 0, asked from 10"),
        ("nonsense", b"abc", "the server sent bytes from None, asked from 10"),
        ("bytes 10-12/11", b"abc", "13 of 11 bytes arrived"),
    ],
)
def test_an_answer_that_does_not_fit_the_part_starts_anew(server, tmp_path, content_range, body, reason):
    path, part = tmp_path / "file.bin", tmp_path / "file.bin.part"
    checksum = sha256(server.content)
    part.write_bytes(server.content[:10])
    server.script = [("partial", content_range, body)]
    with pytest.raises(FeedlineError, match=f"not complete after 1 tries; the last: {reason}"):
        download(server.url, path, checksum=checksum, tries=1)
    assert not part.exists()
    download(server.url, path, checksum=checksum)
    assert path.read_bytes() == server.content


def test_a_range_of_unknown_total_is_taken_as_it_comes(server, tmp_path):
    (tmp_path / "file.bin.part").write_bytes(b"abc")
    server.script = [("partial", "bytes 3-5/*", b"def")]
    path = download(server.url, tmp_path / "file.bin", checksum=sha256(b"abcdef"), tries=1)
    assert path.read_bytes() == b"abcdef"


def test_a_file_of_unannounced_length_ends_with_the_connection(server, tmp_path):
    server.script = [("unannounced",)]
    path = download(server.url, tmp_path / "file.bin", checksum=sha256(server.content))
    assert path.read_bytes() == server.content


def test_a_server_error_is_tried_again(server, tmp_path):
    server.script = [("status", 500), ("status", 503)]
    path = download(server.url, tmp_path / "file.bin", backoff_s=0)
    assert path.read_bytes() == server.content
    assert len(server.requests) == 3


def test_a_silent_server_is_given_up(server, tmp_path):
    server.script = [("stall",)]
    with pytest.raises(FeedlineError, match=r"not complete after 1 tries; the last: TimeoutError"):
        download(server.url, tmp_path / "file.bin", tries=1, timeout_s=0.05)


def test_nobody_listening_is_an_error_with_its_cause(tmp_path):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    with pytest.raises(FeedlineError, match=r"not complete after 2 tries; the last: .*refused") as caught:
        download(f"http://127.0.0.1:{port}/file", tmp_path / "file", tries=2, backoff_s=0)
    assert isinstance(caught.value.__cause__.__cause__, OSError)


def test_a_refusal_is_final(server, tmp_path):
    server.script = [("status", 404)]
    with pytest.raises(FeedlineError, match=r"http://127\.0\.0\.1:\d+/file\.bin: HTTP 404 Not Found"):
        download(server.url, tmp_path / "file.bin")
    assert len(server.requests) == 1
    assert list(tmp_path.iterdir()) == []


def test_redirects_are_followed_within_http(server, tmp_path):
    server.script = [("status", 302, [("Location", "/elsewhere")])]
    path = download(server.url, tmp_path / "file.bin")
    assert path.read_bytes() == server.content


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("ftp://127.0.0.1/file", r"redirected elsewhere; url must begin with http:// or https://, got 'ftp:"),
        ("file:///etc/hostname", "HTTP 302"),
    ],
)
def test_redirects_beyond_http_are_refused(server, tmp_path, location, message):
    server.script = [("status", 302, [("Location", location)])]
    with pytest.raises(FeedlineError, match=message):
        download(server.url, tmp_path / "file.bin")


def test_another_checksum_removes_what_arrived_and_says_what_it_was(server, tmp_path):
    path = tmp_path / "file.bin"
    path.write_bytes(b"older")
    right, server.content = sha256(server.content), server.content[:-1] + b"!"
    wrong = sha256(server.content)
    with pytest.raises(
        FeedlineError,
        match=rf"{path}: expected sha256 {right.digest}, got {wrong.digest} from {server.url}; .* anew",
    ):
        download(server.url, path, checksum=right)
    assert [file.name for file in tmp_path.iterdir()] == ["file.bin"]
    assert path.read_bytes() == b"older"


def test_two_processes_fetch_a_file_once(server, tmp_path):
    path = tmp_path / "file.bin"
    fetch = "import sys; from feedline.formats.download import download; download(sys.argv[1], sys.argv[2])"
    command = [sys.executable, "-c", fetch, server.url, str(path)]
    processes = [subprocess.Popen(command) for _ in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    assert path.read_bytes() == server.content
    assert len(server.requests) == 1
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("url", ["ftp://host/file", "file:///etc/hostname", "host/file"])
def test_other_schemes_are_refused(tmp_path, url):
    with pytest.raises(ValueError, match=rf"url must begin with http:// or https://, got '{url}'"):
        download(url, tmp_path / "file")


def test_at_least_one_try_is_needed(tmp_path):
    with pytest.raises(ValueError, match="tries must be at least 1, got 0"):
        download("http://127.0.0.1/file", tmp_path / "file", tries=0)


def test_a_disk_error_is_no_network_error(server, tmp_path):
    (tmp_path / "file.bin.part").mkdir()
    with pytest.raises(OSError, match=r"file\.bin\.part"):
        download(server.url, tmp_path / "file.bin", checksum=sha256(b""))


def test_a_checksum_has_a_known_algorithm_and_its_digits():
    with pytest.raises(ValueError, match="algorithm must be 'md5' or 'sha256', got 'crc32'"):
        Checksum("crc32", "00000000")
    with pytest.raises(ValueError, match="digest must be 32 hexadecimal digits, got 'xyz'"):
        Checksum("md5", "xyz")
