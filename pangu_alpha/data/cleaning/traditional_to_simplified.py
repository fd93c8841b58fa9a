"""Traditional characters become simplified ones, by phrases (paper §3.1)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pangu_alpha.data.code_points import CodePoints, is_chinese
from pangu_alpha.data.document import with_text
from pangu_alpha.data.rule import Outcome, changed
from pangu_alpha.errors import PanguError


@cache
def _converter() -> Any:
    try:
        import opencc
    except ImportError as error:
        raise PanguError("the rule traditional_to_simplified needs the package opencc: pip install opencc") from error
    return opencc.OpenCC("t2s")


@cache
def _traditional() -> npt.NDArray[np.bool_]:
    """Which code points the converter changes when they stand alone."""
    points = [*range(0x3400, 0x4DC0), *range(0x4E00, 0xA000), *range(0xF900, 0xFB00)]
    converter = _converter()
    table = np.zeros(0x110000, bool)
    for point in points:
        table[point] = converter.convert(chr(point)) != chr(point)
    return table


@dataclass(frozen=True)
class TraditionalToSimplified:
    """Convert documents that hold traditional characters with OpenCC (t2s, phrase by phrase); none is dropped.

    Measures the share of Chinese characters that are traditional.
    """

    name: ClassVar[str] = "traditional_to_simplified"

    def apply(self, batch: pa.RecordBatch) -> Outcome:
        """Changes texts, drops none."""
        points = CodePoints.of(batch["text"])
        counts = points.count(_traditional()[points.values])
        values = pa.array(counts / np.maximum(points.count(is_chinese(points.values)), 1), pa.float64())
        rows = np.flatnonzero(counts)
        if len(rows) == 0:
            return changed(batch, batch, values)
        texts = batch["text"].to_pylist()
        converter = _converter()
        for row in rows:
            texts[row] = converter.convert(texts[row])
        return changed(batch, with_text(batch, pa.array(texts, pa.large_string())), values)
