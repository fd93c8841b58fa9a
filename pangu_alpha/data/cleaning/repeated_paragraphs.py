"""Paragraphs that a document says more than once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pangu_alpha.config_checks import require
from pangu_alpha.data.document import with_text
from pangu_alpha.data.lines import Lines
from pangu_alpha.data.rule import Outcome, changed, pieces


@dataclass(frozen=True)
class RepeatedParagraphs:
    """Of equal paragraphs (lines) inside a document the first stays (paper §3.1).

    Measures the share of characters that went.  Lines shorter than `shortest` are left: refrains, 答： and the like.
    """

    name: ClassVar[str] = "repeated_paragraphs"
    shortest: int = 10
    """Characters."""

    def __post_init__(self) -> None:
        require(self.shortest >= 1, "shortest", self.shortest, "it must be 1 or more")

    def apply(self, batch: pa.RecordBatch) -> Outcome:
        """Changes texts, drops none."""
        lines = Lines.of(batch["text"])
        lengths = lines.lengths
        long = np.flatnonzero(lengths >= self.shortest)
        codes = pc.dictionary_encode(pc.utf8_trim_whitespace(lines.texts.take(pa.array(long)))).indices.to_numpy()
        keys = lines.parents[long] * (int(codes.max(initial=0)) + 1) + codes
        _, first = np.unique(keys, return_index=True)
        again = np.ones(len(long), bool)
        again[first] = False
        gone = np.zeros(len(lengths), bool)
        gone[long[again]] = True
        total = np.concatenate([[0], np.cumsum(np.where(gone, lengths, 0))])
        lost = total[lines.starts[1:]] - total[lines.starts[:-1]]
        whole = pc.utf8_length(batch["text"]).to_numpy(zero_copy_only=False)
        values = pa.array(lost / np.maximum(whole, 1), pa.float64())
        if not gone.any():
            return changed(batch, batch, values)
        removed = pieces(self.name, batch, pa.array(lines.parents[gone]), lines.texts.filter(pa.array(gone)))
        return changed(batch, with_text(batch, lines.without(gone, batch["text"])), values, removed)
