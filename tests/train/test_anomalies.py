"""A loss that is no number, gradients far off, skipped batches."""

from __future__ import annotations

import json
import math
import random
import statistics

import pytest

from pangu_alpha.errors import PanguError
from pangu_alpha.train.anomalies import NormGuard, SkippedBatches, require_finite_loss
from pangu_alpha.train.json_lines import read_json_lines


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_no_number_stops_with_one_line(loss):
    with pytest.raises(PanguError) as caught:
        require_finite_loss(17, loss, "runs/a/checkpoints/step_00000010")
    message = str(caught.value)
    assert "\n" not in message
    assert "step 17" in message
    assert "runs/a/checkpoints/step_00000010" in message
    assert "train.init_from=runs/a/checkpoints/step_00000010" in message
    assert caught.value.exit_code == 1


def test_a_loss_that_is_no_number_before_any_checkpoint():
    with pytest.raises(PanguError, match="no good checkpoint had been written yet"):
        require_finite_loss(1, math.nan, None)


def test_a_finite_loss_passes():
    require_finite_loss(1, 8.9, None)


def test_the_guard_waits_for_enough_norms():
    guard = NormGuard(factor=3.0)
    for step in range(1, 20):
        guard.observe(step, 2.0, skipped=False)
        assert guard.limit == math.inf
    guard.observe(20, 2.0, skipped=False)
    assert guard.limit == 6.0


def test_the_limit_is_a_multiple_of_the_recent_median():
    generator = random.Random(1)
    guard, norms = NormGuard(factor=4.0), []
    for step in range(1, 301):
        norm = generator.lognormvariate(0, 0.5)
        norms.append(norm)
        guard.observe(step, norm, skipped=False)
    assert guard.limit == 4.0 * statistics.median(norms[-100:])


def test_factor_zero_never_skips():
    guard = NormGuard(factor=0.0)
    for step in range(1, 100):
        guard.observe(step, 1.0, skipped=False)
    assert guard.limit == math.inf


def test_neither_outliers_nor_overflows_move_the_limit():
    guard = NormGuard(factor=3.0)
    for step in range(1, 31):
        guard.observe(step, 1.0, skipped=False)
    for step in range(31, 36):
        guard.observe(step, 1000.0, skipped=True)
        guard.observe(step, math.inf, skipped=False)
        guard.observe(step, math.nan, skipped=False)
    assert guard.limit == 3.0


def test_ten_skipped_in_a_row_stop_the_run():
    guard = NormGuard(factor=3.0)
    for step in range(1, 31):
        guard.observe(step, 1.0, skipped=False)
    for step in range(31, 40):
        guard.observe(step, 50.0, skipped=True)
    guard.observe(40, 1.0, skipped=False)  # nine, then a good one: the count starts anew
    for step in range(41, 50):
        guard.observe(step, 50.0, skipped=True)
    with pytest.raises(PanguError) as caught:
        guard.observe(50, 50.0, skipped=True)
    message = str(caught.value)
    assert "\n" not in message
    assert "10 batches in a row" in message
    assert "step 50" in message
    assert "train.skip_norm_factor" in message


def test_gradients_that_stay_infinite_stop_the_run_once_the_scale_cannot_fall():
    guard = NormGuard(0.0)
    for step in range(1, 33):  # the scale falls from 2**32
        guard.observe(step, math.inf, False, loss_scale=2.0 ** (33 - step))
    for step in range(33, 42):
        guard.observe(step, math.nan, False, loss_scale=1.0)
    restored = NormGuard(0.0)
    restored.from_state(guard.to_state())
    with pytest.raises(PanguError, match="10 steps in a row, up to step 42, is not finite") as error:
        restored.observe(42, math.nan, False, loss_scale=1.0)
    assert "\n" not in str(error.value)
    guard.observe(42, 1.0, False, loss_scale=1.0)  # one good step: counting begins anew
    for step in range(43, 52):
        guard.observe(step, math.inf, False, loss_scale=1.0)


def test_a_restored_guard_goes_on_exactly():
    generator = random.Random(2)
    whole, first = NormGuard(factor=2.5), NormGuard(factor=2.5)
    norms = [generator.lognormvariate(0, 1.0) for _ in range(260)]

    def run(guard, steps):
        limits = []
        for step in steps:
            limits.append(guard.limit)
            guard.observe(step, norms[step], skipped=norms[step] > guard.limit)
        return limits

    expected = run(whole, range(260))
    before = run(first, range(130))
    restored = NormGuard(factor=2.5)
    restored.from_state(json.loads(json.dumps(first.to_state())))
    assert before + run(restored, range(130, 260)) == expected
    assert restored.to_state() == whole.to_state()
    assert any(norm > limit for norm, limit in zip(norms, expected, strict=True))


def test_a_restored_guard_remembers_the_skips_in_a_row():
    guard = NormGuard(factor=3.0)
    for step in range(1, 10):
        guard.observe(step, 9.0, skipped=True)
    restored = NormGuard(factor=3.0)
    restored.from_state(json.loads(json.dumps(guard.to_state())))
    with pytest.raises(PanguError):
        restored.observe(10, 9.0, skipped=True)


def test_skipped_batches_can_be_found_again(tmp_path):
    log = SkippedBatches(tmp_path)
    assert not log.path.exists()  # a run that skips nothing leaves no file
    log.append(step=31, epochs=[2, 2, 3], samples=[5, 900, 17], gradient_norm=50.0, limit=3.0)
    log.append(step=40, epochs=[2, 2, 2], samples=[1, 2, 3], gradient_norm=60.0, limit=3.0)
    log.close()
    log = SkippedBatches(tmp_path, resume_step=35)
    log.append(step=40, epochs=[2, 2, 2], samples=[1, 2, 3], gradient_norm=60.0, limit=3.5)
    log.close()
    assert read_json_lines(tmp_path / "skipped.jsonl") == [
        {"step": 31, "epochs": [2, 2, 3], "samples": [5, 900, 17], "gradient_norm": 50.0, "limit": 3.0},
        {"step": 40, "epochs": [2, 2, 2], "samples": [1, 2, 3], "gradient_norm": 60.0, "limit": 3.5},
    ]
