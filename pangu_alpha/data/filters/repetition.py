"""Documents that repeat themselves: lines, and n-grams of characters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pangu_alpha.config_checks import require_share
from pangu_alpha.data.code_points import CodePoints, is_space
from pangu_alpha.data.first_places import first_places
from pangu_alpha.data.lines import Lines
from pangu_alpha.data.rule import Outcome, keep_where

_DUPLICATES = {5: 0.198, 6: 0.182, 7: 0.167, 8: 0.154, 9: 0.140, 10: 0.127}
"""n -> most share of characters in n-grams that came before (FineWeb-2, cmn_Hani.yml)."""
_MOST_FREQUENT = {2: 0.256, 3: 0.201, 4: 0.171}
"""n -> most share of characters in the most frequent n-gram (FineWeb-2, cmn_Hani.yml)."""

Share = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Repetition:
    """Drop documents that repeat lines or n-grams too often.

    What is measured is the worst quotient of a share and its threshold; above `most` the document is dropped.

    Thresholds are FineWeb-2's for Chinese: 0.287 of the lines, 0.198 … 0.127 of the characters in repeated 5- to
    10-grams, 0.256, 0.201 and 0.171 in the most frequent 2-, 3- and 4-gram.  Theirs are n-grams of words; these are of
    characters, blanks aside, which are shorter, so that more of them repeat by chance: `scale` widens the thresholds of
    repeated n-grams for it.
    """

    name: ClassVar[str] = "repetition"
    lines: float = 0.287
    """Share of lines that came before in the document."""
    scale: float = 1.5
    """What the thresholds of repeated n-grams are multiplied with."""
    most: float = 1.0
    """Quotient of share and threshold."""

    def __post_init__(self) -> None:
        require_share("lines", self.lines)

    def apply(self, batch: pa.RecordBatch) -> Outcome:
        """Measures the worst quotient."""
        worst = self._lines(batch["text"])
        points = CodePoints.of(batch["text"])
        points = points.keep(~is_space(points.values))
        worst = np.maximum(worst, _most_frequent(points))
        worst = np.maximum(worst, _repeated(points, self.scale))
        return keep_where(self.name, batch, pa.array(worst <= self.most), pa.array(worst), self.most)

    def _lines(self, text: pa.Array) -> Share:
        lines = Lines.of(text)
        filled = np.flatnonzero(lines.lengths > 0)
        codes = pc.dictionary_encode(lines.texts.take(pa.array(filled))).indices.to_numpy()
        keys = lines.parents[filled] * (int(codes.max(initial=0)) + 1) + codes
        _, first = np.unique(keys, return_index=True)
        again = np.zeros(len(lines.parents), bool)
        again[filled] = True
        again[filled[first]] = False
        share = lines.count(again) / np.maximum(lines.count(lines.lengths > 0), 1)
        return share / max(self.lines, 1e-9)


def _keys(points: CodePoints, size: int) -> npt.NDArray[np.uint64]:
    """One number for each n-gram, different in different texts; n-grams across texts are counted in the first."""
    values = points.values.astype(np.uint64)
    keys = np.repeat(np.arange(len(points.starts) - 1, dtype=np.uint64), points.lengths) * np.uint64(0x9E3779B97F4A7C15)
    keys = keys[: max(0, len(values) - size + 1)]
    for place in range(size):
        keys = (keys ^ values[place : place + len(keys)]) * np.uint64(0xFF51AFD7ED558CCD)
        keys ^= keys >> np.uint64(29)
    return keys


def _inside(points: CodePoints, size: int) -> npt.NDArray[np.bool_]:
    """Places where an n-gram begins that ends within its text."""
    ends = np.repeat(points.starts[1:], points.lengths)
    count = max(0, len(points.values) - size + 1)
    return np.arange(count) + size <= ends[:count]


def _most_frequent(points: CodePoints) -> Share:
    rows = len(points.starts) - 1
    worst = np.zeros(rows)
    parents = np.repeat(np.arange(rows), points.lengths)
    for size, threshold in _MOST_FREQUENT.items():
        places = np.flatnonzero(_inside(points, size))
        if len(places) == 0:
            continue
        counts = np.bincount(first_places(_keys(points, size)[places]), minlength=len(places))
        top = np.zeros(rows, np.int64)
        seen = np.flatnonzero(counts > 1)
        np.maximum.at(top, parents[places[seen]], counts[seen])
        share = top * size / np.maximum(points.lengths, 1)
        worst = np.maximum(worst, share / threshold)
        # A longer n-gram is no more frequent than the pairs in it: below this no threshold can be passed.
        if size == 2 and not (share > _MOST_FREQUENT[4] / 2).any():
            break
    return worst


def _repeated(points: CodePoints, scale: float) -> Share:
    rows = len(points.starts) - 1
    worst = np.zeros(rows)
    doubtful = np.arange(rows)
    for size, threshold in _DUPLICATES.items():
        share = _repeated_share(points, size)
        worst[doubtful] = np.maximum(worst[doubtful], share / (threshold * scale))
        # Repeated longer n-grams lie within repeated shorter ones: below the lowest threshold nothing can follow.
        still = share > min(_DUPLICATES.values()) * scale
        if not still.any():
            break
        marked = np.repeat(still, points.lengths)
        values = points.values[marked]
        points = CodePoints(values, np.concatenate([[0], np.cumsum(points.lengths[still])]))
        doubtful = doubtful[still]
    return worst


def _repeated_share(points: CodePoints, size: int) -> Share:
    """Share of each text's characters that lie in an n-gram which came before in the text."""
    places = np.flatnonzero(_inside(points, size))
    if len(places) == 0:
        return np.zeros(len(points.starts) - 1)
    again = first_places(_keys(points, size)[places]) != np.arange(len(places))
    begins = places[again]
    change = np.bincount(begins, minlength=len(points.values) + 1).astype(np.int64)
    change -= np.bincount(begins + size, minlength=len(points.values) + 1)[: len(change)]
    covered = np.cumsum(change)[:-1] > 0
    return points.count(covered) / np.maximum(points.lengths, 1)
