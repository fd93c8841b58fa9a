"""The lines of a record batch as one array, for rules that judge line by line."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc


@dataclass(frozen=True)
class Lines:
    """Lines of all texts, one after the other."""

    texts: pa.Array
    """large_string [lines], without their ends."""
    starts: npt.NDArray[np.int64]
    """Where the lines of each text begin, and at the end the number of lines [rows + 1]."""

    @staticmethod
    def of(texts: pa.Array, separator: str = "\n") -> Lines:
        """Split texts; an empty text is one empty line."""
        listed = pc.split_pattern(texts.cast(pa.large_string()), separator)
        offsets = listed.offsets.to_numpy().astype(np.int64)
        return Lines(listed.flatten().cast(pa.large_string()), offsets - offsets[0])

    @property
    def parents(self) -> npt.NDArray[np.int64]:
        """The row of each line [lines]."""
        return np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))

    def count(self, marked: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
        """Marked lines of each text [rows]."""
        total = np.concatenate([[0], np.cumsum(marked)])
        return (total[self.starts[1:]] - total[self.starts[:-1]]).astype(np.int64)

    def joined(self, keep: npt.NDArray[np.bool_], separator: str = "\n") -> pa.Array:
        """Texts of the marked lines alone, large_string [rows]."""
        total = np.concatenate([[0], np.cumsum(keep)])
        offsets = pa.array(total[self.starts], pa.int32())
        listed = pa.ListArray.from_arrays(offsets, self.texts.filter(pa.array(keep)).cast(pa.string()))
        return pc.binary_join(listed, separator).cast(pa.large_string())

    def without(self, gone: npt.NDArray[np.bool_], texts: pa.Array) -> pa.Array:
        """Texts of which the marked lines are taken out, with no more than one blank line where they stood.

        Args:
            gone: marked lines [lines].
            texts: what the lines were made of; a text that loses none stays as it is.
        """
        left = pc.utf8_trim(pc.replace_substring_regex(self.joined(~gone), r"\n{3,}", "\n\n"), "\n")
        return pc.if_else(pa.array(self.count(gone) > 0), left, texts)

    def matches(self, pattern: str) -> npt.NDArray[np.bool_]:
        """Lines in which a regular expression (RE2) is found [lines]."""
        return self._numpy(pc.match_substring_regex(self.texts, pattern)).astype(bool)

    def counts(self, pattern: str) -> npt.NDArray[np.int64]:
        """How often a regular expression (RE2) is found in each line [lines]."""
        return self._numpy(pc.count_substring_regex(self.texts, pattern)).astype(np.int64)

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Characters of each line [lines]."""
        return self._numpy(pc.utf8_length(self.texts)).astype(np.int64)

    @staticmethod
    def _numpy(array: pa.Array) -> npt.NDArray[np.generic]:
        values: npt.NDArray[np.generic] = array.to_numpy(zero_copy_only=False)
        return values
