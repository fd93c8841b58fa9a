"""JSON Lines: one object a line, its text under `data.text_key`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pangu_alpha.config import DataConfig
from pangu_alpha.data.readers.streams import read_lines
from pangu_alpha.errors import PanguError

AUTO = "auto"
USUAL_KEYS = ("text", "content", "sentence", "article", "body")
"""Where the text is looked for with `text_key` auto."""


def read(path: Path, data: DataConfig) -> Iterator[str]:
    """Documents of a JSON Lines file; blank lines, and a text that is null, are passed over.

    Raises:
        PanguError: a line is not a JSON object, or lacks the text; its number is named.
    """
    for number, line in enumerate(read_lines(path, data.encoding), 1):
        if not line or line.isspace():
            continue
        try:
            text = text_of(line, data.text_key)
        except PanguError as error:
            raise PanguError(f"{path}:{number} {error}") from error.__cause__
        if text is not None:
            yield text


def split(path: Path, settings: Any) -> Iterator[str]:
    """Lines of a JSON Lines file that are not blank; bytes that cannot be decoded become U+FFFD."""
    yield from (line for line in read_lines(path, settings.encoding, lenient=True) if line and not line.isspace())


def text_of(line: str, text_key: str) -> str | None:
    """The text of one line, None where it is null.

    Raises:
        PanguError: what is wrong with the line, to be put behind its place.
    """
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise PanguError(f"is not JSON ({error}); mend or remove that line") from error
    if not isinstance(record, dict):
        raise PanguError(f"holds a {type(record).__name__}, not an object with the text under {text_key!r}")
    if text_key == AUTO:
        text_key = next((key for key in USUAL_KEYS if isinstance(record.get(key), str)), USUAL_KEYS[0])
    if text_key not in record:
        raise PanguError(
            f"has no key {text_key!r}; its keys: {', '.join(record) or 'none'}; choose one with data.text_key=…"
        )
    text = record[text_key]
    if text is not None and not isinstance(text, str):
        raise PanguError(f"has under {text_key!r} a {type(text).__name__}, not a text")
    return text
