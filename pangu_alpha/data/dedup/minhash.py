"""MinHash signatures: of each of many random orders of all runs, the first that a document has (Broder 1997)."""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

from pangu_alpha.data.dedup.shingles import Shingles

Signatures = npt.NDArray[np.uint32]
_SEED = 0x6D696E68617368  # never changes: signatures of different days are compared
_AT_ONCE = 1 << 15  # runs whose orders fit into the processor's cache


@cache
def _orders(count: int) -> tuple[Shingles, Shingles]:
    generator = np.random.Generator(np.random.Philox(_SEED))
    factors = generator.integers(1, 2**64, count, np.uint64, endpoint=False) | np.uint64(1)
    return factors, generator.integers(0, 2**64, count, np.uint64, endpoint=False)


def signatures(shingles: Shingles, starts: npt.NDArray[np.int64], permutations: int) -> Signatures:
    """Signatures of texts.

    Args:
        shingles: uint64 [runs], see `shingles_of`.
        starts: int64 [rows + 1], where each text's begin; every text needs at least one.
        permutations: numbers of a signature.

    Returns:
        uint32 [rows, permutations]: the upper halves of the smallest products, as of multiply-shift hashing.
    """
    factors, offsets = _orders(permutations)
    rows = len(starts) - 1
    result = np.full((rows, permutations), 0xFFFFFFFF, np.uint32)
    # Blocks of whole rows, but for a row longer than a block, whose parts are put together.
    borders = np.unique(np.concatenate([starts, np.arange(0, starts[-1], _AT_ONCE)]))
    parents = np.searchsorted(starts, borders[:-1], "right") - 1
    block = 0
    while block < len(parents):
        last = max(block + 1, int(np.searchsorted(borders, borders[block] + _AT_ONCE, "right")) - 1)
        part = shingles[borders[block] : borders[last]]
        inner = (borders[block:last] - borders[block]).astype(np.int64)
        owners = parents[block:last]
        for number in range(permutations):
            ordered = ((part * factors[number] + offsets[number]) >> np.uint64(32)).astype(np.uint32)
            np.minimum.at(result[:, number], owners, np.minimum.reduceat(ordered, inner))
        block = last
    return result
