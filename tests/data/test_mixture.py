"""The mixture of sources: weights met, every sample of a source once an epoch, any position known at once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pangu_alpha.data.mixture import BLOCK, MixturePart, mixed_samples, shares_of_block

PARTS = (MixturePart("新闻", 1000, 22.0), MixturePart("百科", 300, 23.0), MixturePart("书", 5000, 55.0))


def test_weights_of_table_4_are_met() -> None:
    assert shares_of_block(PARTS).sum() == BLOCK
    epochs, samples = mixed_samples(np.arange(5 * BLOCK), PARTS, 1, True)
    sources = np.searchsorted([1000, 1300, 6300], samples, "right")
    shares = np.bincount(sources, minlength=3) / len(samples)
    np.testing.assert_allclose(shares, [0.22, 0.23, 0.55], atol=1 / BLOCK)
    # Of 5 x 4,096 places 23 % are the encyclopedia's: its 300 samples come 15 times, and some once more.
    for source, (start, count) in enumerate([(0, 1000), (1000, 300), (1300, 5000)]):
        own = sources == source
        for epoch in range(int(epochs[own].max())):
            visited = samples[own][epochs[own] == epoch] - start
            assert sorted(visited) == list(range(count))
    first = samples[(sources == 1) & (epochs == 0)]
    second = samples[(sources == 1) & (epochs == 1)]
    assert (first != second).any()


@given(st.integers(0, 3 * BLOCK), st.integers(1, 200), st.integers(1, 5))
def test_any_position_is_known_at_once(start: int, count: int, seed: int) -> None:
    whole = mixed_samples(np.arange(start + count), PARTS, seed, True)
    part = mixed_samples(np.arange(start, start + count), PARTS, seed, True)
    assert (whole[0][start:] == part[0]).all() and (whole[1][start:] == part[1]).all()
    strided = mixed_samples(np.arange(start, start + count, 3), PARTS, seed, True)
    assert (strided[1] == part[1][::3]).all()


def test_seeds_and_order() -> None:
    positions = np.arange(500)
    assert (mixed_samples(positions, PARTS, 1, True)[1] != mixed_samples(positions, PARTS, 2, True)[1]).any()
    _, plain = mixed_samples(positions, PARTS, 1, False)
    assert (np.diff(plain[plain < 1000]) == 1).all()  # as they lie


def test_largest_remainders() -> None:
    parts = [MixturePart(str(number), 10, 1.0) for number in range(3)]
    assert sorted(shares_of_block(parts)) == [BLOCK // 3, BLOCK // 3, BLOCK - 2 * (BLOCK // 3)]
    assert shares_of_block([MixturePart("a", 1, 1.0)]).tolist() == [BLOCK]
    assert pytest.approx(1.0) == shares_of_block(PARTS).sum() / BLOCK
