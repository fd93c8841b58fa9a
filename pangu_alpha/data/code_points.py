"""The characters of a whole record batch as one array of numbers, so that rules look at all of them at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

NEWLINE = 10


@dataclass(frozen=True)
class CodePoints:
    """All texts of a batch, one after the other."""

    values: npt.NDArray[np.uint32]
    """Unicode code points [characters]."""
    starts: npt.NDArray[np.int64]
    """Where each text begins, and at the end the number of characters [rows + 1]."""

    @staticmethod
    def of(texts: pa.Array) -> CodePoints:
        """Code points of a large_string array without nulls."""
        texts = texts.cast(pa.large_string())
        offsets = np.frombuffer(texts.buffers()[1], np.int64)[texts.offset : texts.offset + len(texts) + 1]
        if len(texts) == 0 or offsets[0] == offsets[-1]:
            return CodePoints(np.zeros(0, np.uint32), np.zeros(len(texts) + 1, np.int64))
        stored = np.frombuffer(texts.buffers()[2], np.uint8)[offsets[0] : offsets[-1]]
        values = np.frombuffer(stored.tobytes().decode("utf-8").encode("utf-32-le"), np.uint32)
        # A character begins at each byte that is no continuation.
        begun = np.concatenate([[0], np.cumsum((stored & 0xC0) != 0x80)])
        return CodePoints(values, begun[offsets - offsets[0]].astype(np.int64))

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Characters of each text [rows]."""
        return np.diff(self.starts)

    def count(self, marked: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
        """How many marked characters [characters] each text has [rows]."""
        total = np.concatenate([[0], np.cumsum(marked)])
        return (total[self.starts[1:]] - total[self.starts[:-1]]).astype(np.int64)

    def keep(self, marked: npt.NDArray[np.bool_], values: npt.NDArray[np.uint32] | None = None) -> CodePoints:
        """The texts with their marked characters alone, taken from `values` (of the same length) if given."""
        total = np.concatenate([[0], np.cumsum(marked)])
        taken = self.values if values is None else values
        return CodePoints(taken[marked], total[self.starts].astype(np.int64))

    def texts(self) -> pa.Array:
        """Back to a large_string array."""
        stored = self.values.astype("<u4", copy=False).tobytes().decode("utf-32-le").encode("utf-8")
        sizes = 1 + (self.values >= 0x80).astype(np.int8) + (self.values >= 0x800) + (self.values >= 0x10000)
        ends = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])[self.starts]
        return pa.LargeStringArray.from_buffers(
            len(self.starts) - 1, pa.py_buffer(ends.astype(np.int64)), pa.py_buffer(stored)
        )


def is_chinese(values: npt.NDArray[np.uint32]) -> npt.NDArray[np.bool_]:
    """Which characters are Chinese ones (unified ideographs with their extensions, and 〇)."""
    return (
        ((values >= 0x4E00) & (values <= 0x9FFF))
        | ((values >= 0x3400) & (values <= 0x4DBF))
        | ((values >= 0x20000) & (values <= 0x3134F))
        | ((values >= 0xF900) & (values <= 0xFAFF))
        | (values == 0x3007)
    )


def is_space(values: npt.NDArray[np.uint32]) -> npt.NDArray[np.bool_]:
    """Which characters are white space: blanks, tabs, line ends, the wide space."""
    return (values <= 32) | (values == 0x3000) | (values == 0xA0)
