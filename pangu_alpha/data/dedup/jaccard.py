"""The exact measure of two documents: runs that both have, as a share of the runs that either has."""

from __future__ import annotations

import numpy as np

from pangu_alpha.data.dedup.shingles import Shingles


def jaccard(first: Shingles, second: Shingles) -> float:
    """|A and B| / |A or B| of two sets, each a sorted array without repetition."""
    both = len(np.intersect1d(first, second, assume_unique=True))
    either = len(first) + len(second) - both
    return both / either if either else 1.0


def largest_jaccard(first: int, second: int) -> float:
    """The most that two sets of these sizes can reach."""
    return min(first, second) / max(first, second, 1)
