"""Text files: documents separated by blank lines, as in the published preprocessing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pangu_alpha.config import DataConfig
from pangu_alpha.data.readers.streams import read_lines


def read(path: Path, data: DataConfig) -> Iterator[str]:
    """Documents of a text file; a line of spaces is a blank line."""
    block: list[str] = []
    for line in read_lines(path, data.encoding):
        if line and not line.isspace():
            block.append(line)
        elif block:
            yield "\n".join(block)
            block = []
    if block:
        yield "\n".join(block)
