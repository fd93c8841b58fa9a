"""Rules applied one after the other to a record batch, and what the report wants to know of each."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pangu_alpha.data.recipe import RuleEntry
from pangu_alpha.data.rule import Outcome

LENGTH_EDGES = np.array([0, *np.round(np.geomspace(8, 2**21, 37)).astype(int)])
"""Borders of the histogram of lengths, characters."""
_VALUE_BINS = 40
_SHOWN = 600
"""Characters of a sample."""


def length_histogram(text: pa.Array) -> list[int]:
    """Documents in each bin of LENGTH_EDGES."""
    lengths = pc.utf8_length(text).to_numpy(zero_copy_only=False)
    counts: list[int] = np.histogram(lengths, LENGTH_EDGES)[0].tolist()
    return counts


def value_histogram(values: np.ndarray) -> dict[str, int]:
    """How many documents measured what, by bins of a logarithmic scale; 0 is one of its own."""
    values = values[np.isfinite(values)]
    if len(values) == 0:
        return {}
    bins = np.full(len(values), -_VALUE_BINS * 2)
    positive = values > 1e-4
    bins[positive] = np.floor(np.log10(values[positive]) * 8).astype(int)
    names, counts = np.unique(bins, return_counts=True)
    return {str(name): int(count) for name, count in zip(names, counts, strict=True)}


def sample_rank(identifier: str, rule: str) -> str:
    """Documents with the lowest ranks are shown: at random, yet the same in every run."""
    return hashlib.blake2b(f"{rule} {identifier}".encode(), digest_size=8).hexdigest()


@dataclass
class RuleResult:
    """What one rule did to one batch."""

    rule: str
    documents: int = 0
    """That came to it."""
    characters: int = 0
    dropped: int = 0
    dropped_characters: int = 0
    changed: int = 0
    """Documents kept with another text."""
    removed_characters: int = 0
    """Of documents that were kept."""
    pieces: int = 0
    """That it took out."""
    seconds: float = 0.0
    values: dict[str, int] = field(default_factory=dict)
    samples: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """dropped, kept, removed -> entries with rank, id, value, threshold, text."""


def apply_rules(
    batch: pa.RecordBatch, entries: Sequence[RuleEntry], source: str, samples: int
) -> tuple[pa.RecordBatch, list[RuleResult]]:
    """All rules of a recipe that are for a source.

    Args:
        batch: documents of one source.
        entries: of the recipe.
        source: name.
        samples: entries of each kind to show.

    Returns:
        The documents that are left, and what each rule did.
    """
    results = []
    for entry in entries:
        if not entry.is_for(source):
            continue
        started = time.process_time()
        outcome = entry.rule.apply(batch)
        seconds = time.process_time() - started
        results.append(_result(entry.rule.name, batch, outcome, seconds, samples))
        batch = outcome.kept
    return batch, results


def _characters(texts: pa.Array) -> int:
    return int(pc.sum(pc.utf8_length(texts)).as_py() or 0)


def _result(rule: str, batch: pa.RecordBatch, outcome: Outcome, seconds: float, samples: int) -> RuleResult:
    values = outcome.values.to_numpy(zero_copy_only=False)
    before = _characters(batch["text"])
    lost = _characters(outcome.dropped["text"])
    stayed = batch
    if outcome.dropped.num_rows:
        stayed = batch.filter(pc.invert(pc.is_in(batch["id"], outcome.dropped["id"])))
    altered = int(pc.sum(pc.not_equal(stayed["text"], outcome.kept["text"])).as_py() or 0)
    threshold = outcome.dropped["threshold"][0].as_py() if outcome.dropped.num_rows else None
    dropped = [
        {"value": row["value"], "threshold": row["threshold"], "id": row["id"], "text": row["text"][:_SHOWN]}
        for row in _lowest(outcome.dropped, rule, samples)
    ]
    measured = dict(zip(batch["id"].to_pylist(), values.tolist(), strict=True)) if batch.num_rows else {}
    kept = [
        {"value": measured[row["id"]], "threshold": threshold, "id": row["id"], "text": row["text"][:_SHOWN]}
        for row in _lowest(outcome.kept, rule, samples)
    ]
    removed = [{"id": row["id"], "text": row["piece"][:_SHOWN]} for row in _lowest(outcome.removed, rule, samples)]
    shown = {"dropped": dropped, "kept": kept, "removed": removed}
    for entries in shown.values():
        for entry in entries:
            entry["rank"] = sample_rank(entry["id"], rule)
    return RuleResult(
        rule,
        batch.num_rows,
        before,
        outcome.dropped.num_rows,
        lost,
        altered,
        before - lost - _characters(outcome.kept["text"]),
        outcome.removed.num_rows,
        seconds,
        value_histogram(values),
        shown,
    )


def _lowest(batch: pa.RecordBatch, rule: str, count: int) -> list[dict[str, Any]]:
    """The rows that are shown, lowest rank first; one a document."""
    if batch.num_rows == 0 or count == 0:
        return []
    places: dict[str, int] = {}
    for place, identifier in enumerate(batch["id"].to_pylist()):
        places.setdefault(identifier, place)
    chosen = sorted(places, key=lambda identifier: sample_rank(identifier, rule))[:count]
    rows: list[dict[str, Any]] = batch.take(pa.array([places[identifier] for identifier in chosen])).to_pylist()
    return rows
