"""Pages of which nothing but the title was caught."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pangu_alpha.config_checks import require
from pangu_alpha.data.lines import Lines
from pangu_alpha.data.rule import Outcome, keep_where


@dataclass(frozen=True)
class TitleOnly:
    """Drop documents with fewer than `least` characters besides title and headings (paper §3.1: title-only pages).

    A document without a title is judged by its first line.  A line counts as text if it is no heading: if it ends a
    sentence, or is longer than `longest_heading`.
    """

    name: ClassVar[str] = "title_only"
    least: int = 30
    """Characters of text."""
    longest_heading: int = 30
    """Characters of a line that may still be a heading."""

    def __post_init__(self) -> None:
        require(self.least >= 1, "least", self.least, "it must be 1 or more")

    def apply(self, batch: pa.RecordBatch) -> Outcome:
        """Measures the characters that are text."""
        lines = Lines.of(batch["text"])
        lengths = lines.lengths
        titles = batch["title"].take(pa.array(lines.parents)).cast(pa.large_string())
        is_title = pc.equal(lines.texts, titles).to_numpy(zero_copy_only=False)
        heading = (lengths <= self.longest_heading) & ~lines.matches(r"[，。！？；,;!?]")
        counted = np.where(is_title | heading, 0, lengths)
        total = np.concatenate([[0], np.cumsum(counted)])
        text = (total[lines.starts[1:]] - total[lines.starts[:-1]]).astype(np.float64)
        return keep_where(self.name, batch, pa.array(text >= self.least), pa.array(text), self.least)
