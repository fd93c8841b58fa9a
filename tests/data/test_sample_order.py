from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pangu_alpha.data.sample_files import SampleFiles
from pangu_alpha.data.sample_order import permute, visited_samples


@settings(max_examples=50)
@given(st.integers(1, 3000), st.integers(0, 5), st.integers(0, 5))
def test_every_sample_is_visited_once_an_epoch(samples: int, seed: int, epoch: int) -> None:
    order = permute(np.arange(samples), samples, seed, epoch)
    assert sorted(order.tolist()) == list(range(samples))


def test_any_part_can_be_asked_for_alone() -> None:
    positions = np.arange(2000)
    epochs, samples = visited_samples(positions, 700, 3, True)
    assert epochs.tolist() == (positions // 700).tolist()
    for start in (0, 1, 699, 700, 1234):
        part_epochs, part = visited_samples(positions[start : start + 50], 700, 3, True)
        assert (part == samples[start : start + 50]).all() and (part_epochs == epochs[start : start + 50]).all()
    assert (samples[:700] != samples[700:1400]).any()
    assert (samples[:700] != visited_samples(positions[:700], 700, 4, True)[1]).any()
    assert (visited_samples(positions, 700, 3, False)[1] == positions % 700).all()


def test_a_billion_samples_cost_nothing() -> None:
    order = permute(np.arange(10**9 - 1000, 10**9), 10**9, 1, 0)
    assert len(set(order.tolist())) == 1000 and order.max() < 10**9 and order.min() >= 0
    assert abs(order.mean() / 1e9 - 0.5) < 5 * (1 / 12 / 1000) ** 0.5


@pytest.mark.parametrize("samples", [5, 60])
def test_every_sample_is_as_likely_at_a_place(samples: int) -> None:
    """Chi-square of what stands first, over epochs: four standard deviations above its mean at most."""
    draws = 3000
    counts = Counter(int(permute(np.array([0]), samples, 1, epoch)[0]) for epoch in range(draws))
    expected = draws / samples
    chi_square = sum((counts[sample] - expected) ** 2 / expected for sample in range(samples))
    assert chi_square < samples - 1 + 4 * (2 * (samples - 1)) ** 0.5


def test_neighbours_do_not_stay_together() -> None:
    order = permute(np.arange(10_000), 10_000, 1, 0)
    apart = np.abs(np.diff(order))
    assert (apart == 1).sum() < 10
    assert abs(apart.mean() / 10_000 - 1 / 3) < 0.02  # two independent places are a third of the range apart


def test_the_order_of_a_key_never_changes() -> None:
    assert permute(np.arange(12), 12, 1, 0).tolist() == [0, 6, 10, 2, 8, 3, 7, 9, 11, 1, 4, 5]


def test_excluded_rows_are_passed_over(tmp_path: Path) -> None:
    excluded = np.array([0, 1, 5, 9])
    np.save(tmp_path / "excluded.npy", excluded)
    files = SampleFiles((), 6, tmp_path / "excluded.npy")
    assert files.rows(np.arange(6)).tolist() == [row for row in range(10) if row not in excluded]
    assert SampleFiles((), 6).rows(np.arange(6)).tolist() == list(range(6))
