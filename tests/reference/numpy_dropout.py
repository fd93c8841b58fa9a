"""The counter-based dropout masks once more, in Python integers and NumPy, from the description alone."""

from __future__ import annotations

import numpy as np

WORD = 1 << 32
GOLDEN = 0x9E3779B9


def mix(values: np.ndarray | int) -> np.ndarray:
    """Unsigned 32-bit integers [n], kept in uint64 so that products don't wrap before they are cut."""
    values = np.atleast_1d(values).astype(np.uint64) % WORD
    values = ((values ^ (values >> 16)) * 0x7FEB352D) % WORD
    values = ((values ^ (values >> 15)) * 0x846CA68B) % WORD
    return values ^ (values >> 16)


def key_of(seed: int, micro_step: int) -> int:
    """The key of a micro step's masks."""
    return int(mix(int(mix(micro_step)[0]) ^ ((seed * GOLDEN + 1) % WORD))[0])


def kept(shape: tuple[int, ...], key: int, site: int, rate: float, first_row: int = 0) -> np.ndarray:
    """bool of `shape`: which elements stay.  `first_row` is where these rows begin in a larger tensor."""
    rows = int(np.prod(shape[:-1]))
    row_words = mix(np.arange(first_row, first_row + rows) ^ ((key + (site + 1) * GOLDEN) % WORD))
    column_words = mix(np.arange(shape[-1]))
    words = mix(row_words[:, None] ^ column_words[None, :])
    return (words < int((1.0 - rate) * WORD)).reshape(shape)


class Drop:
    """Dropout as `numpy_pangu` calls it: (site, rows [n, columns], index of the first row) -> the same shape."""

    def __init__(self, rate: float, seed: int, micro_step: int) -> None:
        self.rate, self.key = rate, key_of(seed, micro_step)

    def __call__(self, site: int, values: np.ndarray, first_row: int) -> np.ndarray:
        return values * kept(values.shape, self.key, site, self.rate, first_row) / (1.0 - self.rate)
