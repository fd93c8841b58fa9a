"""Processes that share work on data; whatever ends the work ends them with it, and without a word of theirs."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from types import FrameType, TracebackType
from typing import Any, TypeVar

from pangu_alpha.errors import Terminated

Result = TypeVar("Result")


class WorkerPool:
    """A pool of processes, used as a context manager.

    Ctrl-C reaches the parent alone.  When the block ends with an exception, the processes are killed at once and are
    gone before the exception goes on, so that what they were writing can be removed.
    """

    def __init__(self, processes: int) -> None:
        # Fresh processes rather than forks: MindSpore's threads would not survive a fork.
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(processes, context, _start, (os.getpid(),))

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._pool.shutdown()
            return
        with interrupts_held():  # a second Ctrl-C would leave processes that the program's own end waits for
            # What is still being sent to a process must not wait for one that is dead (Python before 3.11.5).
            with contextlib.suppress(AttributeError, OSError):
                self._pool._call_queue._reader.close()  # type: ignore[attr-defined]
            for process in list((self._pool._processes or {}).values()):
                process.kill()
            self._pool.shutdown(cancel_futures=True)

    def submit(self, function: Callable[..., Result], *arguments: Any) -> Future[Result]:
        """Have `function(*arguments)` run in one of the processes."""
        with interrupts_held():  # processes start here, as they are needed, and inherit it
            return self._pool.submit(function, *arguments)


@contextlib.contextmanager
def interrupts_held() -> Iterator[None]:
    """Within the context Ctrl-C waits; a process that starts here never hears of it, from its first instruction on."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def termination_raises() -> Iterator[None]:
    """Within the context SIGTERM raises Terminated, so that what is half done is removed; a second one ends at once.

    A handler that somebody else has set stays, and so does everything outside the main thread.
    """
    own = threading.current_thread() is threading.main_thread()
    if not own or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _terminate(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 (what a handler is called with)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    raise Terminated


def _start(parent: int) -> None:
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    """A killed parent leaves no process behind."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
