"""Where each number of a long array first occurs, faster than by sorting."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_SPREAD = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F))


def first_places(keys: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    """The first place of an equal number, for each place.

    Numbers are spread over a table; those that meet a different one there are looked at again with another spread.

    Args:
        keys: uint64 [n].

    Returns:
        int64 [n].
    """
    places = np.arange(len(keys), dtype=np.int64)
    result = places.copy()
    left = places
    turn = 0
    while len(left):
        if turn == 2 * len(_SPREAD):  # few are left; sorting ends it for certain
            _, first, inverse = np.unique(keys[left], return_index=True, return_inverse=True)
            result[left] = left[first][np.ravel(inverse)]
            break
        own = keys[left]
        bits = max(8, int(2 * len(left)).bit_length())
        factor = _SPREAD[turn % len(_SPREAD)] + np.uint64(2 * turn)
        slots = ((own * factor) >> np.uint64(64 - bits)).astype(np.int64)
        table = np.empty(1 << bits, np.int32 if len(keys) < 2**31 else np.int64)
        table[slots[::-1]] = np.arange(len(left) - 1, -1, -1, dtype=table.dtype)  # the earliest is written last
        found = table[slots]
        same = own[found] == own
        result[left[same]] = left[found[same]]
        left = left[~same]
        turn += 1
    return result
