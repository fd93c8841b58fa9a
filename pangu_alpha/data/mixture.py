"""The order in which samples of several sources are trained on, by their weights (paper Table 4).

Positions 0, 1, 2 … of one endless sequence fall into blocks; in each block every source has its share of the places,
which are drawn from (seed, block).  A source's own samples come epoch after epoch, each epoch in an order drawn from
(seed, source, epoch).  So the sample at any position is known at once: a resumed run, and every data-parallel rank,
asks for the positions it needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from pangu_alpha.data.sample_order import visited_samples

BLOCK = 4096
"""Places of a block: weights are met to one in so many."""
_STREAM = 0x6D697874757265  # keeps these draws apart from any others made of the same seed

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class MixturePart:
    """One source's samples, which lie one after the other in the files."""

    source: str
    samples: int
    weight: float
    """Its share of the samples trained on, before all weights are divided by their sum."""


def shares_of_block(parts: Sequence[MixturePart]) -> Numbers:
    """Places of each source in a block, int64 [sources], in sum BLOCK (largest remainders get what is left over)."""
    weights = np.array([part.weight for part in parts], np.float64)
    exact = weights / weights.sum() * BLOCK
    places = np.floor(exact).astype(np.int64)
    for source in np.argsort(places - exact, kind="stable")[: BLOCK - int(places.sum())]:
        places[source] += 1
    return places


@lru_cache(maxsize=8)
def _block(shares: tuple[int, ...], seed: int, number: int) -> tuple[Numbers, Numbers]:
    """The source at each place of a block, and how many places before have the same one."""
    sources = np.repeat(np.arange(len(shares)), shares)
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence((_STREAM, seed, number))))
    sources = sources[generator.permutation(BLOCK)]
    before = np.empty(BLOCK, np.int64)
    for source in range(len(shares)):
        own = sources == source
        before[own] = np.arange(int(own.sum()))
    return sources, before


def mixed_samples(
    positions: Numbers, parts: Sequence[MixturePart], seed: int, shuffle: bool
) -> tuple[Numbers, Numbers]:
    """Epoch of its source, and number over all sources, of the sample at each position of the endless sequence.

    Args:
        positions: int64 [n].
        parts: sources in the order in which their samples lie.
        seed: of the run.
        shuffle: whether a source's epoch is visited in a drawn order.

    Returns:
        int64 [n] each.
    """
    shares = shares_of_block(parts)
    starts = np.concatenate([[0], np.cumsum([part.samples for part in parts])])
    epochs, samples = np.empty_like(positions), np.empty_like(positions)
    blocks, places = positions // BLOCK, positions % BLOCK
    for number in np.unique(blocks):
        inside = np.flatnonzero(blocks == number)
        sources, before = _block(tuple(shares.tolist()), seed, int(number))
        own, count = sources[places[inside]], before[places[inside]]
        for source in np.unique(own):
            chosen = inside[own == source]
            drawn = number * shares[source] + count[own == source]
            # Each source draws its orders of a seed of its own.
            of_source = int(np.random.SeedSequence((_STREAM, seed, int(source))).generate_state(1)[0])
            epochs[chosen], local = visited_samples(drawn, parts[source].samples, of_source, shuffle)
            samples[chosen] = starts[source] + local
    return epochs, samples
