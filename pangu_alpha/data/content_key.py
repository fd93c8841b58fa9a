"""Names for prepared data by what it was made of, so that it is found again while nothing changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pangu_alpha.data.readers.streams import readable

_READ_WHOLE = 64 << 20  # bytes; a larger file is known by size, time and both ends, because reading it takes long
_END = 1 << 20


def digest_of_parts(parts: Mapping[str, Any]) -> str:
    """SHA-256, in hexadecimal, of anything that JSON can write."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()


def digest_of_texts(texts: Iterable[str]) -> str:
    """SHA-256 of texts in their order."""
    digest = hashlib.sha256()
    for text in texts:
        encoded = text.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(8, "little"))
        digest.update(encoded)
    return digest.hexdigest()


def digest_of_file(path: Path) -> str:
    """What a file holds: SHA-256 of its bytes up to 64 MiB; beyond, of its size, time and first and last MiB.

    Raises:
        PanguError: it cannot be read.
    """
    digest = hashlib.sha256()
    with readable(path), path.open("rb") as file:
        status = path.stat()
        if status.st_size <= _READ_WHOLE:
            while block := file.read(_END):
                digest.update(block)
        else:
            digest.update(f"{status.st_size} {status.st_mtime_ns}".encode())
            digest.update(file.read(_END))
            file.seek(-_END, 2)
            digest.update(file.read(_END))
    return digest.hexdigest()


def package_version(name: str) -> str:
    """Version of an installed package; empty if it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
