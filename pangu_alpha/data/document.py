"""A document: one text that begins and ends, and where it comes from; alone, and as a row of an Arrow record batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pyarrow as pa

SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("url", pa.string(), nullable=False),
        pa.field("title", pa.string(), nullable=False),
        pa.field("text", pa.large_string(), nullable=False),
    ]
)
"""Columns of a record batch of documents; what is not known is an empty string."""


class Document(NamedTuple):
    """One text and where it comes from."""

    source: str
    """Name of the source that led to it."""
    text: str
    """The whole text, lines separated by a newline."""
    id: str = ""
    """Its place, unique in a corpus and the same in every run: SOURCE/PATH#NUMBER, the number of nine digits, so that
    ids sort as the documents lie."""
    url: str = ""
    """Address of a web page."""
    title: str = ""
    """Its title, where the format has one."""


def to_batch(documents: Sequence[Document]) -> pa.RecordBatch:
    """Documents as a record batch of `SCHEMA`, in their order."""
    columns = [[getattr(document, field.name) for document in documents] for field in SCHEMA]
    return pa.record_batch(
        [pa.array(column, field.type) for column, field in zip(columns, SCHEMA, strict=True)], schema=SCHEMA
    )


def with_text(batch: pa.RecordBatch, text: pa.Array) -> pa.RecordBatch:
    """The same documents with other texts.

    Args:
        batch: of `SCHEMA`.
        text: one large_string (or string) a row.
    """
    return batch.set_column(batch.schema.get_field_index("text"), SCHEMA.field("text"), text.cast(pa.large_string()))
