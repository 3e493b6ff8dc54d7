"""Open things: files and memory maps are opened again in the worker, the rest is refused by name."""

import io
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from feedline import TensorDataset
from feedline.engine.processes.shipping import ship, unpack
from feedline.errors import CannotShip, FeedlineError


def _carried(value):
    shipment = ship(value)
    try:
        assert shipment.matches(value)
        return unpack(shipment.payload, shipment.blocks, shipment.spans, ())
    finally:
        shipment.close()


TEXT = "eins\r\nzwölf\r\ndrei\n"


@pytest.fixture
def lines(tmp_path):
    path = tmp_path / "lines.txt"
    path.write_bytes(TEXT.encode())
    return path


@pytest.mark.parametrize(
    "options",
    [
        {}, {"newline": ""}, {"newline": "\n"}, {"newline": "\r\n"}, {"mode": "rb"}, {"mode": "rb", "buffering": 0},
        {"encoding": "latin-1"}, {"encoding": "utf-16", "errors": "replace", "newline": ""}, {"encoding": "utf-16"},
        {"encoding": "ascii", "errors": "backslashreplace"},
    ],
)  # fmt: skip
@pytest.mark.parametrize("read", [0, 3, 5, 11])
def test_a_file_is_opened_again_at_its_position(lines, options, read):
    lines.write_bytes(TEXT.encode("utf-16" if options.get("encoding") == "utf-16" else "utf-8"))
    with lines.open(**options) as file:
        file.read(read)
        with _carried(file) as again:
            assert (type(again), again.mode) == (type(file), file.mode)
            for name in ("encoding", "errors"):
                assert getattr(again, name, None) == getattr(file, name, None)
            assert again.tell() == file.tell()
            rest = file.read()
            assert again.read() == rest
        assert len(rest) >= 5


def test_a_file_that_was_read_further_no_longer_matches(lines):
    with lines.open() as file:
        shipment = ship({"file": file})
        file.readline()
        assert not shipment.matches({"file": file})


def test_the_content_of_a_file_does_not_travel(tmp_path):
    path = tmp_path / "large.txt"
    path.write_text("x" * 1_000_000)
    with path.open() as file:
        shipment = ship(file)
        assert (shipment.blocks, len(shipment.payload) < 1000) == ((), True)


def test_a_relative_path_is_sent_as_an_absolute_one(lines, monkeypatch):
    monkeypatch.chdir(lines.parent)
    with Path(lines.name).open("rb") as file:
        shipment = ship(file)
    monkeypatch.chdir("/")
    with unpack(shipment.payload, (), (), ()) as again:
        assert again.read(4) == b"eins"


def test_standard_streams_are_the_workers_own():
    assert _carried([sys.stdout, sys.stderr]) == [sys.stdout, sys.stderr]


def _refused(value, message):
    with pytest.raises(CannotShip, match=message):
        ship({"handle": value})


def test_files_that_cannot_be_opened_again_are_refused(lines):
    for mode in ("a", "ab", "r+", "rb+"):
        with lines.open(mode) as file:
            _refused(file, r"dataset\['handle'\] cannot be sent to a worker process: it is a file open for writing; ")
    _refused(file, "it is a closed file")
    with lines.open() as file:
        next(file)
        _refused(file, "lines.txt, whose position is not known")
    with lines.open("rb") as file:
        with os.fdopen(os.dup(file.fileno()), "rb") as other:
            _refused(other, "it is a file opened by its descriptor, without a path")
        lines.rename(lines.with_suffix(".old"))
        _refused(file, "the open file .*lines.txt, which is gone")
        lines.write_text("new")
        _refused(file, "the open file .*lines.txt, in whose place there is another one now")
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as pipe, os.fdopen(writer, "wb"):
        _refused(pipe, "it is an open pipe, socket or device")
    with io.TextIOWrapper(io.BytesIO(b"abc")) as wrapped:
        _refused(wrapped, "it is a _io.TextIOWrapper over a _io.BytesIO, which has no file")


# --- memory maps


@pytest.fixture
def array(tmp_path):
    path = tmp_path / "array.npy"
    np.save(path, np.arange(60_000.0).reshape(200, 300))
    return path


@pytest.mark.parametrize("mode", ["r", "r+", "c"])
def test_memory_maps_and_views_travel_as_references_to_their_file(array, mode):
    mapped = np.load(array, mmap_mode=mode)
    plain = np.asarray(mapped)
    value = [mapped, mapped[5:], plain.T, plain[::-1, ::7], mapped[3], plain[7, 3:5], plain.view("u1"), mapped.T]
    shipment = ship(value)
    assert shipment.matches(value)
    assert (shipment.blocks, len(shipment.payload) < 2000) == ((), True)
    again = unpack(shipment.payload, (), (), ())
    for got, sent in zip(again, value, strict=True):
        np.testing.assert_array_equal(got, sent)
        assert (type(got), got.dtype, got.flags.writeable) == (type(sent), sent.dtype, sent.flags.writeable)
    assert (again[0].filename, again[0].mode, again[1].filename) == (str(array), mode, str(array))
    assert np.may_share_memory(again[0], again[2])
    if mode == "r+":
        again[2][1, 0] = -1
        assert mapped[0, 1] == -1


def test_array_datasets_over_memory_maps_travel_as_references(array):
    dataset = TensorDataset(np.load(array, mmap_mode="r"), np.asarray(np.load(array, mmap_mode="r")))
    shipment = ship(dataset)
    assert (shipment.blocks, shipment.matches(dataset)) == ((), True)
    np.testing.assert_array_equal(unpack(shipment.payload, (), (), ())[7][1], dataset[7][1])


def test_a_map_that_made_its_file_does_not_empty_it(tmp_path):
    path = tmp_path / "made.bin"
    made = np.memmap(path, "i4", "w+", offset=4096 * 3 + 8, shape=(20, 1000), order="F")
    made[:] = np.arange(20_000).reshape(20, 1000)
    for got in _carried([made, made[3:, ::2]]):
        assert got.mode == "r+"
        assert got[-1, -1] in (19_999, 19_998)
        assert got.flags.writeable


def test_a_map_whose_file_is_gone_or_shorter_is_refused_by_its_name(array):
    mapped = np.load(array, mmap_mode="r")
    shipment = ship([mapped])
    os.truncate(array, 1000)
    _refused(mapped, "it maps 480128 bytes of the file .*array.npy, which has 1000 now")
    with pytest.raises(FeedlineError, match=r"array\.npy cannot be mapped again in the worker"):
        unpack(shipment.payload, (), (), ())
    array.unlink()
    assert not shipment.matches([mapped])
    _refused(mapped[1:, 5], "it maps the file .*array.npy, which is gone")
    with pytest.raises(FeedlineError, match=r"array\.npy cannot be mapped again in the worker"):
        unpack(shipment.payload, (), (), ())


def test_a_map_of_a_file_without_a_name_is_copied(tmp_path):
    import tempfile

    with tempfile.TemporaryFile() as file:
        file.write(bytes(100_000))
        file.flush()
        mapped = np.memmap(file, "u1", "r")
        np.testing.assert_array_equal(_carried(mapped), mapped)
        del mapped


def test_plain_ctypes_travel_by_value():
    import ctypes

    assert _carried(ctypes.c_int(3)).value == 3
