"""How many near duplicates are found, and how many of those found are some: beside every pair compared."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pangu_alpha.data.dedup.bands import Pairs, band_keys, pairs_of_band, unique_pairs
from pangu_alpha.data.dedup.jaccard import jaccard
from pangu_alpha.data.dedup.minhash import signatures
from pangu_alpha.data.dedup.shingles import Shingles, essences, shingles_of
from pangu_alpha.data.recipe import Duplicates

_HARDEST, _EASIEST = 0.6, 0.95


@dataclass(frozen=True)
class DuplicateQuality:
    """What was found of the true pairs of a sample."""

    documents: int
    true_pairs: int
    """Pairs whose Jaccard similarity reaches the threshold, all pairs compared."""
    found_pairs: int
    precision: float
    recall: float


def measure_duplicates(texts: Sequence[str], duplicates: Duplicates) -> DuplicateQuality:
    """Find near duplicates as the factory does, and by comparing all with all."""
    shingles, starts = shingles_of(
        essences(pa.array(texts, pa.large_string())), duplicates.run, duplicates.unit == "words"
    )
    sets = [np.unique(shingles[begin:end]) for begin, end in itertools.pairwise(starts)]
    true = {(int(first), int(second)) for first, second in _all_pairs(sets, duplicates.threshold)}
    rows = duplicates.permutations // duplicates.bands
    signed = signatures(shingles, starts, duplicates.permutations)
    candidates = unique_pairs([pairs_of_band(band_keys(signed, band, rows)) for band in range(duplicates.bands)])
    found = {
        (first, second)
        for first, second in candidates.tolist()
        if jaccard(sets[first], sets[second]) >= duplicates.threshold
    }
    right = len(true & found)
    return DuplicateQuality(len(texts), len(true), len(found), right / max(1, len(found)), right / max(1, len(true)))


def _all_pairs(sets: Sequence[Shingles], threshold: float) -> Pairs:
    """Pairs of sets whose similarity reaches the threshold: common elements counted by a product of sparse matrices."""
    from scipy.sparse import csr_matrix

    sizes = np.array([len(one) for one in sets])
    _, columns = np.unique(np.concatenate(sets), return_inverse=True)
    whole = csr_matrix(
        (np.ones(len(columns), np.int32), np.ravel(columns), np.concatenate([[0], np.cumsum(sizes)])),
        (len(sets), int(columns.max()) + 1),
    )
    found = []
    for start in range(0, len(sets), 500):
        common = (whole[start : start + 500] @ whole.T).tocoo()
        first, second = common.row + start, common.col
        similarity = common.data / (sizes[first] + sizes[second] - common.data)
        wanted = (first < second) & (similarity >= threshold)
        found.append(np.stack([first[wanted], second[wanted]], 1))
    return np.concatenate(found)


def plant_duplicates(texts: Sequence[str], count: int, seed: int) -> list[str]:
    """The texts and `count` changed copies of some, whose similarity (characters, runs of 5) lies between 0.6 and 0.95.

    Characters are replaced, sentences left out and exchanged, until a drawn similarity is reached.
    """
    draw = random.Random(seed)
    chosen = draw.sample(range(len(texts)), count)
    copies = []
    for number in chosen:
        wanted = draw.uniform(_HARDEST + 0.02, _EASIEST)
        copies.append(_changed(texts[number], wanted, draw))
    return [*texts, *copies]


def _changed(text: str, wanted: float, draw: random.Random) -> str:
    original = _runs(text)
    copy = text
    for _ in range(400):
        kind = draw.random()
        if kind < 0.8:
            place = draw.randrange(len(copy))
            changed = copy[:place] + draw.choice("的一是了我不人在他有") + copy[place + 1 :]
        else:
            parts = copy.split("。")
            place = draw.randrange(len(parts))
            parts.insert(draw.randrange(len(parts)), parts.pop(place)) if kind < 0.9 else parts.pop(place)
            changed = "。".join(parts)
        similarity = jaccard(original, _runs(changed)) if changed else 0.0
        if similarity < _HARDEST + 0.01:
            continue
        copy = changed
        if similarity <= wanted:
            break
    return copy


def _runs(text: str) -> Shingles:
    shingles, _ = shingles_of(essences(pa.array([text], pa.large_string())), 5)
    return np.unique(shingles)
