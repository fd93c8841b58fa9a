"""HTML pages: the text that a reader sees, without tags, scripts and styles (resiliparse)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pangu_alpha.data.readers.streams import open_bytes, readable
from pangu_alpha.errors import PanguError

_DECLARED = re.compile(rb"""<meta[^>]{0,200}?charset\s*=\s*["']?\s*([A-Za-z0-9_:-]{2,20})""", re.IGNORECASE)
_HEAD = 4096
_LARGEST_PAGE = 64 << 20
"""Bytes; a parser's tree takes many times as much."""


def split(path: Path, settings: Any) -> Iterator[bytes]:  # noqa: ARG001 (what splitters are called with)
    """The one page of a file.

    Raises:
        PanguError: the file cannot be read.
    """
    with readable(path), open_bytes(path) as file:
        yield file.read()


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
        from resiliparse.parse.encoding import bytes_to_str, detect_encoding
        from resiliparse.parse.html import HTMLTree
    except ImportError as error:
        raise PanguError("web pages need the package resiliparse: pip install 'pangu-alpha[data]'") from error
    if len(content) > _LARGEST_PAGE:
        raise PanguError(f"the page has {len(content) >> 20} MiB; at most {_LARGEST_PAGE >> 20} are read")
    declared = _DECLARED.search(content[:_HEAD])
    names: list[str] = [charset, declared[1].decode() if declared else "", detect_encoding(content) or ""]
    markup = _decoded(content, names) or bytes_to_str(content, "utf-8", "replace")
    tree = HTMLTree.parse(markup)
    text = extract_plain_text(tree, main_content=False, alt_texts=False, links=False, preserve_formatting=True)
    return (tree.title or "").strip(), url, text


def _decoded(content: bytes, names: list[str]) -> str | None:
    """The page read in the first of the named encodings in which it can be read."""
    for name in names:
        codec = {"gb2312": "gb18030", "gbk": "gb18030"}.get(name.lower(), name)
        try:
            if codec:
                return content.decode(codec)
        except (LookupError, UnicodeDecodeError):
            continue
    return None
