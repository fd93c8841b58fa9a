"""The published sizes, by what weights tell of themselves; a test holds them against configs/models/."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PublishedShape:
    """A published model: what its weights show, and what they don't."""

    name: str
    hidden_size: int
    num_layers: int
    num_heads: int
    final_norm: str


PUBLISHED_SHAPES = (
    PublishedShape("350m", 1024, 24, 16, "before_query"),
    PublishedShape("1.3b", 1024, 16, 32, "before_query"),
    PublishedShape("2.6b", 2560, 32, 32, "before_query"),
    PublishedShape("13b", 5120, 40, 40, "before_query"),
    PublishedShape("200b", 16384, 64, 128, "after_query"),
)


def published_shape(hidden_size: int, num_layers: int) -> PublishedShape | None:
    """The published size of this width and number of layers."""
    matches = [s for s in PUBLISHED_SHAPES if (s.hidden_size, s.num_layers) == (hidden_size, num_layers)]
    return matches[0] if matches else None
