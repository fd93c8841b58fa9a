"""Personal data in documents, masked, or the documents dropped."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import ClassVar, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pangu_alpha.config_checks import require, require_choice
from pangu_alpha.data.document import with_text
from pangu_alpha.data.privacy.kinds import KINDS
from pangu_alpha.data.rule import Outcome, changed, keep_where, pieces

_CANDIDATE = (
    r"[0-9]{5}|[0-9]{4}[- ][0-9]{4}|@|[0-9]\.[0-9]+\.[0-9]+\.[0-9]|[A-Za-z][A-Za-z0-9]{5}|[0-9A-Fa-f]:[0-9A-Fa-f:]+:"
)
"""What every kind has somewhere; documents without it are not looked at closer."""
_BEFORE = 24


class Finding(NamedTuple):
    """A piece of personal data in a text."""

    kind: str
    start: int
    stop: int


@cache
def _pattern(kinds: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(KINDS[name].pattern for name in kinds))


def find_personal_data(text: str, kinds: tuple[str, ...] = tuple(KINDS)) -> Iterator[Finding]:
    """Personal data of `kinds` in a text, from left to right; two never overlap."""
    pattern, place = _pattern(kinds), 0
    while match := pattern.search(text, place):
        kind = match.lastgroup
        assert kind is not None
        start, stop = match.span(kind)
        if KINDS[kind].confirm(text[start:stop], text[max(0, start - _BEFORE) : start]):
            yield Finding(kind, start, stop)
            place = stop
            continue
        other = _other_kind(text, match.start(), kinds[kinds.index(kind) + 1 :])
        if other is not None:
            yield other
            place = other.stop
        else:
            place = match.start() + 1


def _other_kind(text: str, place: int, kinds: tuple[str, ...]) -> Finding | None:
    """What a later kind makes of the same place."""
    for kind in kinds:
        match = _pattern((kind,)).match(text, place)
        if match:
            start, stop = match.span(kind)
            if KINDS[kind].confirm(text[start:stop], text[max(0, start - _BEFORE) : start]):
                return Finding(kind, start, stop)
    return None


@dataclass(frozen=True)
class PersonalData:
    """Mask telephone, identity, card and account numbers, plates, passports, addresses, or drop documents with them.

    Measures how many there are.  Identity numbers must have a region, a date and their check digit (GB 11643), cards
    their check digit (ISO/IEC 7812-1); accounts and passports are taken only beside the word for them, IP addresses
    only if they are public.  Ours: no published pipeline knows Chinese kinds.
    """

    name: ClassVar[str] = "personal_data"
    kinds: tuple[str, ...] = tuple(KINDS)
    """Which kinds."""
    action: str = "mask"
    """mask puts 〔手机号〕 or the like in their place; drop drops the document."""
    most: int = 0
    """With action drop: so many may stay."""

    def __post_init__(self) -> None:
        require_choice("action", self.action, ("mask", "drop"))
        require(bool(self.kinds), "kinds", list(self.kinds), f"allowed: {', '.join(KINDS)}")
        for kind in self.kinds:
            require_choice("kinds", kind, tuple(KINDS))
        require(self.most >= 0, "most", self.most, "it must be 0 or more")

    def apply(self, batch: pa.RecordBatch) -> Outcome:
        """Changes texts, or drops documents."""
        kinds = tuple(kind for kind in KINDS if kind in self.kinds)
        candidates = np.flatnonzero(pc.match_substring_regex(batch["text"], _CANDIDATE).to_numpy(zero_copy_only=False))
        found: dict[int, list[Finding]] = {}
        texts: dict[int, str] = {}
        for row in candidates.tolist():
            text = batch["text"][row].as_py()
            if findings := list(find_personal_data(text, kinds)):
                found[row], texts[row] = findings, text
        counts = np.zeros(batch.num_rows)
        for row, findings in found.items():
            counts[row] = len(findings)
        values = pa.array(counts)
        if self.action == "drop":
            return keep_where(self.name, batch, pa.array(counts <= self.most), values, self.most)
        if not found:
            return changed(batch, batch, values)
        whole = batch["text"].to_pylist()
        parents, taken = [], []
        for row, findings in found.items():
            whole[row] = _masked(texts[row], findings)
            for finding in findings:
                parents.append(row)
                taken.append(f"{finding.kind}: {texts[row][finding.start : finding.stop]}")
        removed = pieces(self.name, batch, pa.array(parents), pa.array(taken, pa.large_string()))
        return changed(batch, with_text(batch, pa.array(whole, pa.large_string())), values, removed)


def _masked(text: str, findings: list[Finding]) -> str:
    parts, place = [], 0
    for finding in findings:
        parts += [text[place : finding.start], KINDS[finding.kind].mask]
        place = finding.stop
    return "".join([*parts, text[place:]])
