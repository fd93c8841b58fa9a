"""JSON Lines: one object a line, its text under `data.text_key`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from pangu_alpha.config import DataConfig
from pangu_alpha.data.readers.streams import read_lines
from pangu_alpha.errors import PanguError


def read(path: Path, data: DataConfig) -> Iterator[str]:
    """Documents of a JSON Lines file; blank lines, and a text that is null, are passed over.

    Raises:
        PanguError: a line is not a JSON object, or lacks the text; its number is named.
    """
    for number, line in enumerate(read_lines(path, data.encoding), 1):
        if not line or line.isspace():
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            raise PanguError(f"{path}:{number} is not JSON ({error}); mend or remove that line") from error
        if not isinstance(record, dict):
            raise PanguError(
                f"{path}:{number} holds a {type(record).__name__}, not an object with the text under {data.text_key!r}"
            )
        if data.text_key not in record:
            raise PanguError(
                f"{path}:{number} has no key {data.text_key!r}; its keys: {', '.join(record) or 'none'}; "
                f"choose one with data.text_key=…"
            )
        text = record[data.text_key]
        if text is None:
            continue
        if not isinstance(text, str):
            raise PanguError(f"{path}:{number}: {data.text_key!r} is a {type(text).__name__}, not a text")
        yield text
