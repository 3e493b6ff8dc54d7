"""Files fetched over HTTP: resumed, verified, and in place only when complete.

Guarantee: ``download(url, path)`` either returns with the whole file at ``path`` or raises and leaves
``path`` as it was. What has arrived waits in ``<path>.part`` for the next call, which goes on from there when
a checksum will tell whether the parts fit. Two processes that fetch the same file take turns by the lock file
``<path>.lock``, and the second finds the file of the first.
"""

from __future__ import annotations

import hashlib
import http
import http.client
import re
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import urlsplit

from feedline.errors import FeedlineError
from feedline.formats.lock import exclusive

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator
    from email.message import Message

__all__ = ["Checksum", "download"]

_CHUNK_NBYTES = 1 << 18
_TRANSIENT = {408, 425, 429, 500, 502, 503, 504}  # status codes that another try may cure
_NETWORK_FAILURES = (OSError, http.client.HTTPException)  # URLError and timeouts are OSErrors


@dataclass(frozen=True, slots=True)
class Checksum:
    """What a file's digest must be.

    Args:
        algorithm: ``"md5"`` (against damage only, not against forgery) or ``"sha256"``.
        digest: hexadecimal digits, of either case.

    Raises:
        ValueError: the algorithm is another one, or the digest has not its form.

    Example:
        >>> Checksum("md5", "D41D8CD98F00B204E9800998ECF8427E")
        Checksum(algorithm='md5', digest='d41d8cd98f00b204e9800998ecf8427e')
    """

    algorithm: str
    digest: str

    def __post_init__(self) -> None:
        ndigits = {"md5": 32, "sha256": 64}.get(self.algorithm)
        if ndigits is None:
            raise ValueError(f"algorithm must be 'md5' or 'sha256', got {self.algorithm!r}")
        if not re.fullmatch(f"[0-9a-fA-F]{{{ndigits}}}", self.digest):
            raise ValueError(f"digest must be {ndigits} hexadecimal digits, got {self.digest!r}")
        object.__setattr__(self, "digest", self.digest.lower())

    def of(self, path: Path) -> str:
        """The digest that the file at ``path`` has."""
        with path.open("rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.new(self.algorithm, usedforsecurity=False)).hexdigest()


def download(
    url: str,
    path: str | os.PathLike[str],
    *,
    checksum: Checksum | None = None,
    tries: int = 5,
    timeout_s: float = 30.0,
    backoff_s: float = 0.5,
) -> Path:
    """Fetch ``url`` to ``path``, whose folder is made if need be.

    A file that is there already is kept if it has the checksum, or if none is given; otherwise it is
    replaced. A broken transfer goes on where it stopped (HTTP ``Range``, with ``If-Range`` where the server
    gave an ETag or a date) or starts anew where the server cannot do that.

    Args:
        url: an http or https address; redirects must stay within these.
        path: where the complete file goes.
        checksum: what it must have.
        tries: how many requests at most.
        timeout_s: give up a request when nothing arrives for so long.
        backoff_s: wait so long before the second request, doubled before each further one.

    Returns:
        ``path``.

    Raises:
        ValueError: another scheme, or ``tries`` below 1.
        FeedlineError: the server refuses, all tries failed, or the checksum differs (what had arrived is then
            removed).
    """
    _check_scheme(url)
    if tries < 1:
        raise ValueError(f"tries must be at least 1, got {tries}")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with exclusive(path.with_name(path.name + ".lock")):
        if path.is_file() and (checksum is None or checksum.of(path) == checksum.digest):
            return path
        transfer = _Transfer(url, path.with_name(path.name + ".part"), timeout_s)
        if checksum is None:  # nothing would tell whether an earlier part belongs to the file of today
            transfer.discard()
        _complete(transfer, tries, backoff_s)
        _verify(transfer, path, checksum)
        transfer.part.replace(path)
    return path


def _complete(transfer: _Transfer, tries: int, backoff_s: float) -> None:
    for attempt in range(tries):
        try:
            return transfer.proceed()
        except _InterruptedError as error:
            last = error
        if attempt + 1 < tries:
            time.sleep(backoff_s * 2**attempt)
    raise FeedlineError(f"{transfer.url}: not complete after {tries} tries; the last: {last}") from last


def _verify(transfer: _Transfer, path: Path, checksum: Checksum | None) -> None:
    if checksum is None:
        return
    got = checksum.of(transfer.part)
    if got != checksum.digest:
        transfer.discard()
        raise FeedlineError(
            f"{path}: expected {checksum.algorithm} {checksum.digest}, got {got} from {transfer.url}; "
            "what had arrived is removed, so that another call starts anew"
        )


class _InterruptedError(Exception):
    """The file is not complete, for a reason that another request may cure."""


class _Transfer:
    """One file on its way: what is known of it, and its bytes so far in ``part``."""

    def __init__(self, url: str, part: Path, timeout_s: float) -> None:
        self.url = url
        self.part = part
        self._timeout_s = timeout_s
        self._validator: str | None = None
        self._opener = urllib.request.build_opener(_HttpRedirects)

    def discard(self) -> None:
        self.part.unlink(missing_ok=True)

    def proceed(self) -> None:
        """Make one request and store what it brings.

        Raises:
            _InterruptedError: the file is not complete; another request may help.
            FeedlineError: the server refuses.
        """
        have = self.part.stat().st_size if self.part.is_file() else 0
        try:
            response = self._opener.open(self._request(have), timeout=self._timeout_s)
        except urllib.error.HTTPError as error:
            with error:
                self._refused(error, have)
        except _NETWORK_FAILURES as error:
            raise _InterruptedError(repr(error)) from error
        else:
            with response:
                self._receive(response, have)

    def _request(self, have: int) -> urllib.request.Request:
        headers = {"User-Agent": "feedline", "Accept-Encoding": "identity"}
        if have:
            headers["Range"] = f"bytes={have}-"
            if self._validator is not None:
                headers["If-Range"] = self._validator
        return urllib.request.Request(self.url, headers=headers)  # noqa: S310 -- _check_scheme has seen it

    def _refused(self, error: urllib.error.HTTPError, have: int) -> None:
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and have:
            if error.headers.get("Content-Range") == f"bytes */{have}":
                return  # an earlier call had it all
            self.discard()
            raise _InterruptedError(f"the {have} bytes so far are no beginning of what the server has now")
        if error.code in _TRANSIENT:
            raise _InterruptedError(f"HTTP {error.code} {error.reason}") from error
        raise FeedlineError(f"{self.url}: HTTP {error.code} {error.reason}") from error

    def _receive(self, response: Any, have: int) -> None:
        total: int | None
        if response.status == http.HTTPStatus.PARTIAL_CONTENT:
            start, total = _content_range(response.headers)
            if start != have:
                self.discard()
                raise _InterruptedError(f"the server sent bytes from {start}, asked from {have}")
        else:  # the server ignores ranges, or the file has changed: from the beginning
            length = response.headers.get("Content-Length", "")
            have, total = 0, int(length) if length.isdecimal() else None
        self._validator = _validator(response.headers)
        with self.part.open("ab" if have else "wb") as file:
            for chunk in _chunks(response):
                file.write(chunk)
                have += len(chunk)
        if total is not None and have != total:
            if have > total:
                self.discard()
            raise _InterruptedError(f"{have} of {total} bytes arrived")


def _chunks(response: IO[bytes]) -> Iterator[bytes]:
    while True:
        try:
            chunk = response.read(_CHUNK_NBYTES)
        except _NETWORK_FAILURES as error:
            raise _InterruptedError(repr(error)) from error
        if not chunk:
            return
        yield chunk


def _content_range(headers: Message) -> tuple[int | None, int | None]:
    """First byte and total size of a partial answer (RFC 9110, section 14.4); None where it does not say."""
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", headers.get("Content-Range", "").strip())
    if match is None:
        return None, None
    return int(match[1]), None if match[2] == "*" else int(match[2])


def _validator(headers: Message) -> str | None:
    """What ``If-Range`` may name (RFC 9110, section 13.1.5): a strong entity tag, or else the date."""
    etag = headers.get("ETag")
    return etag if etag is not None and not etag.startswith("W/") else headers.get("Last-Modified")


def _check_scheme(url: str) -> None:
    scheme = urlsplit(url).scheme.lower()
    if scheme not in {"http", "https"}:
        raise ValueError(f"url must begin with http:// or https://, got {url!r}")


class _HttpRedirects(urllib.request.HTTPRedirectHandler):
    """Redirects, as long as they stay within http and https (urllib's own would follow to ftp)."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> urllib.request.Request | None:
        try:
            _check_scheme(newurl)
        except ValueError as error:
            raise FeedlineError(f"{req.full_url}: redirected elsewhere; {error}") from error
        return super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]
