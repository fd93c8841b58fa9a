"""Fourth stage: the ids of a batch's documents."""

from __future__ import annotations

import itertools
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pangu_alpha.data.stages.select import read_texts
from pangu_alpha.data.tokenizer import END_OF_TEXT, Tokenizer

IDS, ENDS = "ids.npy", "ends.npy"
"""int32 [tokens]: documents one after the other, each with its end token; int64 [rows + 1]: where each begins."""


@lru_cache(maxsize=2)
def _tokenizer(path: Path) -> Tokenizer:
    return Tokenizer.load(path)


def tokenize(vocabulary: Path, selected: Path, folder: Path) -> None:
    """IDS and ENDS of one batch.

    Args:
        vocabulary: the tokenizer's model.
        selected: folder of the batch's final documents.
        folder: where the files go.
    """
    tokenizer = _tokenizer(vocabulary)
    encoded = [tokenizer.encode(text) for text in read_texts(selected).to_pylist()]
    ids = np.fromiter(itertools.chain.from_iterable([*each, END_OF_TEXT] for each in encoded), np.int32)
    np.save(folder / IDS, ids)
    np.save(folder / ENDS, np.concatenate([[0], np.cumsum([len(each) + 1 for each in encoded])]).astype(np.int64))


def ids_of(folder: Path) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """IDS and ENDS of a batch, mapped into memory."""
    return np.load(folder / IDS, mmap_mode="r"), np.load(folder / ENDS)
