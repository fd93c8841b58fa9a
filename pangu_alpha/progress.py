"""What a user sees of long work: a bar with rate and time left on a terminal, else a log line every few seconds."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import TypeVar

logger = logging.getLogger(__name__)

Item = TypeVar("Item")


def format_duration(seconds: float) -> str:
    """Seconds as a person writes them: 8 s, 3 min 20 s, 2 h 05 min."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


class Progress:
    """Progress of one piece of work, used as a context manager; call `advance` as it goes on.

    Args:
        description: what is being done, in a word or two.
        total: how many units there are; None if nobody knows.
        unit: name of one unit, in the plural.
        seconds_between_lines: time between two log lines where there is no terminal.
    """

    def __init__(
        self, description: str, total: float | None = None, unit: str = "items", seconds_between_lines: float = 5.0
    ) -> None:
        self.description, self.total, self.unit = description, total, unit
        self.done = 0.0
        self._seconds_between_lines = seconds_between_lines
        self._start = self._last_line = time.monotonic()
        self._bar = None
        if sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(
                total=total,
                desc=description,
                unit=f" {unit}",
                unit_scale=True,
                file=sys.stderr,
                leave=False,
                dynamic_ncols=True,
            )

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
        if kind is None:
            seconds = time.monotonic() - self._start
            logger.info("%s: %s %s in %s", self.description, f"{self.done:,.0f}", self.unit, format_duration(seconds))

    def advance(self, amount: float = 1) -> None:
        """Note that `amount` more units are done."""
        self.done += amount
        if self._bar is not None:
            self._bar.update(amount)
            return
        now = time.monotonic()
        if now - self._last_line >= self._seconds_between_lines:
            self._last_line = now
            logger.info("%s", self.line(now - self._start))

    def line(self, seconds: float) -> str:
        """The state after `seconds` of work as one line of text."""
        rate = self.done / seconds if seconds > 0 else 0.0
        text = f"{self.description}: {self.done:,.0f}"
        if self.total is not None:
            text += f" of {self.total:,.0f}"
        text += f" {self.unit}"
        if self.total:
            text += f" ({self.done / self.total:.0%})"
        text += f", {rate:,.0f} a second" if rate >= 10 else f", {rate:.2g} a second"
        if self.total is not None and rate > 0:
            text += f", {format_duration((self.total - self.done) / rate)} left"
        return text


def track(items: Iterable[Item], description: str, total: float | None = None, unit: str = "items") -> Iterator[Item]:
    """Pass `items` on, one by one, showing the progress."""
    with Progress(description, total, unit) as progress:
        for item in items:
            yield item
            progress.advance()
