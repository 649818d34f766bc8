"""One file over HTTP into "<file>.part": a broken download goes on where it broke, if the server can.

Beside it, "<file>.part.from" keeps the address and what the server calls this version of the file, so that
parts of two files are never put together.
"""

from __future__ import annotations

import http.client
import re
import urllib.error
import urllib.request
from pathlib import Path

from ._disk import writing
from ._progress import Progress
from ._verify import CHUNK

TIMEOUT = 60.0


class FetchError(Exception):
    """A file cannot be fetched from an address; the message says why."""


def fetch(url: str, part: Path, label: str) -> None:
    """Download `url` into `part`; goes on as long as every try brings something.

    Raises:
        FetchError: the address cannot be reached, says no, or answers with a web page.
        DatasetError: the disk cannot be written.
    """
    if not url.startswith(("http://", "https://")):
        raise FetchError(f"{url} is no address of the web")
    while True:
        before = _size(part)
        try:
            return _continue(url, part, label)
        except FetchError:
            if _size(part) <= before:
                raise


def forget(part: Path) -> None:
    """Delete a part and what is known about it."""
    part.unlink(missing_ok=True)
    _origin(part).unlink(missing_ok=True)


def _continue(url: str, part: Path, label: str) -> None:
    """Fetch what is missing of a part, or all of it."""
    known = _origin(part).read_text().split("\n") if _origin(part).is_file() else [""]
    if known[0] != url:
        forget(part)
    start = _size(part)
    headers = {"User-Agent": "msam"}
    if start:
        headers |= {"Range": f"bytes={start}-"} | ({"If-Range": known[1]} if known[1] else {})
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT) as answer:
            _receive(answer, url, part, start, label)
    except urllib.error.HTTPError as error:
        if error.code == 416 and start:  # the range begins at the end of the file, or after it
            if error.headers.get("Content-Range") == f"bytes */{start}":
                return
            forget(part)
            return _continue(url, part, label)
        raise FetchError(f"{error.code} {error.reason}") from error
    except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
        reason = getattr(error, "reason", error)
        words = getattr(reason, "strerror", None) or str(reason) or type(reason).__name__
        raise FetchError(words) from error


def _receive(answer: http.client.HTTPResponse, url: str, part: Path, start: int, label: str) -> None:
    """Write an answer to the part."""
    if answer.headers.get_content_type() == "text/html":
        raise FetchError("the address answers with a web page, not with the file")
    if answer.status != 206:
        start = 0
    elif not re.match(rf"bytes {start}-", answer.headers.get("Content-Range", "")):
        forget(part)
        raise FetchError("the server sends another range than the one asked for")
    length = answer.headers.get("Content-Length")
    total = start + int(length) if length else None
    with writing(part.parent, "MSAM_DATA"):
        part.parent.mkdir(parents=True, exist_ok=True)
        if not start:
            _origin(part).write_text(f"{url}\n{_version(answer)}")
        file = part.open("ab" if start else "wb")
    progress = Progress(label, start, total)
    try:
        with file:
            while block := answer.read(CHUNK):
                with writing(part.parent, "MSAM_DATA"):
                    file.write(block)
                    file.flush()
                progress.add(len(block))
    finally:
        progress.close()
    if total is not None and progress.done < total:
        raise FetchError(f"the connection broke after {progress.done:,} of {total:,} bytes")


def _version(answer: http.client.HTTPResponse) -> str:
    """What names this version of the file: a strong ETag, or the date, or nothing."""
    tag = answer.headers.get("ETag", "")
    return tag if tag.startswith('"') else answer.headers.get("Last-Modified", "")


def _origin(part: Path) -> Path:
    return part.with_name(part.name + ".from")


def _size(part: Path) -> int:
    return part.stat().st_size if part.is_file() else 0
