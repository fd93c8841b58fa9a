"""SIGTERM and SIGINT during training: noted, so that the loop can end with a checkpoint."""

from __future__ import annotations

import logging
import signal
from types import FrameType, TracebackType
from typing import Any

logger = logging.getLogger(__name__)


class StopSignals:
    """Within the context a first SIGTERM or SIGINT only sets `received`; a second SIGINT interrupts at once.

    MindSpore takes SIGINT over whenever a graph runs, keeps it, and answers it by sending SIGTERM to its own process.
    So Ctrl-C while a graph runs arrives as SIGTERM, and `renew` after the graphs makes a second one count.
    """

    def __init__(self) -> None:
        self.received = ""
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        """Take over both signals."""
        for number in (signal.SIGTERM, signal.SIGINT):
            self._previous[number] = signal.signal(number, self._note)
        return self

    def renew(self) -> None:
        """Take SIGINT back from MindSpore, after graphs have run."""
        signal.signal(signal.SIGINT, self._note)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Give both signals back."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if self.received:
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            return
        self.received = signal.Signals(number).name
        logger.info("stopping: the step in hand is finished and a checkpoint is written")
