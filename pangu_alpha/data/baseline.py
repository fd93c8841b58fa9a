"""Bits per character of the held-out text under a character 3-gram model of the training text.

Both texts are spelled back from the packed ids, so the 3-gram model sees exactly what the trained model sees: the text
after the tokenizer's normalisation, characters outside the vocabulary as ⁇, document ends as symbols to predict.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pangu_alpha.data.character_ngram import CharacterTrigram
from pangu_alpha.data.dataset import read_records
from pangu_alpha.data.prepared import Prepared
from pangu_alpha.data.sample_files import SampleFiles
from pangu_alpha.data.tokenizer import END_OF_TEXT, PAD, Tokenizer

_SAMPLES_AT_ONCE = 1024


@dataclass(frozen=True)
class Baseline:
    """What the 3-gram model needs for the held-out text."""

    bits: float
    """Information in the held-out documents, their ends included."""
    bits_per_character: float
    """The same divided by `Prepared.valid_characters`, as for a trained model."""


def measure_baseline(prepared: Prepared) -> Baseline | None:
    """Train the 3-gram model and measure it; None if nothing is held out.

    Args:
        prepared: data of a run.

    Raises:
        PanguError: the data cannot be read.
    """
    if not prepared.valid_tokens:
        return None
    tokenizer = Tokenizer.load(prepared.tokenizer_path)
    model = CharacterTrigram(_texts(prepared.train, tokenizer, first=0))
    # The first token of a held-out sample is not asked for: it is the last of the sample before.
    bits = model.bits(_texts(prepared.valid, tokenizer, first=1))
    return Baseline(bits, bits / prepared.valid_characters)


def _texts(files: SampleFiles, tokenizer: Tokenizer, first: int) -> Iterator[str]:
    """Documents that samples spell, from their token `first` on; what follows the last end is one more."""
    rows = files.rows(np.arange(files.samples, dtype=np.int64))
    begun: list[npt.NDArray[np.int32]] = []
    for ids in read_records(files.files, _SAMPLES_AT_ONCE, rows):
        stream = ids[:, first:].reshape(-1)
        stream = stream[stream != PAD]
        *ended, rest = np.split(stream, np.flatnonzero(stream == END_OF_TEXT) + 1)
        for document in ended:
            yield tokenizer.decode(np.concatenate([*begun, document])[:-1].tolist())
            begun = []
        begun.append(rest)
    unfinished = np.concatenate(begun) if begun else np.zeros(0, np.int32)
    if len(unfinished):
        yield tokenizer.decode(unfinished.tolist())
