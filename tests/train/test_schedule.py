"""The learning rate at published steps, against the formulas written out."""

from __future__ import annotations

import math

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from pangu_alpha.config import OptimizerConfig
from pangu_alpha.parallel.context import set_single_device_context
from pangu_alpha.train.schedule import Schedule

PUBLISHED = {  # peak and floor of the official code (2.6B, 13B, 200B), warmup 2000, 80,000 decay steps
    "2.6b": (1e-4, 1e-6),
    "13b": (5e-5, 1e-6),
    "200b": (6e-5, 6e-6),
}
STEPS = [0, 1, 2, 1000, 1999, 2000, 2001, 10_000, 40_000, 70_000, 79_999, 80_000, 80_001, 1_000_000]


def rates(config: OptimizerConfig, steps) -> list[float]:
    set_single_device_context("cpu")
    schedule = Schedule(config)
    return [float(schedule(Tensor(step, ms.int32)).asnumpy()) for step in steps]


@pytest.mark.parametrize("model", PUBLISHED)
def test_published_steps(model):
    peak, floor = PUBLISHED[model]
    config = OptimizerConfig(learning_rate=peak, end_learning_rate=floor)
    assert (config.warmup_steps, config.decay_steps, config.schedule) == (2000, 80_000, "cosine")

    def formula(step: int) -> float:
        if step < 2000:
            return peak * step / 2000
        return floor + (peak - floor) / 2 * (1 + math.cos(math.pi * min(step, 80_000) / 80_000))

    assert rates(config, STEPS) == pytest.approx([formula(step) for step in STEPS], rel=2e-5)


def test_some_of_them_in_digits():
    # 2.6B: nothing at first, half the peak at 1000; 2000 is past the crest of a cosine that began at step 0.
    found = rates(OptimizerConfig(), [0, 1000, 2000, 40_000, 80_000])
    assert found == pytest.approx([0.0, 5e-5, 9.98474e-5, 5.05e-5, 1e-6], rel=1e-5)


def test_the_first_update_has_rate_zero_and_the_warmup_is_a_line():
    assert rates(OptimizerConfig(warmup_steps=10), range(10)) == pytest.approx([1e-4 * step / 10 for step in range(10)])


def test_polynomial_and_constant():
    steps = [0, 5, 9, 10, 11, 500, 1000, 2000]
    shape = {"learning_rate": 1e-3, "end_learning_rate": 1e-4, "warmup_steps": 10, "decay_steps": 1000}
    line = [1e-3 * s / 10 if s < 10 else 1e-4 + 9e-4 * (1 - min(s, 1000) / 1000) for s in steps]
    assert rates(OptimizerConfig(**shape, schedule="polynomial"), steps) == pytest.approx(line, rel=1e-5)
    flat = [1e-3 * min(s, 10) / 10 for s in steps]
    assert rates(OptimizerConfig(**shape, schedule="constant"), steps) == pytest.approx(flat, rel=1e-6)


def test_without_warmup_the_decay_begins_at_once():
    config = OptimizerConfig(warmup_steps=0, decay_steps=100)
    assert rates(config, [0, 50, 100]) == pytest.approx([1e-4, 5.05e-5, 1e-6], rel=1e-5)


def test_the_optimizer_s_step_count_has_the_shape_it_gives():
    set_single_device_context("cpu")
    for schedule in ("cosine", "polynomial", "constant"):
        rate = Schedule(OptimizerConfig(schedule=schedule))(Tensor(np.array([500], np.int32)))
        assert rate.shape == (1,)
        assert rate.asnumpy()[0] == pytest.approx(2.5e-5)
