"""Documents in which Chinese is not the main script."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa

from pangu_alpha.config_checks import require_share
from pangu_alpha.data.code_points import CodePoints, is_chinese, is_space
from pangu_alpha.data.rule import Outcome, keep_where


@dataclass(frozen=True)
class ChineseShare:
    """Drop documents of whose characters, white space aside, fewer than `least` are Chinese (paper §3.1: 60 %)."""

    name: ClassVar[str] = "chinese_share"
    least: float = 0.6
    """Share in [0, 1]."""

    def __post_init__(self) -> None:
        require_share("least", self.least)

    def apply(self, batch: pa.RecordBatch) -> Outcome:
        """Measures the share."""
        points = CodePoints.of(batch["text"])
        visible = points.count(~is_space(points.values))
        shares = points.count(is_chinese(points.values)) / np.maximum(visible, 1)
        return keep_where(self.name, batch, pa.array(shares >= self.least), pa.array(shares), self.least)
