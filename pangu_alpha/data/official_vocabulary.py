"""The published vocabulary of 40,000 pieces: where it lies on this machine, and how it gets there.

It is not part of this project.  The PyPI package pcl-pangu carries it; pip downloads that package's wheel (alone, with
whatever configuration the user's pip has), one file is taken out, checked and kept in the user's cache.
"""

from __future__ import annotations

import hashlib
import logging
import os
import subprocess
import sys
import tempfile
import zipfile
import zlib
from pathlib import Path

from pangu_alpha.errors import PanguError
from pangu_alpha.files import atomic_write, storage_error

logger = logging.getLogger(__name__)

OFFICIAL_SHA256 = "18857e86783e50cfcaa0bc3c043fb4e9b5f240b885d2870ea593ee69b44f7a3a"
"""Checksum of the published `vocab.model`."""
PACKAGE = "pcl-pangu==1.2.6.2"
"""The package on PyPI that carries it."""
_MEMBER = "pcl_pangu/tokenizer/bpe_4w_pcl/vocab.model"
_SECONDS_TO_DOWNLOAD = 600
_OTHER_WAY = (
    f"on a machine with a network run `pip download --no-deps {PACKAGE}`, and here "
    "`pangu-alpha tokenizer official --wheel FILE` with the file that it got"
)


def cached_path() -> Path:
    """Where the official vocabulary lies once it was fetched: in $XDG_CACHE_HOME, else in ~/.cache."""
    folder = os.environ.get("XDG_CACHE_HOME", "")
    # The specification of that variable: a relative path is to be ignored.
    base = Path(folder) if Path(folder).is_absolute() else Path("~/.cache").expanduser()
    return base / "pangu_alpha" / "official" / "vocab.model"


def official_vocabulary() -> Path:
    """The official vocabulary in the user's cache.

    Raises:
        PanguError: it was not fetched yet, or the file is damaged.
    """
    path = cached_path()
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise PanguError(
            "the official vocabulary is not on this machine yet; fetch it once with "
            "`pangu-alpha tokenizer official`, or use one of your own (tokenizer.kind=train)"
        ) from None
    except OSError as error:
        raise storage_error(error, path, "read") from error
    if hashlib.sha256(content).hexdigest() != OFFICIAL_SHA256:
        raise PanguError(
            f"{path}: the file is damaged (wrong sha256); fetch it again with `pangu-alpha tokenizer official`"
        )
    return path


def fetch_official_vocabulary(wheel: str | Path | None = None) -> Path:
    """Put the official vocabulary into the user's cache, unless it is there already.

    Args:
        wheel: a downloaded wheel of `PACKAGE`; None lets pip download it.

    Raises:
        PanguError: pip cannot get the package, the wheel is damaged or another one, or the cache cannot be written.
    """
    if wheel is None:
        try:
            return official_vocabulary()
        except PanguError:
            logger.info("downloading %s with pip", PACKAGE)
        with tempfile.TemporaryDirectory() as folder:
            return _store(_extract(_download(Path(folder))))
    return _store(_extract(Path(wheel).expanduser()))


def _download(folder: Path) -> Path:
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--only-binary",
        ":all:",
        "--quiet",
        "--disable-pip-version-check",
        "--no-input",
        "--dest",
        str(folder),
        PACKAGE,
    ]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", check=False, timeout=_SECONDS_TO_DOWNLOAD
        )
    except subprocess.TimeoutExpired:
        raise PanguError(
            f"pip has not got {PACKAGE} within {_SECONDS_TO_DOWNLOAD} s; try again, or {_OTHER_WAY}"
        ) from None
    except OSError as error:
        raise PanguError(f"pip cannot be started ({error.strerror}); {_OTHER_WAY}") from error
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode or not wheels:
        raise PanguError(f"pip cannot get {PACKAGE} ({_reason(done.stderr)}); try again, or {_OTHER_WAY}")
    return wheels[0]


def _reason(messages: str) -> str:
    """The line of pip's messages that says what went wrong: its first error, else its last line."""
    lines = [line.strip() for line in messages.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR") or "No module named pip" in line]
    return (errors or lines or ["it gave no reason"])[0 if errors else -1]


def _extract(wheel: Path) -> bytes:
    try:
        with zipfile.ZipFile(wheel) as archive:
            content = archive.read(_MEMBER)
    except FileNotFoundError:
        raise PanguError(f"there is no file {wheel}; {_OTHER_WAY}") from None
    except KeyError:
        raise PanguError(f"{wheel}: this wheel holds no {_MEMBER}; it must be that of {PACKAGE}") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise PanguError(
            f"{wheel}: this is not a whole wheel ({error}); download it again: `pip download --no-deps {PACKAGE}`"
        ) from error
    except OSError as error:
        raise storage_error(error, wheel, "read") from error
    if hashlib.sha256(content).hexdigest() != OFFICIAL_SHA256:
        raise PanguError(
            f"{wheel}: the vocabulary inside is not the published one (wrong sha256); "
            f"the wheel must be that of {PACKAGE}"
        )
    return content


def _store(content: bytes) -> Path:
    path = cached_path()
    with atomic_write(path) as file:
        file.write(content)
    return path
