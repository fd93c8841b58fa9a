"""Model FLOPs against a count by hand, and the speed of machines."""

from __future__ import annotations

import time

import pytest

from pangu_alpha.config import ModelConfig
from pangu_alpha.train import flops

TOY = ModelConfig(vocab_size=8000, hidden_size=384, num_layers=6, num_heads=6, seq_length=256)


def count_products(config: ModelConfig, causal: bool) -> float:
    """Forward FLOPs of one sample, matrix by matrix, divided by its tokens."""
    batch, seq, hidden, vocab = 1, config.seq_length, config.hidden_size, config.vocab_size

    def product(rows: int, inner: int, columns: int) -> int:
        return 2 * rows * inner * columns

    total = 0.0
    for _ in range(config.num_layers):
        total += 4 * product(batch * seq, hidden, hidden)
        total += product(batch * seq, hidden, config.feed_forward_size)
        total += product(batch * seq, config.feed_forward_size, hidden)
        scores = 2 * config.num_heads * product(seq, config.head_size, seq)
        total += scores / 2 if causal else scores
    return (total + product(batch * seq, hidden, vocab)) / seq


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("query_layer", [True, False])
def test_flops_agree_with_a_count_of_every_product(causal, query_layer):
    config = ModelConfig(
        vocab_size=100,
        hidden_size=48,
        num_layers=3,
        num_heads=4,
        seq_length=10,
        feed_forward_ratio=3.1,
        query_layer=query_layer,
    )
    forward = count_products(config, causal)
    assert flops.model_flops_per_token(config, causal=causal, training=False) == pytest.approx(forward, rel=1e-12)
    assert flops.model_flops_per_token(config, causal=causal) == pytest.approx(3 * forward, rel=1e-12)


def test_known_size():
    assert flops.model_flops_per_token(TOY) / 1e6 == pytest.approx(85.7, abs=0.05)


def test_published_200b_step_is_about_six_times_the_parameters():
    config = ModelConfig(hidden_size=16384, num_layers=64, num_heads=128)
    assert flops.model_flops_per_token(config) == pytest.approx(6 * 206.9e9, rel=0.01)


def test_utilisation():
    assert flops.utilisation(flops_per_token=6e9, tokens_per_second=1000, peak=12e12) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("name", "tera"),
    [
        ("Ascend910", 256),
        ("Ascend910A", 256),
        ("NVIDIA H100 80GB HBM3", 989.4),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H200", 989.4),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("A800", 312),
        ("Tesla V100-SXM2-32GB", 125),
    ],
)
def test_published_peaks(name, tera):
    peak = flops.published_peak(name)
    assert peak is not None
    assert peak.flops == pytest.approx(tera * 1e12)
    assert peak.source.startswith("published: ")


@pytest.mark.parametrize("name", ["Ascend910B3", "Ascend310P", "NVIDIA GeForce RTX 4090", ""])
def test_no_peak_is_invented(name):
    assert flops.published_peak(name) is None
    assert flops.peak_speed("ascend", name) is None


def test_a_given_peak_wins():
    peak = flops.peak_speed("gpu", "NVIDIA H100 PCIe", given_tflops=500)
    assert peak == flops.PeakSpeed(500e12, "given in the configuration")


def test_the_measured_peak_is_what_products_reach():
    start = time.perf_counter()
    peak = flops.measure_matrix_peak()
    # Loose bounds: the machine may be shared.  No processor with a Python is outside of them.
    assert 1e9 < peak < 1e14
    assert time.perf_counter() - start < 30
    again = flops.peak_speed("cpu")
    assert again is not None
    assert again.source.startswith("measured: ")
