"""Symbols that decorate: bullets, frames, arrows, stars, emoji, rulers of dashes, terminal colour codes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pangu_alpha.config_checks import require_share
from pangu_alpha.data.code_points import CodePoints, is_space
from pangu_alpha.data.document import with_text
from pangu_alpha.data.rule import DROPPED, Outcome, changed

_COLOUR = r"\x1b?\[[0-9;]{0,8}m"
_RULER = r"[-=_*~#+.·—―─━…]{6,}"


def _is_symbol(values: npt.NDArray[np.uint32]) -> npt.NDArray[np.bool_]:
    """Arrows, technical signs, frames, blocks, shapes, dingbats, emoji, replacement marks; not mathematics, ℃ or №."""
    return (
        ((values >= 0x2190) & (values <= 0x21FF))
        | ((values >= 0x2300) & (values <= 0x245F))
        | ((values >= 0x2500) & (values <= 0x27BF))
        | ((values >= 0x2900) & (values <= 0x297F))
        | ((values >= 0x2B00) & (values <= 0x2BFF))
        | ((values >= 0x1F000) & (values <= 0x1FAFF))
        | (values == 0x2022)
        | (values == 0x2023)
        | (values == 0x203B)
        | (values == 0x3013)
    )


@dataclass(frozen=True)
class SpecialSymbols:
    """Remove decorating symbols, rulers and colour codes; drop documents of which they are more than `most`.

    Measures the share of characters that are such symbols.  Source: paper §3.1 (special symbols are removed); the
    share is that of Data-Juicer's Chinese recipe for special characters.
    """

    name: ClassVar[str] = "special_symbols"
    most: float = 0.25
    """Share of a document's visible characters."""

    def __post_init__(self) -> None:
        require_share("most", self.most)

    def apply(self, batch: pa.RecordBatch) -> Outcome:
        """Changes texts, drops those made of symbols."""
        text = batch["text"]
        if pc.any(pc.match_substring_regex(text, _COLOUR)).as_py():
            text = pc.replace_substring_regex(text, _COLOUR, "")
        points = CodePoints.of(text)
        symbol = _is_symbol(points.values)
        shares = points.count(symbol) / np.maximum(points.count(~is_space(points.values)), 1)
        values = pa.array(shares, pa.float64())
        cleaned = points.keep(~symbol).texts() if symbol.any() else text
        cleaned = pc.replace_substring_regex(cleaned, _RULER, "")
        cleaned = pc.replace_substring_regex(cleaned, r"(?m)^[ \t]+|[ \t]+$", "")
        cleaned = pc.utf8_trim(pc.replace_substring_regex(cleaned, r"\n{3,}", "\n\n"), "\n ")
        too_many = shares > self.most
        rows = batch.filter(pa.array(too_many))
        dropped = pa.record_batch(
            [rows["id"], rows["source"], pa.repeat(pa.scalar(self.name), rows.num_rows),
             values.filter(pa.array(too_many)), pa.repeat(pa.scalar(float(self.most)), rows.num_rows), rows["text"]],
            schema=DROPPED,
        )  # fmt: skip
        stays = pa.array(~too_many)
        rest = changed(batch.filter(stays), with_text(batch, cleaned).filter(stays), values.filter(stays))
        return Outcome(rest.kept, pa.concat_batches([dropped, rest.dropped]), rest.removed, values)
