"""What `benchmarks/learning.py` feeds the peer: rates, initial values, a made-up task (only where PyTorch is)."""

from __future__ import annotations

import math

import learning
import numpy as np
import pytest
from mindspore import Tensor

from pangu_alpha.config import OptimizerConfig
from pangu_alpha.config_file import load_config
from pangu_alpha.train.schedule import Schedule


@pytest.mark.parametrize("kind", ["cosine", "polynomial", "constant"])
def test_the_rate_is_the_trainers(kind):
    settings = OptimizerConfig(
        learning_rate=2e-3, end_learning_rate=1e-4, warmup_steps=10, decay_steps=50, schedule=kind
    )
    schedule = Schedule(settings)
    for step in (0, 3, 9, 10, 30, 50, 60):
        expected = float(schedule(Tensor(step)).asnumpy().reshape(-1)[0])
        assert learning.rate(settings, step) == pytest.approx(expected, rel=1e-5, abs=1e-12)


def test_waves_make_neighbours_alike():
    table = learning.waves(0, 65, 128)
    assert np.array_equal(learning.waves(1, 64, 128), table[1:])
    assert np.sqrt((table**2).mean(1)) == pytest.approx(np.ones(65), rel=1e-5)
    likeness = table @ table[30] / 128
    assert likeness[30] > likeness[31] > likeness[33] > likeness[40] > 0.3
    assert likeness[29] == pytest.approx(likeness[31], rel=1e-3)


def test_the_query_layer_starts_out_near_the_position_asked_for():
    config = load_config("configs/quickstart.yaml", [*learning.LOOKUP]).config
    rng = np.random.default_rng(0)
    name = "query_layer.block.attention.{}.weight"
    arrays = {name.format(part): rng.standard_normal((128, 128), np.float32) for part in ("query", "key")}
    learning.set_waves(arrays, config, 0.1)
    query = arrays["query_layer.query_table"] @ arrays[name.format("query")].T
    key = arrays["embedding.position_table"] / 0.1 @ arrays[name.format("key")].T
    scores = (query.reshape(64, 4, 32).transpose(1, 0, 2) @ key.reshape(64, 4, 32).transpose(1, 2, 0)) / math.sqrt(32)
    # Row p asks for the token at p + 1: that place scores best, about 16.
    best = scores[:, :60].argmax(-1)
    assert np.abs(best - np.arange(1, 61)).mean() < 2.0
    assert scores[:, np.arange(60), np.arange(1, 61)].mean() == pytest.approx(16.0, rel=0.3)  # a draw of few directions


def test_the_made_up_task_ties_neighbours():
    config = load_config("configs/quickstart.yaml", [*learning.LOOKUP, "data.order=sequential"]).config
    batch = learning.lookup_batches(config)(0)
    pairs = np.stack([batch.tokens.ravel(), batch.labels.ravel()], 1)
    partner = {}
    for token in range(12, 92):
        before = pairs[pairs[:, 1] == token, 0]
        values, counts = np.unique(before, return_counts=True)
        partner[token] = values[counts.argmax()]
    tied = np.mean([partner[after] == before for before, after in pairs])
    assert 0.72 < tied < 0.9
