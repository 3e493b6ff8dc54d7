from __future__ import annotations

import gzip
import io
import random
import tarfile
import tracemalloc

import pytest

from feedline.errors import CorruptSample, FeedlineError
from feedline.formats.archive import unpack_members

BUDGET = 1 << 20


def entry(name, content=b"", **fields):
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content


def pack(path, *entries):
    with tarfile.open(path, "w:gz") as tar:
        for info, content in entries:
            tar.addfile(info, io.BytesIO(content))
    return path


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_the_named_files_alone_go_where_they_are_told(tmp_path):
    content = random.Random(0).randbytes(600_000)
    archive = pack(
        tmp_path / "a.tar.gz",
        entry("data", type=tarfile.DIRTYPE, mode=0o755),
        entry("data/one.bin", content),
        entry("data/two.bin", b"2"),
        entry("data/readme", b"not asked for"),
    )
    out = tmp_path / "out"
    members = {"data/one.bin": out / "deep" / "1", "data/two.bin": out / "2"}
    unpack_members(archive, members, max_nbytes=BUDGET)
    assert files(out) == ["2", "deep/1"]
    assert (out / "deep" / "1").read_bytes() == content
    assert (out / "2").read_bytes() == b"2"


@pytest.mark.parametrize("name", ["/etc/passwd", "../up", "a/../../up", "..\\up", "C:\\up", "C:up", "\\up"])
def test_an_archive_with_a_path_that_leads_outside_is_refused(tmp_path, name):
    archive = pack(tmp_path / "a.tar.gz", entry("data/one", b"1"), entry(name, b"evil"))
    with pytest.raises(FeedlineError, match=r"a\.tar\.gz: refused, for its member '.*' leads outside"):
        unpack_members(archive, {"data/one": tmp_path / "1", name: tmp_path / "2"}, max_nbytes=BUDGET)
    assert files(tmp_path) == ["a.tar.gz"]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_an_archive_with_a_link_or_a_device_is_refused(tmp_path, kind):
    archive = pack(tmp_path / "a.tar.gz", entry("one", b"1"), entry("two", type=kind, linkname="one"))
    message = r"a\.tar\.gz: refused, for its member 'two' is a link or a device"
    with pytest.raises(FeedlineError, match=message):
        unpack_members(archive, {"one": tmp_path / "1", "two": tmp_path / "2"}, max_nbytes=BUDGET)
    assert files(tmp_path) == ["a.tar.gz"]


def test_a_folder_is_no_file(tmp_path):
    archive = pack(tmp_path / "a.tar.gz", entry("data", type=tarfile.DIRTYPE))
    with pytest.raises(FeedlineError, match="data is no regular file"):
        unpack_members(archive, {"data": tmp_path / "1"}, max_nbytes=BUDGET)


def test_a_sparse_file_is_refused(tmp_path):
    """A kilobyte of archive may stand for terabytes of zeros."""
    headers = {"GNU.sparse.major": "0", "GNU.sparse.size": str(1 << 42), "GNU.sparse.map": "0,1"}
    archive = pack(tmp_path / "a.tar.gz", entry("data", b"1", pax_headers=headers))
    with pytest.raises(FeedlineError, match="data is no regular file"):
        unpack_members(archive, {"data": tmp_path / "1"}, max_nbytes=BUDGET)
    assert files(tmp_path) == ["a.tar.gz"]


def test_a_missing_member_is_named_and_nothing_is_written(tmp_path):
    archive = pack(tmp_path / "a.tar.gz", entry("one", b"1"))
    (tmp_path / "1").write_bytes(b"older")
    with pytest.raises(FeedlineError, match=r"a\.tar\.gz: has no member three, two"):
        unpack_members(archive, {n: tmp_path / n for n in ("one", "two", "three")}, max_nbytes=BUDGET)
    assert files(tmp_path) == ["1", "a.tar.gz"]


@pytest.mark.parametrize("name", ["asked for", "not asked for"])
def test_an_archive_that_expands_beyond_the_budget_is_refused(tmp_path, name):
    archive = pack(tmp_path / "a.tar.gz", entry(name, bytes(8 << 20)))
    with pytest.raises(FeedlineError, match=r"a\.tar\.gz: expands beyond max_nbytes=1048576"):
        unpack_members(archive, {"asked for": tmp_path / "1"}, max_nbytes=BUDGET)
    assert files(tmp_path) == ["a.tar.gz"]


def test_a_bomb_in_a_header_is_refused_without_holding_it(tmp_path):
    """A long name's length is what the header says: here 64 MiB of zeros."""
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 64 << 20
    archive = tmp_path / "a.tar.gz"
    archive.write_bytes(gzip.compress(header.tobuf() + bytes(64 << 20)))
    tracemalloc.start()
    try:
        with pytest.raises(FeedlineError, match="expands beyond max_nbytes"):
            unpack_members(archive, {"one": tmp_path / "1"}, max_nbytes=BUDGET)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 << 20


def test_what_is_no_archive_is_corrupt(tmp_path):
    for content in (b"", b"neither gzip nor tar", gzip.compress(b"no tar " * 200)):
        (tmp_path / "a.tar.gz").write_bytes(content)
        with pytest.raises(CorruptSample, match=r"a\.tar\.gz: expected a sound tar\.gz archive"):
            unpack_members(tmp_path / "a.tar.gz", {"one": tmp_path / "1"}, max_nbytes=BUDGET)


def test_damaged_archives_give_the_members_or_a_feedline_error(tmp_path, mutated):
    plain = pack(tmp_path / "a.tar.gz", entry("one", b"1" * 700), entry("two", b"2")).read_bytes()
    tar = gzip.decompress(plain)
    target, refused = tmp_path / "1", 0
    for data in mutated([plain, tar], 1000, header=10):
        (tmp_path / "b.tar.gz").write_bytes(data if data[:2] == b"\x1f\x8b" else gzip.compress(data, 1))
        try:
            unpack_members(tmp_path / "b.tar.gz", {"one": target}, max_nbytes=BUDGET)
        except FeedlineError:
            refused += 1
            assert not target.exists()
        else:
            target.unlink()
    assert refused > 200
