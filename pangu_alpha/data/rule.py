"""What every cleaning rule and filter is: a pure function of a record batch of documents.

A rule gives back the rows it keeps, in their order and perhaps with a changed text, and for each row it drops, what it
measured and the threshold that decided.  It looks at nothing but the batch and its own settings, so that one machine,
a cluster and a restart give the same bytes however documents are divided into batches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import pyarrow as pa
import pyarrow.compute as pc

DROPPED = pa.schema(
    [
        ("id", pa.string()),
        ("source", pa.string()),
        ("rule", pa.string()),
        ("value", pa.float64()),
        ("threshold", pa.float64()),
        ("text", pa.large_string()),
    ]
)
"""A document that a rule dropped: as it came to the rule, with what was measured and what was allowed."""

REMOVED = pa.schema([("id", pa.string()), ("source", pa.string()), ("rule", pa.string()), ("piece", pa.large_string())])
"""A piece (lines, a paragraph, a masked number) that a rule took out of a document which it keeps."""


@dataclass(frozen=True)
class Outcome:
    """What a rule made of one record batch."""

    kept: pa.RecordBatch
    """Rows of `document.SCHEMA` that go on, in the order in which they came."""
    dropped: pa.RecordBatch
    """Rows of `DROPPED`, in the order in which they came."""
    removed: pa.RecordBatch
    """Rows of `REMOVED`, documents in the order in which they came."""
    values: pa.Array
    """float64, one a row of the input: what the rule measured there, null where it measured nothing."""


@runtime_checkable
class Rule(Protocol):
    """A frozen dataclass whose fields are the settings that a recipe may give."""

    @property
    def name(self) -> str:
        """Name in recipes and reports, for example chinese_share."""

    def apply(self, batch: pa.RecordBatch) -> Outcome:
        """Apply the rule to documents of `document.SCHEMA`."""


def empty(schema: pa.Schema) -> pa.RecordBatch:
    """A record batch without rows."""
    return pa.record_batch([pa.array([], field.type) for field in schema], schema=schema)


def keep_where(
    rule: str, batch: pa.RecordBatch, keep: pa.Array, values: pa.Array, threshold: float | pa.Array
) -> Outcome:
    """The outcome of a rule that drops documents and changes none.

    Args:
        rule: its name.
        batch: the documents.
        keep: bool, one a row.
        values: float64, what was measured in each row.
        threshold: what decided: one number, or float64, one a row.
    """
    lost = pc.invert(keep)
    rows = batch.filter(lost)
    count = rows.num_rows
    if isinstance(threshold, pa.Array):
        thresholds = threshold.filter(lost)
    else:
        thresholds = pa.repeat(pa.scalar(float(threshold), pa.float64()), count)
    dropped = pa.record_batch(
        [
            rows["id"],
            rows["source"],
            pa.repeat(pa.scalar(rule), count),
            values.filter(lost).cast(pa.float64()),
            thresholds,
            rows["text"],
        ],
        schema=DROPPED,
    )
    return Outcome(batch.filter(keep), dropped, empty(REMOVED), values.cast(pa.float64()))


def changed(
    batch: pa.RecordBatch, kept: pa.RecordBatch, values: pa.Array, removed: pa.RecordBatch | None = None
) -> Outcome:
    """The outcome of a rule that changes documents and drops those of which nothing is left.

    Args:
        batch: the documents as they came.
        kept: the same rows with their new texts.
        values: float64, what was measured in each row.
        removed: pieces that went, of `REMOVED`.
    """
    removed = empty(REMOVED) if removed is None else removed
    nothing_left = pc.equal(pc.binary_length(kept["text"]), 0)
    if not pc.any(nothing_left).as_py():
        return Outcome(kept, empty(DROPPED), removed, values.cast(pa.float64()))
    rows = batch.filter(nothing_left)
    count = rows.num_rows
    dropped = pa.record_batch(
        [rows["id"], rows["source"], pa.repeat(pa.scalar("empty"), count), pa.repeat(pa.scalar(0.0), count),
         pa.repeat(pa.scalar(1.0), count), rows["text"]],
        schema=DROPPED,
    )  # fmt: skip
    return Outcome(kept.filter(pc.invert(nothing_left)), dropped, removed, values.cast(pa.float64()))


def pieces(rule: str, batch: pa.RecordBatch, parents: pa.Array, texts: pa.Array) -> pa.RecordBatch:
    """What a rule took out of documents, as `REMOVED`.

    Args:
        rule: its name.
        batch: the documents.
        parents: int, the row in `batch` of each piece.
        texts: the pieces.
    """
    return pa.record_batch(
        [batch["id"].take(parents), batch["source"].take(parents), pa.repeat(pa.scalar(rule), len(texts)),
         texts.cast(pa.large_string())],
        schema=REMOVED,
    )  # fmt: skip
