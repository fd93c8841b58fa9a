"""Saving while training goes on: the step waits only until the values are copied."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from pathlib import Path


class BackgroundSaver:
    """Runs one save at a time in a thread of its own.

    A checkpoint counts once `finished` or `wait` gives its path: then it lies complete on the disk.  What went wrong in
    the thread is raised there, too.
    """

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._path: Path | None = None
        self._error: BaseException | None = None

    def start(self, save: Callable[[], Path | None]) -> Path | None:
        """Begin a save when the one before has ended; gives back the path of that one, if it was not given yet.

        Args:
            save: writes a checkpoint from values that nobody changes any more, and gives its path, or None where it
                writes a part for another process.
        """
        before = self.wait()
        self._thread = threading.Thread(target=self._run, args=(save,), name="checkpoint", daemon=True)
        self._thread.start()
        return before

    def _run(self, save: Callable[[], Path | None]) -> None:
        try:
            self._path = save()
        except BaseException as error:  # whatever it is, the training thread shall raise it
            self._error = error

    def finished(self) -> Path | None:
        """The path of the save, once and as soon as it is done; None before and after."""
        return None if self._thread is None or self._thread.is_alive() else self.wait()

    def wait(self) -> Path | None:
        """Wait for the save that runs; its path, None if none runs.

        Raises:
            PanguError: what the save ended with, such as a full disk.
        """
        if self._thread is None:
            return None
        self._thread.join()
        self._thread = None
        path, error, self._path, self._error = self._path, self._error, None, None
        if error is not None:
            raise error
        return path

    def settle(self) -> None:
        """Wait, whatever comes of it: for the way out after another error."""
        with contextlib.suppress(Exception):
            self.wait()
