"""Text that was read in a wrong encoding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa

from pangu_alpha.config_checks import require_share
from pangu_alpha.data.code_points import CodePoints, is_chinese, is_space
from pangu_alpha.data.rule import Outcome, keep_where

# What UTF-8 and its replacement marks look like when they are read as GBK: 锟斤拷, 烫烫烫, 鈥, 銆 …
_TELLING = np.array(
    sorted({ord(character) for character in "锟斤拷烫屯鈥銆鏄鐨鍦浜涓璁闃绗鍒鎴鍏鑷涔瀹缁鏃堕棿"}), np.uint32
)


@dataclass(frozen=True)
class Mojibake:
    """Drop documents of whose visible characters more than `most` tell of a wrong encoding.

    Counted are U+FFFD; Latin letters with accents and other signs of Windows-1252 where they stand between their like,
    as UTF-8 read as Latin looks; and characters that GBK makes of UTF-8.  A share and not a single one decides: a page
    may quote one.  Ours; ChineseWebText drops by 锟斤拷 alone.
    """

    name: ClassVar[str] = "mojibake"
    most: float = 0.05
    """Share in [0, 1]."""

    def __post_init__(self) -> None:
        require_share("most", self.most)

    def apply(self, batch: pa.RecordBatch) -> Outcome:
        """Measures the share."""
        points = CodePoints.of(batch["text"])
        values = points.values
        accented = ((values >= 0xC0) & (values <= 0xFF)) | ((values >= 0x80) & (values < 0xC0))
        neighbours = np.zeros(len(values), bool)
        if len(values) > 1:
            both = accented[1:] & accented[:-1]
            borders = points.starts[1:-1]
            both[borders[(borders > 0) & (borders < len(values))] - 1] = False  # another text's are no neighbours
            neighbours[1:] |= both
            neighbours[:-1] |= both
        bad = (values == 0xFFFD) | neighbours | (np.isin(values, _TELLING) & is_chinese(values))
        shares = points.count(bad) / np.maximum(points.count(~is_space(values)), 1)
        return keep_where(self.name, batch, pa.array(shares <= self.most), pa.array(shares), self.most)
