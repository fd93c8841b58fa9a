"""A tensor that lies in somebody's file, and is read when it is asked for."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pangu_alpha.checkpoint.formats.names.table import NameTable
from pangu_alpha.errors import PanguError
from pangu_alpha.files import storage_error


@dataclass(frozen=True)
class StoredTensor:
    """Shape and type of a tensor, and how to get its values.

    It stands for the array where only shape, type and `np.asarray` are used, so that a checkpoint of such tensors is
    written with one of them in memory at a time.
    """

    place: str
    """File that holds it, for messages."""
    shape: tuple[int, ...]
    dtype: np.dtype
    """Of the array that `read` gives."""
    read: Callable[[], np.ndarray]

    @property
    def size(self) -> int:
        """Numbers in it."""
        return math.prod(self.shape)

    @property
    def itemsize(self) -> int:
        """Bytes of a number."""
        return self.dtype.itemsize

    @property
    def nbytes(self) -> int:
        """Bytes of all."""
        return self.size * self.itemsize

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self.read(), dtype)

    def transposed(self) -> StoredTensor:
        """The same matrix, columns as rows."""
        return dataclasses.replace(
            self, shape=self.shape[::-1], read=lambda: np.ascontiguousarray(self.read().transpose())
        )

    def first_rows(self, count: int) -> StoredTensor:
        """The first `count` rows of a table."""
        return dataclasses.replace(self, shape=(count, *self.shape[1:]), read=lambda: self.read()[:count])

    def as_type(self, dtype: np.dtype) -> StoredTensor:
        """The values in another floating-point type."""
        return dataclasses.replace(self, dtype=dtype, read=lambda: self.read().astype(dtype))


@dataclass(frozen=True)
class ForeignWeights:
    """Weights in somebody else's form, found and indexed, not yet read."""

    form: str
    """What was recognised, for messages: 512 slices of the original release."""
    path: Path
    """What the user named."""
    tensors: Mapping[str, StoredTensor]
    """By the names of the form."""
    tables: Sequence[NameTable]
    """Variants of names that the form comes with."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the model that the form tells, such as num_heads."""
    vocabulary: Path | None = None
    """Sentencepiece model that lies beside the weights."""


BFLOAT16 = "bfloat16"
"""NumPy has no such type; its values are read as float32, which holds all of them."""


def result_type(stored: np.dtype | str) -> np.dtype:
    """The type that values of a stored type are read as."""
    return np.dtype(np.float32) if stored == BFLOAT16 else np.dtype(stored)


def decode(content: bytes | bytearray | memoryview | np.ndarray, stored: np.dtype | str) -> np.ndarray:
    """Little-endian bytes as a flat array; bfloat16 becomes float32."""
    if stored == BFLOAT16:
        return (np.frombuffer(content, "<u2").astype(np.uint32) << 16).view(np.float32)
    return np.frombuffer(content, np.dtype(stored).newbyteorder("<")).astype(np.dtype(stored), copy=False)


def stored_size(stored: np.dtype | str) -> int:
    """Bytes of a number of a stored type."""
    return 2 if stored == BFLOAT16 else np.dtype(stored).itemsize


def read_bytes(path: Path, parts: Sequence[tuple[int, int]]) -> bytearray:
    """Parts (offset, length) of a file, one after the other.

    Raises:
        PanguError: the file cannot be read or ends too early.
    """
    result = bytearray(sum(length for _, length in parts))
    view, place = memoryview(result), 0
    try:
        with path.open("rb", buffering=0) as file:
            for offset, length in parts:
                end = place + length
                while place < end:
                    count = os.preadv(file.fileno(), [view[place:end]], offset)
                    if count == 0:
                        raise PanguError(f"{path}: cut short: it ends before byte {offset + end - place}; get it again")
                    place, offset = place + count, offset + count
    except OSError as error:
        raise storage_error(error, path, "read") from None
    return result
