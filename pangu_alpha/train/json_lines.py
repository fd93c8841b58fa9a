"""Append-only logs of a run, one JSON object a line, in which no step ever stands twice."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

from pangu_alpha.files import atomic_write, storage_error


def _plain(value: Any) -> Any:
    """`value` in what JSON knows: NaN and the infinities become null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def read_json_lines(path: str | Path) -> list[dict[str, Any]]:
    """The complete rows of a log, in order; an absent file has none.

    A line that a killed process left torn is passed over.

    Raises:
        PanguError: the file cannot be read.
    """
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise storage_error(error, path, "read") from error
    rows = []
    for line in content.splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows


class JsonLines:
    """One log file, open for appending.

    A row is one line and one write, so that a killed process leaves at most one torn line, which the next opening
    removes.  Opening with `resume_step` N also removes the rows of steps after N: a run that continues from the
    checkpoint of step N writes those steps anew.

    Args:
        path: the file; its directory is made if it is missing.
        resume_step: last step whose rows stay.  Every row has a key `step`.

    Raises:
        PanguError: the disk is full, read-only or closed to this user (also from `append`).
    """

    def __init__(self, path: str | Path, resume_step: int) -> None:
        self.path = Path(path)
        self._keep_up_to(resume_step)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise storage_error(error, self.path) from error

    def _keep_up_to(self, step: int) -> None:
        kept = [row for row in read_json_lines(self.path) if row.get("step", step + 1) <= step]
        content = b"".join(_line(row) for row in kept)
        if self.path.exists() and self.path.read_bytes() != content:
            with atomic_write(self.path) as file:
                file.write(content)

    def append(self, row: dict[str, Any]) -> None:
        """Write one row, which must have a key `step`."""
        line = _line(row)
        try:
            written = os.write(self._descriptor, line)
            if written != len(line):  # a disk that fills up takes a part; the rest then fails with the reason
                os.write(self._descriptor, line[written:])
        except OSError as error:
            raise storage_error(error, self.path) from error

    def close(self) -> None:
        """Flush to the disk and close; safe to call twice."""
        if self._descriptor >= 0:
            os.fsync(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1


def _line(row: dict[str, Any]) -> bytes:
    return json.dumps(_plain(row), ensure_ascii=False, allow_nan=False).encode("utf-8") + b"\n"
