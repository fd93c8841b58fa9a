"""The right to write into a directory, for one process at a time."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
from pathlib import Path
from types import TracebackType
from typing import ClassVar

from pangu_alpha.errors import PanguError
from pangu_alpha.files import storage_error


class DirectoryLock:
    """A lock file, as a context manager; whoever comes second is told who has it.

    The lock belongs to the process, not to its children, and goes when the process ends, however it ends.
    """

    _held: ClassVar[set[Path]] = set()

    def __init__(self, path: Path, advice: str) -> None:
        """A lock at `path` for its directory; `advice` ends the message for whoever comes second."""
        self.path, self.advice = path, advice
        self._descriptor: int | None = None
        self._made_directory = False

    def __enter__(self) -> DirectoryLock:
        """Take the lock; PanguError if another process has it or the directory cannot be written."""
        path = self.path
        self._made_directory = not path.parent.exists()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._key = path.resolve()
            # A process's own second lock would succeed, and closing its file would drop the first.
            if self._key in self._held:
                raise PanguError(f"{path.parent} is already being written by this process")
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise storage_error(error, path) from None
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(descriptor, 1000, 0).decode(errors="replace").strip() or "another process"
            os.close(descriptor)
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise PanguError(
                    f"{path.parent} is being written by {holder}; wait until it ends, end it, {self.advice}"
                ) from None
            raise PanguError(f"{path} cannot be locked: {error.strerror}; put it on another disk") from None
        self._descriptor = descriptor
        self._held.add(self._key)
        with contextlib.suppress(OSError):  # a full disk: the lock holds all the same
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the lock back; after an error a directory goes that was made for it and holds nothing else."""
        if self._descriptor is None:
            return
        self._held.discard(self._key)
        with contextlib.suppress(OSError):
            os.ftruncate(self._descriptor, 0)
        with contextlib.suppress(OSError):
            if error is not None and self._made_directory and list(self.path.parent.iterdir()) == [self.path]:
                self.path.unlink()
                self.path.parent.rmdir()
        os.close(self._descriptor)
        self._descriptor = None
