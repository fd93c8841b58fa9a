"""A document: one text that begins and ends, and where it comes from."""

from __future__ import annotations

from typing import NamedTuple


class Document(NamedTuple):
    """One text and its source."""

    source: str
    """Name in `data.sources` that led to it."""
    text: str
    """The whole text, lines separated by a newline."""
