"""Documents too short to teach anything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from pangu_alpha.config_checks import require
from pangu_alpha.data.rule import Outcome, keep_where


@dataclass(frozen=True)
class Length:
    """Drop documents shorter than `least` characters (paper §3.1: 150)."""

    name: ClassVar[str] = "length"
    least: int = 150
    """Characters."""

    def __post_init__(self) -> None:
        require(self.least >= 0, "least", self.least, "it must be 0 or more")

    def apply(self, batch: pa.RecordBatch) -> Outcome:
        """Measures the characters."""
        lengths = pc.utf8_length(batch["text"]).cast(pa.float64())
        return keep_where(self.name, batch, pc.greater_equal(lengths, float(self.least)), lengths, float(self.least))
