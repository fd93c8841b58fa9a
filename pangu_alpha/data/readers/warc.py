"""Web archives: WARC files of pages, WET files of text (ISO 28500; FastWARC reads them)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pangu_alpha.data.readers.html import extract
from pangu_alpha.data.readers.streams import open_bytes, readable
from pangu_alpha.errors import PanguError

_CHARSET = re.compile(r"charset\s*=\s*[\"']?([A-Za-z0-9_:-]+)", re.IGNORECASE)


class Page(NamedTuple):
    """A record of an archive."""

    url: str
    charset: str
    """Of the HTTP header; empty if it names none."""
    is_text: bool
    """Whether the content is text already (WET)."""
    content: bytes


def split(path: Path, settings: Any) -> Iterator[Page]:  # noqa: ARG001 (what splitters are called with)
    """Pages of an archive; records of other types, and what is no HTML, are passed over.

    Raises:
        PanguError: the file cannot be read, is damaged, or FastWARC is missing.
    """
    try:
        from fastwarc.warc import ArchiveIterator, WarcRecordType
    except ImportError as error:
        raise PanguError("web archives need the package fastwarc: pip install 'pangu-alpha[data]'") from error
    kinds = WarcRecordType.response | WarcRecordType.conversion
    found = False
    with readable(path), open_bytes(path) as file:
        try:
            for record in ArchiveIterator(file, record_types=kinds, parse_http=True):
                found = True
                header = record.http_content_type or record.headers.get("Content-Type") or ""
                is_text = record.record_type == WarcRecordType.conversion
                if not is_text and "html" not in header.lower():
                    continue
                declared = _CHARSET.search(header)
                yield Page(
                    record.headers.get("WARC-Target-URI") or "",
                    declared[1] if declared else "",
                    is_text,
                    record.reader.read(),
                )
        except (ValueError, RuntimeError) as error:
            raise PanguError(f"{path} is damaged: {error}") from error
    if not found and path.stat().st_size > 0:
        raise PanguError(f"{path} holds no record of a web archive; is it a WARC file?")


def page_of(page: Page) -> tuple[str, str, str]:
    """Title, address and text of a page.

    Raises:
        PanguError: it is too large.
    """
    if page.is_text:
        return "", page.url, page.content.decode("utf-8", "replace")
    return extract(page.content, page.charset, page.url)
