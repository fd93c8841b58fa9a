"""Web archives: WARC files of pages, WET files of text (ISO 28500; FastWARC reads them)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pangu_alpha.data.readers.html import LARGEST_PAGE, decode, extract
from pangu_alpha.data.readers.payload import unpack
from pangu_alpha.data.readers.streams import open_bytes, readable
from pangu_alpha.errors import PanguError

_CHARSET = re.compile(r"charset\s*=\s*[\"']?([A-Za-z0-9_:-]+)", re.IGNORECASE)
_MARKUP = re.compile(rb"<(!doctype|html|head|body)\b", re.IGNORECASE)


class Page(NamedTuple):
    """A record of an archive."""

    url: str
    charset: str
    """Of the HTTP header; empty if it names none."""
    is_text: bool
    """Whether the content is text already (WET)."""
    content: bytes
    transfer: str = ""
    """How it was sent (Transfer-Encoding)."""
    encoding: str = ""
    """How it is compressed (Content-Encoding)."""


def split(path: Path, settings: Any) -> Iterator[Page]:  # noqa: ARG001 (what splitters are called with)
    """Pages of an archive; records of other types, and what is no HTML, are passed over.

    Raises:
        PanguError: the file cannot be read, is damaged, or FastWARC is missing.
    """
    try:
        from fastwarc.warc import ArchiveIterator, WarcRecordType
    except ImportError as error:
        raise PanguError("web archives need the package fastwarc: pip install fastwarc") from error
    kinds = WarcRecordType.response | WarcRecordType.conversion
    found = False
    with readable(path), open_bytes(path) as file:
        # Bodies are unpacked later: FastWARC's own unpacking ends the archive at a body that is damaged or cut.
        try:
            for record in ArchiveIterator(file, record_types=kinds, parse_http=True):
                found = True
                page = _page(record, record.record_type == WarcRecordType.conversion)
                if page is not None:
                    yield page
            if path.suffix.lower() in (".warc", ".wet"):
                _check_end(path)
        except (ValueError, RuntimeError) as error:
            raise PanguError(f"{path} is damaged ({error}); fetch it again") from error
        except OSError as error:
            if found or error.errno is not None:
                raise
            raise PanguError(f"{path} is no web archive ({error})") from error
    if not found and path.stat().st_size > 0:
        raise PanguError(f"{path} holds no record of a web archive; is it a WARC file?")


def _check_end(path: Path) -> None:
    """Every record ends with two line ends; FastWARC passes over one that is cut short without a word."""
    with path.open("rb") as file:
        file.seek(-min(4, path.stat().st_size), 2)
        if not file.read().replace(b"\r", b"").endswith(b"\n\n"):
            raise PanguError(f"{path} is damaged or cut short (its last record does not end); fetch it again")


def _page(record: Any, is_text: bool) -> Page | None:
    """A record as a page; None if it is neither HTML nor text."""
    header = record.http_content_type or record.headers.get("Content-Type") or ""
    declared = _CHARSET.search(header)
    url, charset = record.headers.get("WARC-Target-URI") or "", declared[1] if declared else ""
    content = record.reader.read(LARGEST_PAGE + 1)
    kind = (record.http_content_type or "").lower().partition(";")[0].strip()
    headers = record.http_headers if record.is_http and not is_text else None
    sent = [(headers.get(name) or "") if headers else "" for name in ("Transfer-Encoding", "Content-Encoding")]
    if not is_text and kind == "text/plain":
        is_text = True
    elif not is_text and "html" not in kind and (kind or not _MARKUP.search(content[:1024])):
        return None
    return Page(url, charset, is_text, content, *sent)


def page_of(page: Page) -> tuple[str, str, str]:
    """Title, address and text of a page.

    Raises:
        PanguError: it is damaged or too large.
    """
    if len(page.content) > LARGEST_PAGE:
        raise PanguError(f"the page is too large; at most {LARGEST_PAGE >> 20} MiB are read")
    content = unpack(page.content, page.transfer, page.encoding, LARGEST_PAGE)
    if page.is_text:
        return "", page.url, decode(content, page.charset)
    return extract(content, page.charset, page.url)
