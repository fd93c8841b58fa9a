"""Ctrl-C while something runs that an exception would break: it is noted, and raised when that has ended."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


@contextlib.contextmanager
def held_back(*numbers: signal.Signals, second_at_once: bool) -> Iterator[None]:
    """Let a signal that comes while the inside runs raise KeyboardInterrupt once it has ended.

    Handlers that others have set get their signals, and all handlers are set again afterwards.  Outside the main thread
    nothing changes: handlers belong to that thread.

    Args:
        numbers: the signals meant.
        second_at_once: whether the second one raises at once.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    outer = {number: signal.getsignal(number) for number in numbers}
    noted = _Noted(second_at_once)
    for number, handler in outer.items():
        if handler in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, noted)
    try:
        yield
    finally:
        for number, handler in outer.items():
            if handler is not None:  # None: set by another library, not from Python
                signal.signal(number, handler)
    if noted.count:
        raise KeyboardInterrupt


def unbroken_import() -> contextlib.AbstractContextManager[None]:
    """Hold every Ctrl-C back while the inside imports what needs MindSpore, some seconds.

    MindSpore's libraries call Python back while they load: an exception there leaves modules half made, and the process
    crashes, at once or at its end.  SIGTERM ends the process as ever, without an exception.
    """
    return held_back(signal.SIGINT, second_at_once=False)


class _Noted:
    """A handler that counts signals."""

    def __init__(self, second_at_once: bool) -> None:
        self.count, self._second_at_once = 0, second_at_once

    def __call__(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 (what a handler is called with)
        self.count += 1
        if self.count > 1 and self._second_at_once:
            raise KeyboardInterrupt
