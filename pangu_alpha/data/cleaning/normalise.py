"""One spelling for what looks the same: widths, blanks, line ends; and no characters that nobody sees."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pangu_alpha.data.code_points import NEWLINE, CodePoints
from pangu_alpha.data.document import with_text
from pangu_alpha.data.rule import Outcome, changed

_DELETED = 0xFFFFFFFF
_BLANK = 32


@cache
def _table(width: bool) -> npt.NDArray[np.uint32]:
    """What each code point becomes."""
    table = np.arange(0x110000, dtype=np.uint32)
    table[:32] = _DELETED
    table[0x7F:0xA0] = _DELETED  # controls of the second block
    table[9] = _BLANK
    table[NEWLINE] = NEWLINE
    table[0x85] = table[0x2028] = table[0x2029] = NEWLINE
    for blank in (0xA0, 0x1680, *range(0x2000, 0x200B), 0x202F, 0x205F, 0x3000):
        table[blank] = _BLANK
    for invisible in (
        0xAD,
        0x61C,
        0x180E,
        *range(0x200B, 0x2010),
        *range(0x202A, 0x202F),
        *range(0x2060, 0x2070),
        0xFEFF,
    ):
        table[invisible] = _DELETED
    table[0xFFF0:0xFFFD] = _DELETED  # specials; U+FFFD itself tells of garbled text, see mojibake
    table[0xFE00:0xFE10] = _DELETED  # which form of a character is wanted
    table[0xE000:0xF900] = table[0xF0000:0x110000] = _DELETED  # private use
    table[0xE0000:0xE01F0] = _DELETED  # tags
    table[0xFDD0:0xFDF0] = _DELETED
    for plane in range(17):
        table[plane * 0x10000 + 0xFFFE : plane * 0x10000 + 0x10000] = _DELETED  # no characters
    if width:
        for first, last in ((0xFF10, 0xFF1A), (0xFF21, 0xFF3B), (0xFF41, 0xFF5B)):
            table[first:last] = np.arange(first, last) - 0xFEE0
    return table


@dataclass(frozen=True)
class Normalise:
    """Wide letters and digits become narrow, blanks of any kind one blank, three line ends two; what nobody sees goes.

    That is control, private-use and invisible characters.

    Chinese punctuation keeps its width.  Measures the share of characters that went or changed.  Source: what the
    published tokenizer's own normalisation (nmt_nfkc) makes of them anyway, done before anything is counted.
    """

    name: ClassVar[str] = "normalise"
    width: bool = True
    """Whether wide letters and digits become narrow."""

    def apply(self, batch: pa.RecordBatch) -> Outcome:
        """Changes texts, drops none."""
        text = batch["text"]
        if pc.any(pc.match_substring(text, "\r")).as_py():
            text = pc.replace_substring(pc.replace_substring(text, "\r\n", "\n"), "\r", "\n")
        points = CodePoints.of(text)
        values = _table(self.width)[points.values]
        other = values != points.values
        keep = values != _DELETED
        # A run of blanks is one, and none stands at the border of a line.
        kept = points.keep(keep, values)
        blank = kept.values == _BLANK
        border = np.ones(len(blank) + 1, bool)
        border[1:] = blank | (kept.values == NEWLINE)
        border[kept.starts] = True
        kept = kept.keep(~(blank & border[:-1]))
        trailing = self._trailing_blanks(kept)
        kept = kept.keep(~trailing) if trailing.any() else kept
        result = pc.replace_substring_regex(kept.texts(), r"\n{3,}", "\n\n")
        result = pc.utf8_trim(result, "\n ")
        shares = points.count(other) / np.maximum(points.lengths, 1)
        return changed(batch, with_text(batch, result), pa.array(shares))

    @staticmethod
    def _trailing_blanks(points: CodePoints) -> npt.NDArray[np.bool_]:
        """Blanks at the end of a line or text; there are no two in a row."""
        ends = np.zeros(len(points.values) + 1, bool)
        ends[:-1] = points.values == NEWLINE
        ends[points.starts] = True
        return (points.values == _BLANK) & ends[1:]
