"""In which order the samples of an epoch are visited: a permutation drawn from (seed, epoch), any part of it at once.

A permutation of n samples is computed where it is needed, in constant memory, by a Feistel network over the smallest
square of a power of two that holds n, walked again from numbers outside (cycle walking).  So a run may start at any
sample without going through those before it, of ten or of a billion.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]

_VISIT_STREAM = 0x7669736974  # keeps these draws apart from any others made of the same seed and epoch
_ROUNDS = 8


def visited_samples(positions: Indices, samples: int, seed: int, shuffle: bool) -> tuple[Indices, Indices]:
    """Epoch and sample at positions of the endless sequence of visits.

    Args:
        positions: int64 [n], counted from the first sample of epoch 0.
        samples: in one epoch.
        seed: of the run.
        shuffle: False visits the samples as they lie.

    Returns:
        epochs and samples, int64 [n] each.
    """
    epochs, places = np.divmod(positions, samples)
    if not shuffle:
        return epochs, places
    result = np.empty_like(places)
    for epoch in np.unique(epochs):
        here = epochs == epoch
        result[here] = permute(places[here], samples, seed, int(epoch))
    return epochs, result


def permute(places: Indices, samples: int, seed: int, epoch: int) -> Indices:
    """Images of `places` (int64, each below `samples`) under the permutation of (seed, epoch)."""
    keys = np.random.SeedSequence((_VISIT_STREAM, seed, epoch)).generate_state(_ROUNDS, np.uint64).astype(np.uint64)
    half_bits = np.uint64(max(1, (max(1, samples - 1).bit_length() + 1) // 2))
    values = _feistel(places.astype(np.uint64), half_bits, keys)
    # Fewer than three in four numbers lie outside, so few walks are long; the walk ends because it is a cycle.
    while (outside := values >= np.uint64(samples)).any():
        values[outside] = _feistel(values[outside], half_bits, keys)
    return values.astype(np.int64)


def _feistel(
    values: npt.NDArray[np.uint64], half_bits: np.uint64, keys: npt.NDArray[np.uint64]
) -> npt.NDArray[np.uint64]:
    mask = (np.uint64(1) << half_bits) - np.uint64(1)
    left, right = values >> half_bits, values & mask
    for key in keys:
        left, right = right, left ^ (_mix(right ^ key) & mask)
    return (left << half_bits) | right


def _mix(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Finaliser of splitmix64 (Steele, Lea and Flood 2014): every input bit moves every output bit."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
