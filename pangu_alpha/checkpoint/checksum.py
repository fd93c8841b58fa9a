"""Checksums of a checkpoint's bytes: fast enough that saving and loading wait for the disk and not for them.

XXH3 with 128 bits finds every damage that is no intention: it is written `xxh3_128:<32 hexadecimal digits>`, and
`xxhsum -H2` prints the same digits.  Checkpoints of format 1 have SHA-256 (`sha256:…`), which is still read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import xxhash

ALGORITHM = "xxh3_128"
"""Of what is written now."""
_ALGORITHMS: dict[str, Callable[[], Any]] = {ALGORITHM: xxhash.xxh3_128, "sha256": hashlib.sha256}


class Checksum:
    """A checksum that grows with the bytes it is given."""

    def __init__(self, algorithm: str = ALGORITHM) -> None:
        self._algorithm, self._state = algorithm, _ALGORITHMS[algorithm]()

    def update(self, values: bytes | memoryview) -> None:
        """Add bytes; Python's lock is free meanwhile."""
        self._state.update(values)

    def __str__(self) -> str:
        return f"{self._algorithm}:{self._state.hexdigest()}"


def checksum_of(values: bytes | memoryview) -> str:
    """The checksum of some bytes, as a manifest has it."""
    checksum = Checksum()
    checksum.update(values)
    return str(checksum)


def has_checksum(values: bytes | memoryview, written: str) -> bool:
    """Whether bytes have the checksum that was written; one of an unknown kind is none that they have."""
    algorithm = written.partition(":")[0]
    if algorithm not in _ALGORITHMS:
        return False
    checksum = Checksum(algorithm)
    checksum.update(values)
    return str(checksum) == written
