"""Batches for an emulated run: random tokens in documents, ordered as the run orders them."""

from __future__ import annotations

import numpy as np

from pangu_alpha.config import Config
from pangu_alpha.data.order import Batch, arrange_samples
from pangu_alpha.data.tokenizer import END_OF_TEXT, PAD

_STREAM = 0x656D756C617465  # keeps these draws apart from any others made of the same seed


def batch_of_step(config: Config, step: int) -> Batch:
    """The whole batch of a step, int32 [train.batch_size, model.seq_length] each, a function of (seed, step).

    Documents end at about every eighth token, and every fourth sample ends in padding, so that masks, positions and the
    number of counted tokens differ between the ranks.
    """
    rows, length = config.train.batch_size, config.model.seq_length + 1
    seed = np.random.SeedSequence((_STREAM, config.train.seed, step))
    generator = np.random.Generator(np.random.Philox(seed))
    first = END_OF_TEXT + 1 if config.model.vocab_size > END_OF_TEXT + 1 else 0
    ids = generator.integers(first, config.model.vocab_size, (rows, length))
    ids[generator.random(ids.shape) < 1 / 8] = END_OF_TEXT
    for row in range(3, rows, 4):
        ids[row, length - 1 - row % (length // 2) :] = PAD
    numbers = range(step * rows, (step + 1) * rows)
    return arrange_samples(ids, [0] * rows, list(numbers), config.train.seed, config.data)
