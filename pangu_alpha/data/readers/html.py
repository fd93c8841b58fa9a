"""HTML pages: the text that a reader sees, without tags, scripts and styles (resiliparse)."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pangu_alpha.data.readers.encoding import guess_encoding, is_nearly_utf8
from pangu_alpha.data.readers.streams import open_bytes, readable
from pangu_alpha.errors import PanguError

_DECLARED = re.compile(rb"""<meta[^>]{0,200}?charset\s*=\s*["']?\s*([A-Za-z0-9_:-]{2,20})""", re.IGNORECASE)
_BYTE_ORDER_MARKS = (codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_ANYTHING = ("", "iso-8859-1", "latin-1", "latin1", "windows-1252", "cp1252", "us-ascii", "ascii", "none", "utf8mb4")
"""Declarations that say nothing."""
_HEAD = 4096
_SAMPLE = 1 << 16
LARGEST_PAGE = 64 << 20
"""Bytes; a parser's tree takes many times as much."""


def split(path: Path, settings: Any) -> Iterator[bytes]:  # noqa: ARG001 (what splitters are called with)
    """The one page of a file.

    Raises:
        PanguError: the file cannot be read.
    """
    with readable(path), open_bytes(path) as file:
        yield file.read(LARGEST_PAGE + 1)


def page_of(content: bytes) -> tuple[str, str, str]:
    """Title, address (empty) and text of a page, in the encoding that it declares, or else seems to be in.

    Raises:
        PanguError: it is too large, or resiliparse is missing.
    """
    return extract(content, "")


def extract(content: bytes, charset: str, url: str = "") -> tuple[str, str, str]:
    """Title, address and text of a page.

    Every block keeps a line of its own, list entries begin with •; menus are left in, since the rule `navigation`
    judges them by their lines and says what it took (resiliparse's own choice of the main content loses boxes of text).

    Args:
        content: bytes of the page.
        charset: of the HTTP header, empty if it names none.
        url: of the page.
    """
    try:
        from resiliparse.extract.html2text import extract_plain_text
        from resiliparse.parse.html import HTMLTree
    except ImportError as error:
        raise PanguError("web pages need the package resiliparse: pip install resiliparse") from error
    if len(content) > LARGEST_PAGE:
        raise PanguError(f"the page is too large; at most {LARGEST_PAGE >> 20} MiB are read")
    tree = HTMLTree.parse(decode(content, charset))
    text = extract_plain_text(tree, main_content=False, alt_texts=False, links=False, preserve_formatting=True)
    return (tree.title or "").strip(), url, text


def decode(content: bytes, charset: str) -> str:
    """A page's bytes as text: in the encoding that its header or itself declares, if it can be read so.

    Many Chinese pages declare another encoding than they are in.  Latin-1, which can read anything, is what servers
    declare for pages they know nothing about, so it is believed only where nothing else fits.

    Args:
        content: bytes of the page.
        charset: of the HTTP header, empty if it names none.
    """
    if content.startswith(_BYTE_ORDER_MARKS):
        return content.decode("utf-8-sig" if content[:1] == b"\xef" else "utf-16", "replace")
    declared = _DECLARED.search(content[:_HEAD])
    names = [charset, declared[1].decode() if declared else ""]
    for name in [*(name for name in names if name.lower() not in _ANYTHING), "utf-8"]:
        # What says GB 2312 or GBK often uses more, which GB 18030 holds; and Python's Big5 lacks what pages use.
        codec = {"gb2312": "gb18030", "gbk": "gb18030", "x-gbk": "gb18030", "big5": "big5hkscs"}.get(name.lower(), name)
        try:
            return content.decode(codec)
        except (LookupError, UnicodeDecodeError):
            continue
    if is_nearly_utf8(content[:_SAMPLE]):
        return content.decode("utf-8", "replace")
    from resiliparse.parse.encoding import detect_encoding

    guess = guess_encoding(content[:_SAMPLE]) or detect_encoding(content) or next(filter(None, names), "utf-8")
    try:
        return content.decode({"gbk": "gb18030"}.get(guess, guess), "replace")
    except LookupError:
        return content.decode("utf-8", "replace")
