"""Small files of the formats that the collections read, and a server for them."""

from __future__ import annotations

import functools
import gzip
import struct
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from PIL import Image


def idx(array):
    """The bytes of an IDX file of unsigned bytes."""
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def _write_mnist(folder, part, count, *, compress=True, name="{}-idx{}-ubyte"):
    """Images and labels of a part, drawn by its name, written as the publisher does; both are returned."""
    draw = np.random.default_rng(list(part.encode()))
    images = draw.integers(0, 256, (count, 28, 28), dtype=np.uint8)
    labels = draw.integers(0, 10, count, dtype=np.uint8)
    folder.mkdir(parents=True, exist_ok=True)
    for kind, array in (("images", images), ("labels", labels)):
        path = folder / (name.format(f"{part}-{kind}", array.ndim) + (".gz" if compress else ""))
        path.write_bytes(gzip.compress(idx(array), mtime=0) if compress else idx(array))
    return images, labels


def _write_cifar(path, count, classes=(10,)):
    """Records drawn by the file's name; the images as (N, 32, 32, 3) and the label bytes are returned."""
    draw = np.random.default_rng(list(path.name.encode()))
    labels = np.stack([draw.integers(0, size, count, dtype=np.uint8) for size in classes], axis=1)
    planes = draw.integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(np.concatenate([labels, planes.reshape(count, -1)], axis=1).tobytes())
    return planes.transpose(0, 2, 3, 1), labels


def _write_image(path, level=0):
    """A 4 x 3 image, all of whose pixels are ``level``; its path is returned."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 3), (level, level, level)).save(path, format="png")
    return path


@pytest.fixture
def write_mnist():
    return _write_mnist


@pytest.fixture
def write_cifar():
    return _write_cifar


@pytest.fixture
def write_image():
    return _write_image


class _Handler(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        """Keep quiet."""

    def do_GET(self):
        self.server.paths.append(self.path)
        super().do_GET()


@pytest.fixture
def mirror(tmp_path):
    """A server of the folder ``mirror.folder``; ``mirror.paths`` are those asked for."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    handler = functools.partial(_Handler, directory=folder)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.folder, server.paths, server.daemon_threads = folder, [], False
        server.url = f"http://127.0.0.1:{server.server_port}/"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
