"""Chosen files out of a tar archive, without trusting the archive.

Guarantee: only the regular files asked for are written, and only to the places given for them, all or none;
no more than ``max_nbytes`` is decompressed; an archive that holds a link or a path that leads outside is
refused.
"""

from __future__ import annotations

import gzip
import shutil
import tarfile
import zlib
from pathlib import Path, PureWindowsPath
from typing import IO, TYPE_CHECKING, cast

from feedline.errors import CorruptSample, FeedlineError

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

__all__ = ["unpack_members"]

_CHUNK_NBYTES = 1 << 18


def unpack_members(
    archive: str | os.PathLike[str], members: Mapping[str, str | os.PathLike[str]], *, max_nbytes: int
) -> None:
    """Copy the named files out of a ``.tar.gz``.

    Args:
        archive: the file.
        members: for each name in the archive the path to write, whose folder is made if need be; a file that
            is there is replaced.
        max_nbytes: the most that the archive may decompress to, headers included.

    Raises:
        CorruptSample: the file is no sound tar.gz.
        FeedlineError: it expands beyond ``max_nbytes``, a name is missing or no regular file, or there is a
            link, a device, an absolute path or a ``..`` anywhere in it.
    """
    targets = {name: Path(target) for name, target in members.items()}
    parts = {target: target.with_name(target.name + ".part") for target in targets.values()}
    try:
        try:
            with gzip.open(archive, "rb") as stream:
                _copy_members(cast("IO[bytes]", _Budget(stream, archive, max_nbytes)), archive, targets, parts)
        except (tarfile.TarError, EOFError, gzip.BadGzipFile, zlib.error, ValueError, OverflowError) as error:
            raise CorruptSample(f"expected a sound tar.gz archive: {error}", path=archive) from error
        for target, part in parts.items():
            part.replace(target)
    finally:
        for part in parts.values():
            part.unlink(missing_ok=True)


def _copy_members(
    stream: IO[bytes],
    archive: str | os.PathLike[str],
    targets: Mapping[str, Path],
    parts: Mapping[Path, Path],
) -> None:
    missing = set(targets)
    with tarfile.open(fileobj=stream, mode="r|") as tar:
        for member in tar:
            _check_harmless(member, archive)
            if member.name not in targets:
                continue
            content = tar.extractfile(member)
            if content is None or member.issparse():  # a sparse file's size is not bounded by what the archive holds
                raise FeedlineError(f"{archive}: {member.name} is no regular file")
            part = parts[targets[member.name]]
            part.parent.mkdir(parents=True, exist_ok=True)
            with part.open("wb") as file:
                shutil.copyfileobj(content, file, _CHUNK_NBYTES)
            missing.discard(member.name)
    if missing:
        raise FeedlineError(f"{archive}: has no member {', '.join(sorted(missing))}")


def _check_harmless(member: tarfile.TarInfo, archive: str | os.PathLike[str]) -> None:
    path = PureWindowsPath(member.name)  # knows both kinds of slash, and drives
    if path.anchor or ".." in path.parts:
        raise FeedlineError(f"{archive}: refused, for its member {member.name!r} leads outside")
    if not (member.isreg() or member.isdir()):
        raise FeedlineError(f"{archive}: refused, for its member {member.name!r} is a link or a device")


class _Budget:
    """A stream that ends in a FeedlineError once it has given more than its budget."""

    def __init__(self, stream: gzip.GzipFile, archive: str | os.PathLike[str], max_nbytes: int) -> None:
        self._stream = stream
        self._archive = archive
        self._left = self._max_nbytes = max_nbytes

    def read(self, nbytes: int) -> bytes:
        data = self._stream.read(nbytes)  # tarfile asks for a few blocks at a time
        self._left -= len(data)
        if self._left < 0:
            raise FeedlineError(f"{self._archive}: expands beyond max_nbytes={self._max_nbytes}")
        return data
