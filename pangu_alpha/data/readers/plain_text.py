"""Text files: documents separated by blank lines, as in the published preprocessing, or one a line, or one a file."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pangu_alpha.config import DataConfig
from pangu_alpha.data.readers.streams import read_lines

_HEADING = re.compile(r"\s*(正文|卷.{1,6})?\s*第\s*[0-9０-９零〇一二三四五六七八九十百千]+\s*[回章節节卷折]")


def read(path: Path, data: DataConfig) -> Iterator[str]:
    """Documents of a text file; a line of spaces is a blank line."""
    yield from _blocks(read_lines(path, data.encoding))


def _blocks(lines: Iterable[str], longest: float = math.inf) -> Iterator[str]:
    """What lies between blank lines; a block of more than `longest` characters comes in parts, cut at line ends."""
    block: list[str] = []
    characters = 0
    for line in lines:
        blank = not line or line.isspace()
        if block and (blank or characters + len(line) > longest):
            yield "\n".join(block)
            block, characters = [], 0
        if not blank:
            block.append(line)
            characters += len(line) + 1
    if block:
        yield "\n".join(block)


def split(path: Path, settings: Any) -> Iterator[str]:
    """Documents of a text file, as `settings.documents` says; bytes that cannot be decoded become U+FFFD."""
    lines = read_lines(path, settings.encoding, lenient=True)
    if settings.documents == "blank_line":
        yield from _blocks(lines, settings.longest_document)
    elif settings.documents == "line":
        yield from (line for line in lines if line and not line.isspace())
    elif settings.documents == "chapter":
        yield from _chapters(lines, settings.longest_document)
    else:
        yield from _pieces(lines, settings.longest_document)


def _pieces(lines: Iterable[str], longest: int) -> Iterator[str]:
    """All lines as one document; as several if it is longer than `longest` characters, so that it fits into memory."""
    held: list[str] = []
    characters = 0
    for line in lines:
        if held and characters + len(line) > longest:
            yield "\n".join(held)
            held, characters = [], 0
        held.append(line)
        characters += len(line) + 1
    if held:
        yield "\n".join(held)


def _chapters(lines: Iterable[str], longest: int) -> Iterator[str]:
    """Lines from one chapter's heading to the next; what stands before the first is a document, too."""
    held: list[str] = []
    characters = 0
    for line in lines:
        if held and (_HEADING.match(line) or characters + len(line) > longest):
            yield "\n".join(held)
            held, characters = [], 0
        held.append(line)
        characters += len(line) + 1
    if held:
        yield "\n".join(held)
