"""Files and directories that appear whole or not at all.

Everything the project writes goes to a temporary name beside its place and is renamed when it is complete, so that
an interrupted run, a full disk or a second run at the same time never leaves half a file behind.  What a killed
process could not remove is removed by the next one that writes to the same place.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from pangu_alpha.errors import PanguError

_REASONS = {
    errno.ENOSPC: "no space is left on the disk; free some, or write elsewhere",
    errno.EDQUOT: "the disk quota is used up; free some space, or write elsewhere",
    errno.EFBIG: "the file would exceed the size that this process may write (see ulimit -f)",
    errno.EROFS: "the file system is read-only; write elsewhere",
    errno.EACCES: "permission denied; check the owner and mode of its directory",
    errno.EPERM: "permission denied; check the owner and mode of its directory",
    errno.EISDIR: "it is a directory",
    errno.ENOTDIR: "a part of its path is a file, not a directory",
    errno.ENAMETOOLONG: "its name is too long",
}


def storage_error(error: OSError, path: str | Path, action: str = "write") -> PanguError:
    """One line for a failed file operation.

    Args:
        error: what the system reported.
        path: file or directory that the caller wanted.
        action: what was tried, as a verb: write, read, create.
    """
    reason = _REASONS.get(error.errno or 0, error.strerror or str(error))
    return PanguError(f"cannot {action} {final_name(path)}: {reason}")


def _partial_name(path: Path) -> Path:
    return path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.partial")


def final_name(path: str | Path) -> Path:
    """The name that a user knows for a path inside an `atomic_directory` that is still being filled."""
    suffix = f".{socket.gethostname()}.{os.getpid()}.partial"
    return Path(*(part[1 : -len(suffix)] if part.endswith(suffix) else part for part in Path(path).parts))


def shown_name(path: str | Path) -> str:
    """A path as text that can be written anywhere: bytes that are not UTF-8 are shown as their numbers."""
    return str(path).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def _remove_leftovers(path: Path) -> None:
    """Remove what killed processes of this machine left beside `path`; a running process's work is not touched."""
    pattern = re.compile(rf"\.{re.escape(path.name)}\.{re.escape(socket.gethostname())}\.(\d+)\.partial(\.old)?")
    for other in path.parent.iterdir():
        match = pattern.fullmatch(other.name)
        if not match or (int(match[1]) != os.getpid() and _is_running(int(match[1]))):
            continue
        if match[2] and not path.exists():
            other.replace(path)  # killed between two renames: the directory that stepped aside comes back
        else:
            _remove(other)


def _synchronise_directory(directory: Path) -> None:
    # A rename survives a power cut only when its directory is flushed too; some file systems refuse, which is no error.
    with contextlib.suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _is_about(error: OSError, partial: Path, path: Path) -> bool:
    """Whether an error came from writing here; one about a file that the caller read names that file."""
    names = [str(name) for name in (error.filename, error.filename2) if name is not None]
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # never the fault of a file that was read
    here = any(name.startswith(str(partial)) or name in map(str, (path, *path.parents)) for name in names)
    return full or here or not names


@contextlib.contextmanager
def atomic_write(path: str | Path, mode: str = "wb", encoding: str | None = None) -> Iterator[IO[Any]]:
    """Open a file for writing that takes its name only when the block ends without an error.

    Args:
        path: the file; its directory is made if it is missing, an existing file is replaced.
        mode: wb (bytes) or w (text).
        encoding: of text; UTF-8 unless given.

    Raises:
        PanguError: the disk is full, read-only or closed to this user.
    """
    path = Path(path)
    partial = _partial_name(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(path)
        # Half characters, from file names that are not UTF-8, have no bytes in UTF-8; JSON spells them as this does.
        binary = "b" in mode
        text = None if binary else encoding or "utf-8"
        with partial.open(mode, encoding=text, errors=None if binary else "backslashreplace") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        _synchronise_directory(path.parent)
    except OSError as error:
        _remove(partial)
        if not _is_about(error, partial, path):
            raise
        raise storage_error(error, path) from error
    except BaseException:
        _remove(partial)
        raise


@contextlib.contextmanager
def atomic_directory(path: str | Path, replace: bool = True) -> Iterator[Path]:
    """Fill a directory under a temporary name; it takes its own name only when the block ends without an error.

    Args:
        path: the directory; its parent is made if it is missing.
        replace: whether an existing directory gives way; False keeps it and discards the new one, which is right
            where the name says what the content is (a second run made the same thing at the same time).

    Raises:
        PanguError: the disk is full, read-only or closed to this user.
    """
    path = Path(path)
    partial = _partial_name(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(path)
        partial.mkdir()
        yield partial
        for folder, _, names in os.walk(partial):
            for name in names:
                descriptor = os.open(Path(folder, name), os.O_RDONLY)
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
            _synchronise_directory(Path(folder))
        if path.exists() and not replace:
            _remove(partial)
            return
        if path.exists():
            # A directory that is not empty cannot be renamed over: the old one steps aside first.
            aside = path.with_name(partial.name + ".old")
            path.replace(aside)
            partial.replace(path)
            _remove(aside)
        else:
            partial.replace(path)
        _synchronise_directory(path.parent)
    except OSError as error:
        _remove(partial)
        if not _is_about(error, partial, path):
            raise
        raise storage_error(error, path) from error
    except BaseException:
        _remove(partial)
        raise
