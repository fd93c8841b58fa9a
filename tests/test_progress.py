from __future__ import annotations

import io
import sys

import pytest

import pangu_alpha.progress as progress_module
from pangu_alpha.progress import Progress, format_duration, track


def test_durations() -> None:
    assert [format_duration(seconds) for seconds in (0.2, 59.4, 59.6, 3599.4, 7500)] == [
        "0 s",
        "59 s",
        "1 min 00 s",
        "59 min 59 s",
        "2 h 05 min",
    ]


def test_lines_without_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    messages: list[str] = []
    monkeypatch.setattr(progress_module.logger, "info", lambda text, *values: messages.append(text % values))
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with Progress("packing", 10, "samples", seconds_between_lines=0) as progress:
        progress.advance(4)
    assert progress.line(2.0) == "packing: 4 of 10 samples (40%), 2 a second, 3 s left"
    assert messages[0].startswith("packing: 4 of 10 samples (40%)")
    assert messages[-1].startswith("packing: 4 samples in ")


def test_track_passes_everything_on() -> None:
    assert list(track(range(5), "counting", 5)) == list(range(5))
