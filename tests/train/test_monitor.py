"""The whole of a run's watching: what lies in the run directory after it."""

from __future__ import annotations

import logging
import math
import time

import pytest

from pangu_alpha.config import Config, ModelConfig, TrainConfig
from pangu_alpha.errors import PanguError
from pangu_alpha.train.flops import PeakSpeed
from pangu_alpha.train.health import HealthSample
from pangu_alpha.train.json_lines import read_json_lines
from pangu_alpha.train.metrics import StepMetrics
from pangu_alpha.train.monitor import Monitor

CONFIG = Config(
    name="tiny",
    model=ModelConfig(vocab_size=100, hidden_size=16, num_layers=2, num_heads=2, seq_length=8),
    train=TrainConfig(steps=20, batch_size=4, log_every=5, health_every=5),
)


def metrics(step: int, loss: float | None = None) -> StepMetrics:
    return StepMetrics(step, 5.0 - step / 10 if loss is None else loss, 1e-3, 1.0, 1.0, True, 0.1, 32, 0)


def sample(step: int, ratio: float = 1e-3) -> HealthSample:
    names = ["word_table", "blocks.0.a", "query_layer.a"]
    return HealthSample(
        step,
        gradient_norm=dict.fromkeys(names, 1.0),
        weight_norm=dict.fromkeys(names, 1.0),
        update_norm=dict.fromkeys(names, ratio),
    )


def test_a_run_leaves_logs_and_pictures(tmp_path, caplog):
    with caplog.at_level(logging.INFO), Monitor(CONFIG, tmp_path, peak=PeakSpeed(1e12, "given")) as monitor:
        monitor.on_validation(0, 5.0)
        for step in range(1, 21):
            monitor.on_step(metrics(step))
            if step % 5 == 0:
                monitor.on_health(sample(step, ratio=0.5))
            if step == 10:
                assert not (tmp_path / "health.png").exists()
                monitor.on_validation(step, 4.1)
                assert (tmp_path / "loss.png").exists()  # drawn at every validation
                assert (tmp_path / "health.png").exists()
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"metrics.jsonl", "health.jsonl", "tensorboard", "loss.png", "health.png"}
    rows = read_json_lines(tmp_path / "metrics.jsonl")
    assert [row["step"] for row in rows if row["kind"] == "step"] == list(range(1, 21))
    assert [(row["step"], round(row["perplexity"], 1)) for row in rows if row["kind"] == "validation"] == [
        (0, 148.4),
        (10, 60.3),
    ]
    lines = [record.getMessage() for record in caplog.records]
    assert [line.split("  ")[0] for line in lines if "  loss" in line] == [
        "step 5/20",
        "step 10/20",
        "step 15/20",
        "step 20/20",
    ]
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 3  # one a layer, at the third sample
    assert all(warning.startswith("step 15: ") for warning in warnings)


def test_a_resumed_run_continues_the_picture_and_the_logs(tmp_path):
    with Monitor(CONFIG, tmp_path) as monitor:
        for step in range(1, 15):
            monitor.on_step(metrics(step))
        monitor.on_health(sample(12))
    with Monitor(CONFIG, tmp_path, resume_step=10) as monitor:
        assert monitor.history.steps == list(range(1, 11))
        assert monitor.health is not None
        assert monitor.health.history.steps == []
        for step in range(11, 21):
            monitor.on_step(metrics(step))
    assert monitor.history.steps == list(range(1, 21))
    assert [row["step"] for row in read_json_lines(tmp_path / "metrics.jsonl")] == list(range(1, 21))


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_no_number_stops_the_run_and_leaves_the_curve(tmp_path, loss):
    with pytest.raises(PanguError, match=r"step 4 .*step_00000003"), Monitor(CONFIG, tmp_path) as monitor:
        for step in range(1, 4):
            monitor.on_step(metrics(step))
        monitor.on_checkpoint(tmp_path / "checkpoints" / "step_00000003")
        monitor.on_step(metrics(4, loss=loss))
    rows = read_json_lines(tmp_path / "metrics.jsonl")
    assert [(row["step"], row["loss"]) for row in rows][-1] == (4, None)
    assert (tmp_path / "loss.png").exists()


def test_a_picture_that_cannot_be_drawn_does_not_stop_the_run(tmp_path, caplog):
    (tmp_path / "loss.png").mkdir()
    with Monitor(CONFIG, tmp_path) as monitor:
        monitor.on_step(metrics(1))
        monitor.on_validation(1, 4.0)
        monitor.on_step(metrics(2))
    assert len(read_json_lines(tmp_path / "metrics.jsonl")) == 3
    assert any("loss.png could not be drawn" in record.getMessage() for record in caplog.records)


def test_closing_twice_is_harmless(tmp_path):
    monitor = Monitor(CONFIG, tmp_path)
    monitor.on_step(metrics(1))
    monitor.close()
    monitor.close()


def test_watching_costs_little(tmp_path):
    with Monitor(CONFIG, tmp_path) as monitor:
        start = time.process_time()
        for step in range(1, 201):
            monitor.on_step(metrics(step))
        spent = (time.process_time() - start) / 200
    assert spent < 0.01  # about 0.2 ms on an idle machine; a quickstart step takes half a second
