"""Damaged inputs, and a server that fails as it is told."""

from __future__ import annotations

import random
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

EXTREMES = [bytes([byte]) * 4 for byte in (0x00, 0x01, 0x7F, 0x80, 0xFF)] + [b"\0\0\0\1", b"\x1f\x8b\x08\0"]


def _damaged(data, draw, seeds, header):
    """``data`` with one fault, of eight kinds."""
    place, nbytes = draw.randrange(len(data) + 1), draw.choice([1, 2, 4, 16, 64])
    before, after = data[:place], data[place:]
    start = draw.randrange(header)
    donor = draw.choice(seeds)
    return draw.choice(
        [  # a bit flipped; a byte overwritten; cut off, cut out, inserted, doubled; an extreme number; another's tail
            before + bytes(byte ^ 1 << draw.randrange(8) for byte in after[:1]) + after[1:],
            before + draw.randbytes(1) + after[1:],
            before,
            before + after[nbytes:],
            before + draw.randbytes(nbytes) + after,
            before + before[-nbytes:] + after,
            data[:start] + draw.choice(EXTREMES) + data[start + 4 :],
            before + donor[draw.randrange(len(donor)) :],
        ]
    )


def _mutated(seeds, count, header):
    """``count`` copies of the byte strings in ``seeds`` with one to three faults each, the same at every run.

    ``header`` is how many of the first bytes hold numbers.
    """
    draw = random.Random(20_000)
    for _ in range(count):
        data = draw.choice(seeds)
        for _ in range(draw.randint(1, 3)):
            data = _damaged(data, draw, seeds, header)
        yield data


@pytest.fixture
def mutated():
    return _mutated


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.requests.append(dict(self.headers))
        step = self.server.script.pop(0) if self.server.script else ("serve",)
        getattr(self, f"do_{step[0]}")(*step[1:])

    def do_serve(self, cut=None):
        """The file as a good server gives it; with ``cut``, the connection ends after so many bytes."""
        content, asked = self.server.content, self.headers.get("Range")
        condition = self.headers.get("If-Range", self.server.etag)
        if asked is None or condition not in {self.server.etag, self.server.date}:
            return self.answer(200, {}, content, cut)
        start = int(asked.removeprefix("bytes=").removesuffix("-"))
        if start >= len(content):
            return self.answer(416, {"Content-Range": f"bytes */{len(content)}"}, b"")
        span = f"bytes {start}-{len(content) - 1}/{len(content)}"
        return self.answer(206, {"Content-Range": span}, content[start:], cut)

    def do_change(self, content, etag, date):
        """Another file stands at the address from now on."""
        self.server.content, self.server.etag, self.server.date = content, etag, date
        self.do_serve()

    def do_ignore_range(self):
        self.answer(200, {}, self.server.content)

    def do_status(self, code, headers=()):
        self.answer(code, dict(headers), b"no such luck")

    def do_partial(self, content_range, body):
        self.answer(206, {"Content-Range": content_range}, body)

    def do_unannounced(self):
        """Without a length: the end of the connection is the end of the file."""
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.server.content)

    def do_stall(self):
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.server.closing.wait()

    def do_hang_up(self):
        self.close_connection = True

    def answer(self, code, headers, body, cut=None):
        self.send_response(code)
        sent = {"Content-Length": str(len(body)), "ETag": self.server.etag, "Last-Modified": self.server.date}
        for name, value in (sent | headers).items():
            if value is not None:
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body[:cut])

    def log_message(self, *_):
        """Keep quiet."""


class FileServer(ThreadingHTTPServer):
    """Serves ``content`` at every path, by ``script``: one step a request, then as a good server does."""

    daemon_threads = False

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.content = random.Random(7).randbytes(700_000)
        self.etag, self.date = '"one"', "Mon, 01 Jan 2024 00:00:00 GMT"
        self.script, self.requests, self.closing = [], [], threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}/file.bin"

    def handle_error(self, *_):
        """A client that gives up is no error."""


@pytest.fixture
def server():
    with FileServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.closing.set()
            server.shutdown()
            thread.join()
