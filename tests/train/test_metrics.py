"""metrics.jsonl and the event files, read back with TensorBoard's own reader."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pangu_alpha.train.json_lines import read_json_lines
from pangu_alpha.train.metrics import MetricsLog, RunScale, StepMetrics, count_skipped, peak_memory, step_scalars

SCALE = RunScale(batch_size=8, flops_per_token=6e9, peak_flops=24e12, devices=2)


def metrics(step: int, **changes) -> StepMetrics:
    values = {
        "step": step,
        "loss": 8.0 - step / 10,
        "learning_rate": 1e-3 * step,
        "gradient_norm": 1.5,
        "loss_scale": 1.0,
        "applied": True,
        "seconds": 0.5,
        "tokens": 2048,
        "epoch": 0,
    }
    return StepMetrics(**{**values, **changes})


def scalars_of(directory):
    reader = EventAccumulator(str(directory / "tensorboard"))
    reader.Reload()
    return {tag: [(event.step, event.value) for event in reader.Scalars(tag)] for tag in reader.Tags()["scalars"]}


def test_scalars_bear_the_names_and_units_of_mindformers():
    scalars = step_scalars(metrics(3, loss_scale=1024.0), SCALE, memory=3 * 2**30)
    assert scalars["loss"] == pytest.approx(7.7)
    assert scalars["learning-rate"] == pytest.approx(3e-3)
    assert scalars["batch-size"] == 8
    assert scalars["loss-scale"] == 1024
    assert scalars["grad-norm"] == 1.5
    assert scalars["iteration-time"] == pytest.approx(500)  # milliseconds
    assert scalars["throughput"] == pytest.approx(8)  # samples a second and device: 8 / 0.5 / 2
    assert scalars["model-flops-throughput-per-npu"] == pytest.approx(6e9 * 4096 / 2 / 1e12)
    assert scalars["B-samples-per-day"] == pytest.approx(16 * 86400 / 1e9)
    assert scalars["tokens-per-second"] == pytest.approx(4096)
    assert scalars["model-flops-utilisation"] == pytest.approx(6e9 * 4096 / 48e12)
    assert scalars["memory"] == pytest.approx(3)


def test_skipped_steps_are_counted_over_all_calls(tmp_path):
    for first in (1, 4):
        log = MetricsLog(tmp_path, SCALE, resume_step=first - 1)
        for step in range(first, first + 5):
            log.write_step(metrics(step, applied=step % 2 == 0))
        log.close()
    assert count_skipped(tmp_path) == 4  # 1 and 3, then 5 and 7: the second call did steps 4 and 5 anew


def test_memory_of_an_accelerator_is_the_device_s_own(monkeypatch):
    monkeypatch.setattr("mindspore.runtime.max_memory_allocated", lambda: 5 * 2**30)
    assert peak_memory("gpu") == 5 * 2**30 != peak_memory("cpu")


def test_utilisation_is_left_out_where_the_peak_is_unknown():
    scale = RunScale(batch_size=8, flops_per_token=6e9)
    assert "model-flops-utilisation" not in step_scalars(metrics(1), scale, 0)
    assert scale.utilisation(100, 1.0) is None


def test_tensorboard_reads_what_was_written(tmp_path):
    log = MetricsLog(tmp_path, SCALE)
    for step in range(1, 6):
        log.write_step(metrics(step))
    log.write_validation(5, loss=math.log(50.0))
    log.close()
    scalars = scalars_of(tmp_path)
    assert [step for step, _ in scalars["loss"]] == [1, 2, 3, 4, 5]
    assert [value for _, value in scalars["loss"]] == pytest.approx([7.9, 7.8, 7.7, 7.6, 7.5], rel=1e-6)
    assert scalars["validation-perplexity"] == [(5, pytest.approx(50.0, rel=1e-6))]


def test_every_step_is_on_disk_before_the_run_ends(tmp_path):
    log = MetricsLog(tmp_path, SCALE)
    log.write_step(metrics(1))
    assert scalars_of(tmp_path)["loss"] == [(1, pytest.approx(7.9))]
    assert len(read_json_lines(tmp_path / "metrics.jsonl")) == 1
    log.close()


def test_rows_hold_the_step_and_its_rates(tmp_path):
    log = MetricsLog(tmp_path, SCALE)
    log.write_step(metrics(1, gradient_norm=math.inf, applied=False))
    log.close()
    (row,) = read_json_lines(tmp_path / "metrics.jsonl")
    assert row["kind"] == "step"
    assert row["gradient_norm"] is None  # JSON has no infinity
    assert row["applied"] is False
    assert row["tokens_per_second"] == pytest.approx(4096)
    assert row["utilisation"] == pytest.approx(6e9 * 4096 / 48e12)
    assert row["memory"] > 1_000_000


def test_a_resumed_run_shows_every_step_once(tmp_path):
    log = MetricsLog(tmp_path, SCALE)
    for step in range(1, 8):
        log.write_step(metrics(step, loss=1.0))
    log.write_validation(6, loss=2.0)
    log.close()
    log = MetricsLog(tmp_path, SCALE, resume_step=4)
    for step in range(5, 7):
        log.write_step(metrics(step, loss=5.0))
    log.write_validation(6, loss=3.0)
    log.close()
    rows = read_json_lines(tmp_path / "metrics.jsonl")
    assert [(row["step"], row["loss"]) for row in rows if row["kind"] == "step"] == [
        (1, 1.0),
        (2, 1.0),
        (3, 1.0),
        (4, 1.0),
        (5, 5.0),
        (6, 5.0),
    ]
    assert [row["loss"] for row in rows if row["kind"] == "validation"] == [3.0]
    scalars = scalars_of(tmp_path)
    assert scalars["loss"] == [(1, 1.0), (2, 1.0), (3, 1.0), (4, 1.0), (5, 5.0), (6, 5.0)]
    assert scalars["validation-loss"] == [(6, 3.0)]


def test_a_diverged_validation_does_not_end_the_run(tmp_path):
    log = MetricsLog(tmp_path, SCALE)
    row = log.write_validation(1, loss=1e6)
    log.close()
    assert math.isfinite(row["perplexity"])
    assert json.loads((tmp_path / "metrics.jsonl").read_text())["loss"] == 1e6


def test_writing_events_imports_neither_tensorflow_nor_torch(tmp_path):
    code = (
        "import sys\n"
        "from pangu_alpha.train.tensorboard_log import ScalarLog\n"
        "log = ScalarLog(sys.argv[1])\n"
        "log.write(1, {'loss': 1.0})\n"
        "log.close()\n"
        "print([name for name in ('tensorflow', 'torch') if name in sys.modules])"
    )
    output = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert output.stdout.strip() == "[]"


def test_peak_memory_grows_with_what_is_held():
    before = peak_memory()
    held = bytearray(before + 50_000_000)
    for place in range(0, len(held), 4096):
        held[place] = 1
    assert peak_memory() >= before + 50_000_000
