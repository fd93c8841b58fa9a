"""Second stage, across all sources: which documents, and which paragraphs, are there already.

What was measured of each batch is small (a signature of 512 bytes a document).  A band, and some thousand pairs to
check, are units of work of their own, so that engines can spread them and a restart goes on with the missing ones.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pangu_alpha.data.dedup.bands import Pairs, band_keys, pairs_of_band
from pangu_alpha.data.dedup.clusters import clusters_of, kept_of_clusters
from pangu_alpha.data.dedup.jaccard import jaccard
from pangu_alpha.data.dedup.shingles import Shingles, essences, shingles_of
from pangu_alpha.data.recipe import Duplicates
from pangu_alpha.data.stages.arrow_files import read_batch
from pangu_alpha.data.stages.clean import DOCUMENTS, NUMBERS, SIGNATURES

PAIRS_AT_ONCE = 2000
KEPT, EXACT, NEAR = 0, 1, 2
"""Reasons of a decision."""


@dataclass(frozen=True)
class Corpus:
    """The cleaned documents of all batches, numbered from 0 in the order of their ids."""

    folders: Sequence[Path]
    """Of the batches."""
    starts: npt.NDArray[np.int64]
    """Number of each batch's first document, and at the end of all documents [batches + 1]."""
    sources: Sequence[int]
    """Place in the recipe of each batch's source."""

    @staticmethod
    def of(folders: Sequence[Path], sources: Sequence[int]) -> Corpus:
        """The corpus of some batches."""
        sizes = [len(numbers_of(folder)["characters"]) for folder in folders]
        return Corpus(folders, np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64), sources)

    @property
    def documents(self) -> int:
        """How many there are."""
        return int(self.starts[-1])

    def all(self, name: str) -> npt.NDArray[Any]:
        """One of the arrays of `clean.write_numbers`, over all batches."""
        return np.concatenate([numbers_of(folder)[name] for folder in self.folders])

    def place(self, document: int) -> tuple[int, int]:
        """Batch and row of a document."""
        batch = int(np.searchsorted(self.starts, document, "right")) - 1
        return batch, int(document - self.starts[batch])


def numbers_of(folder: Path) -> Any:
    """The arrays of a batch."""
    return np.load(folder / NUMBERS)


@dataclass(frozen=True)
class BandSettings:
    """What all bands share."""

    corpus: Corpus
    duplicates: Duplicates
    exact: Path
    """File of `exact_clusters`: documents with an exact duplicate before them are not compared again."""


def find_band_pairs(settings: BandSettings, band: int, folder: Path) -> None:
    """Candidate pairs of one band, as pairs.npy in `folder`."""
    rows = settings.duplicates.permutations // settings.duplicates.bands
    keys = np.concatenate(
        [band_keys(np.load(item / SIGNATURES, mmap_mode="r"), band, rows) for item in settings.corpus.folders]
    )
    exact = np.load(settings.exact)
    compared = np.flatnonzero(exact == np.arange(len(exact)))
    np.save(folder / "pairs.npy", compared[pairs_of_band(keys[compared])])


def measure_pairs(settings: BandSettings, pairs: Pairs, folder: Path) -> None:
    """Exact Jaccard similarity of some candidate pairs, as jaccard.npy in `folder`, float32 [pairs]."""

    @lru_cache(maxsize=64)
    def batch(number: int) -> pa.RecordBatch:
        return read_batch(settings.corpus.folders[number] / DOCUMENTS)

    @lru_cache(maxsize=4 * PAIRS_AT_ONCE)
    def runs(document: int) -> Shingles:
        number, row = settings.corpus.place(document)
        texts = essences(batch(number)["text"].slice(row, 1))
        found, _ = shingles_of(texts, settings.duplicates.run, settings.duplicates.unit == "words")
        return np.unique(found)

    np.save(
        folder / "jaccard.npy",
        np.array([jaccard(runs(int(first)), runs(int(second))) for first, second in pairs], np.float32),
    )


def chunks(pairs: Pairs) -> Iterator[Pairs]:
    """Pairs in parts that are units of work."""
    for start in range(0, len(pairs), PAIRS_AT_ONCE):
        yield pairs[start : start + PAIRS_AT_ONCE]


@dataclass
class Decisions:
    """What becomes of each document and paragraph."""

    kept: npt.NDArray[np.int64]
    """The document that stays in the place of each [documents]; its own number where it stays itself."""
    reason: npt.NDArray[np.uint8]
    """KEPT, EXACT or NEAR [documents]."""
    paragraph_gone: npt.NDArray[np.bool_]
    """Long paragraphs that an earlier kept document has [paragraphs]."""

    def save(self, folder: Path) -> None:
        """As decisions.npz."""
        np.savez(folder / "decisions.npz", **{item.name: getattr(self, item.name) for item in dataclasses.fields(self)})

    @staticmethod
    def load(folder: Path) -> Decisions:
        """Of decisions.npz."""
        stored = np.load(folder / "decisions.npz")
        return Decisions(**{item.name: stored[item.name] for item in dataclasses.fields(Decisions)})


def exact_clusters(corpus: Corpus, duplicates: Duplicates) -> npt.NDArray[np.int64]:
    """The first document that says the same as each, int64 [documents]."""
    if not duplicates.exact or corpus.documents == 0:
        return np.arange(corpus.documents)
    _, first, inverse = np.unique(corpus.all("identity"), axis=0, return_index=True, return_inverse=True)
    clusters: npt.NDArray[np.int64] = first[np.ravel(inverse)]
    return clusters


def decide(corpus: Corpus, duplicates: Duplicates, exact: npt.NDArray[np.int64], near: Pairs) -> Decisions:
    """Which documents stay.

    Args:
        corpus: all documents.
        duplicates: the recipe's.
        exact: of `exact_clusters`.
        near: pairs whose similarity reaches the threshold.
    """
    count = corpus.documents
    same = np.stack([exact, np.arange(count)], 1)[exact != np.arange(count)]
    everything = clusters_of(np.concatenate([same, near]) if len(near) else same, count)
    lengths = corpus.all("characters").astype(np.float64) if count else np.zeros(0)
    orders = np.repeat(np.array(corpus.sources, np.float64), np.diff(corpus.starts))
    qualities = corpus.all("quality").astype(np.float64) if count else np.zeros(0)
    ranks = {"quality": -qualities, "length": -lengths, "source": orders}
    kept = kept_of_clusters(everything, [ranks[preference] for preference in duplicates.prefer])
    reason = np.where(kept == np.arange(count), KEPT, np.where(exact == exact[kept], EXACT, NEAR)).astype(np.uint8)
    return Decisions(kept, reason, _gone_paragraphs(corpus, kept == np.arange(count)))


def _gone_paragraphs(corpus: Corpus, stays: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Paragraphs that an earlier document which stays has already, bool [paragraphs]."""
    found, owners = [], []
    for number, folder in enumerate(corpus.folders):
        numbers = numbers_of(folder)
        found.append(numbers["paragraphs"])
        owners.append(numbers["paragraph_rows"] + corpus.starts[number])
    keys = np.concatenate(found) if found else np.zeros(0, np.uint64)
    gone = np.zeros(len(keys), bool)
    if len(keys):
        owner = np.concatenate(owners)
        alive = np.flatnonzero(stays[owner])
        _, first, inverse = np.unique(keys[alive], return_index=True, return_inverse=True)
        # Inside one document repetition is the rule repeated_paragraphs' business.
        gone[alive] = owner[alive] != owner[alive][first][np.ravel(inverse)]
    return gone
