"""What documents are compared by: runs of characters, or of words, of what a text says."""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pangu_alpha.data.code_points import CodePoints
from pangu_alpha.data.held_out import essence

Shingles = npt.NDArray[np.uint64]
_MIX = (np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53))
_WORD = re.compile(r"\w+")


def mixed(values: Shingles) -> Shingles:
    """Each number spread over 64 bits (the finalizer of MurmurHash3)."""
    for factor in _MIX:
        values = (values ^ (values >> np.uint64(33))) * factor
    return values ^ (values >> np.uint64(33))


def essences(texts: pa.Array) -> pa.Array:
    """Letters and digits of each text, whatever their width and case: what `held_out.essence` gives, large_string."""
    return pa.array([essence(text) for text in texts.to_pylist()], pa.large_string())


def shingles_of(texts: pa.Array, size: int, words: bool = False) -> tuple[Shingles, npt.NDArray[np.int64]]:
    """One number for each run of `size` characters, or words, of each text; a shorter text is one run.

    Args:
        texts: essences.
        size: characters, or words, of a run.
        words: whether runs are of words (jieba), and not of characters.

    Returns:
        The numbers, uint64 [runs], text after text, and where each text begins, int64 [rows + 1].
    """
    units, starts = _word_numbers(texts) if words else _characters(texts)
    lengths = np.diff(starts)
    counts = np.maximum(lengths - size + 1, np.minimum(lengths, 1))
    begins = np.concatenate([[0], np.cumsum(counts)])
    places = np.arange(begins[-1]) - np.repeat(begins[:-1], counts) + np.repeat(starts[:-1], counts)
    ends = np.repeat(starts[1:], counts)
    padded = np.concatenate([units, np.zeros(size, np.uint64)])
    keys = np.zeros(len(places), np.uint64)
    for place in range(size):
        # What would reach into the next text counts as nothing, so that a short text is one run of its own.
        own = np.where(places + place < ends, padded[places + place], np.uint64(0))
        keys = keys * np.uint64(0x100000001B3) + own
    return mixed(keys), begins


def _characters(texts: pa.Array) -> tuple[Shingles, npt.NDArray[np.int64]]:
    points = CodePoints.of(texts)
    return mixed(points.values.astype(np.uint64)), points.starts


def _word_numbers(texts: pa.Array) -> tuple[Shingles, npt.NDArray[np.int64]]:
    import jieba

    numbers: list[int] = []
    starts = [0]
    for text in texts.to_pylist():
        numbers += [_word_number(word) for word in jieba.cut(text) if _WORD.search(word)]
        starts.append(len(numbers))
    return np.array(numbers, np.uint64), np.array(starts, np.int64)


@lru_cache(maxsize=1 << 18)
def _word_number(word: str) -> int:
    return int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little")
