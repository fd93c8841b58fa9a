"""Labelled sets as running text, the labels left out (paper §3.1: 15 public sets became text)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pangu_alpha.data.readers.streams import codec_name, open_bytes, read_lines, readable
from pangu_alpha.errors import PanguError

FORMS = ("fields", "squad")
_LARGEST = 256 << 20
"""Bytes of a file that has to be held whole; decoded it takes several times as much."""


def split(path: Path, settings: Any) -> Iterator[Any]:
    """Records of a set: of a JSON list, of the list under `data`, or one a line.

    Raises:
        PanguError: the file cannot be read, is no JSON, or is one JSON value that is too large.
    """
    lines = (line for line in read_lines(path, settings.encoding, lenient=True) if line and not line.isspace())
    first, second = next(lines, None), next(lines, None)
    if first is None:
        return
    if second is not None and isinstance(_json(first), dict):
        yield first
        yield second
        yield from lines
        return
    whole = _json(first) if second is None else _json(_whole(path, settings.encoding))
    if whole is None:  # no list, so records a line, the first of which is broken
        yield from (line for line in read_lines(path, settings.encoding, lenient=True) if line.strip())
        return
    if isinstance(whole, dict):
        whole = whole.get("data", list(whole.values()))
    if not isinstance(whole, list):
        raise PanguError(f"{path} holds no list of records")
    yield from whole


def _whole(path: Path, encoding: str) -> str:
    """The text of a file that is one JSON value."""
    with readable(path), open_bytes(path) as file:
        content = file.read(_LARGEST + 1)
    if len(content) > _LARGEST:
        raise PanguError(f"{path} is one JSON value of more than {_LARGEST >> 20} MiB; write its records one a line")
    return content.decode(codec_name(encoding), "replace")


def _json(text: str) -> Any:
    """What some text holds as JSON; None if it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def texts_of(record: Any, form: str, names: tuple[str, ...]) -> Iterator[str]:
    """Texts of one record.

    Args:
        record: decoded, or a line of JSON.
        form: squad: each passage, then its questions and first answers as 问：…, 答：…; fields: the named ones, a line
            each.
        names: fields, dotted where nested; a list on the way gives all its entries.

    Raises:
        PanguError: the record has none of the fields, or is no JSON.
    """
    if isinstance(record, str):
        try:
            record = json.loads(record)
        except (ValueError, RecursionError) as error:
            raise PanguError(f"no JSON ({error})") from None
    if form == "squad":
        yield from _squad(record)
        return
    lines = [line for name in names for line in _values(record, name.split("."))]
    if not lines:
        raise PanguError(f"none of the fields {', '.join(names)} holds text; fields: {_fields(record)}")
    yield "\n".join(lines)


def _values(value: Any, path: list[str]) -> Iterator[str]:
    if isinstance(value, list):
        for item in value:
            yield from _values(item, path)
    elif not path:
        if isinstance(value, str) and value.strip():
            yield value.strip()
    elif isinstance(value, dict) and path[0] in value:
        yield from _values(value[path[0]], path[1:])


def _squad(record: Any) -> Iterator[str]:
    passages = record.get("paragraphs", [record]) if isinstance(record, dict) else []
    for passage in passages:
        if not isinstance(passage, dict) or not isinstance(passage.get("context", passage.get("context_text")), str):
            raise PanguError(f"no passage with a context; fields: {_fields(passage)}")
        lines: list[str] = [passage.get("context") or passage["context_text"]]
        for entry in passage.get("qas", ()):
            question = entry.get("question", entry.get("query_text", ""))
            answers = [
                answer.get("text", "") if isinstance(answer, dict) else answer for answer in entry.get("answers", ())
            ]
            if question and answers:
                lines += [f"问：{question}", f"答：{answers[0]}"]
        yield "\n".join(lines)


def _fields(record: Any) -> str:
    return ", ".join(map(str, record)) if isinstance(record, dict) else type(record).__name__
