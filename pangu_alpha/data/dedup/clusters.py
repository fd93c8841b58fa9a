"""Clusters of duplicates, and the one document of each that stays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pangu_alpha.data.dedup.bands import Pairs

PREFERENCES = ("quality", "length", "source")


def clusters_of(pairs: Pairs, documents: int) -> npt.NDArray[np.int64]:
    """The cluster of each document, named by its lowest member, int64 [documents]; pairs in any order give the same."""
    if len(pairs) == 0:
        return np.arange(documents, dtype=np.int64)
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    links = coo_matrix((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), (documents, documents))
    _, labels = connected_components(links, directed=False)
    lowest = np.full(labels.max() + 1, documents, np.int64)
    np.minimum.at(lowest, labels, np.arange(documents))
    return lowest[labels]


def kept_of_clusters(
    clusters: npt.NDArray[np.int64], ranks: Sequence[npt.NDArray[np.float64]]
) -> npt.NDArray[np.int64]:
    """The document that stays of each document's cluster, int64 [documents].

    Args:
        clusters: of `clusters_of`.
        ranks: numbers of which lower is better, the first decides, then the next …, at last the place in the corpus.
    """
    order = np.lexsort([np.arange(len(clusters)), *reversed(list(ranks)), clusters])
    ordered = clusters[order]
    first = np.concatenate([[True], ordered[1:] != ordered[:-1]])
    best = order[np.flatnonzero(first)[np.cumsum(first) - 1]]
    result = np.empty(len(clusters), np.int64)
    result[order] = best
    return result
