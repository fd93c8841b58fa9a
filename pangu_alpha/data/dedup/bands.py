"""Candidate pairs: documents whose signatures agree in all rows of a band (locality-sensitive hashing)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pangu_alpha.data.dedup.minhash import Signatures
from pangu_alpha.data.dedup.shingles import Shingles, mixed

Pairs = npt.NDArray[np.int64]
LARGEST_BUCKET = 24
"""In a bucket of more documents each is compared with the first alone, so that work stays in proportion to it."""


def band_keys(signatures: Signatures, band: int, rows: int) -> Shingles:
    """One number for each document's part of a signature in `band` of `rows` rows, uint64 [documents]."""
    keys = np.zeros(len(signatures), np.uint64)
    for row in range(band * rows, (band + 1) * rows):
        keys = mixed(keys ^ signatures[:, row].astype(np.uint64))
    return keys


def pairs_of_band(keys: Shingles) -> Pairs:
    """Pairs (lower, higher) of documents with equal keys, int64 [pairs, 2].

    Args:
        keys: uint64 [documents].
    """
    order = np.argsort(keys, kind="stable").astype(np.int64)
    ordered = keys[order]
    borders = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1], [True]]))
    found: list[Pairs] = []
    sizes = np.diff(borders)
    for size in np.unique(sizes[sizes > 1]):
        # Members of all buckets of this size, in rising order: the sort is stable.
        members = order[borders[:-1][sizes == size][:, None] + np.arange(size)]
        if size <= LARGEST_BUCKET:
            first, second = np.triu_indices(size, 1)
        else:
            first, second = np.zeros(size - 1, int), np.arange(1, size)
        found.append(np.stack([members[:, first].ravel(), members[:, second].ravel()], 1))
    return np.concatenate(found) if found else np.zeros((0, 2), np.int64)


def unique_pairs(parts: list[Pairs]) -> Pairs:
    """All pairs once, sorted."""
    everything = np.concatenate(parts) if parts else np.zeros((0, 2), np.int64)
    return np.unique(everything, axis=0) if len(everything) else everything


def probability_of_candidate(jaccard: float, bands: int, rows: int) -> float:
    """How probable a pair of that similarity is to become a candidate: 1 - (1 - J^rows)^bands."""
    return float(1.0 - (1.0 - jaccard**rows) ** bands)
