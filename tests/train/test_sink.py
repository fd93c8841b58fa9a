"""Sink mode's loop, with a stand-in for the device's queue, which no CPU has."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mindspore as ms
import pytest

from pangu_alpha.config_file import load_config
from pangu_alpha.errors import PanguError
from pangu_alpha.train import trainer as trainer_module
from pangu_alpha.train.trainer import TrainResult, train
from tests.train.small_run import rows

SETTINGS = ["train.micro_batches=1", "train.checkpoint_every=4", "train.validate_every=4", "train.keep_best=false"]


@pytest.fixture
def call(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., TrainResult]:
    """Train in this process; a queue is the dataset's own iterator."""

    def queue(step: Any, dataset: Any, sink_size: int) -> Callable[[], Any]:
        batches = dataset.create_tuple_iterator()

        def run() -> Any:
            for _ in range(sink_size):
                result = step(*next(batches))
            return result

        return run

    monkeypatch.setattr(ms, "data_sink", queue)
    monkeypatch.setattr(trainer_module, "require_queue", lambda sink_size, device: None)
    monkeypatch.chdir(folder)
    return lambda *words: train(load_config("small.yaml", [*SETTINGS, *words]).config)


def test_it_does_the_steps_that_are_fed_one_by_one(
    call: Callable[..., TrainResult], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    call(f"train.output={tmp_path / 'one'}")
    call(f"train.output={tmp_path / 'two'}", "train.sink_size=2", "train.steps=8")
    call(f"train.output={tmp_path / 'two'}", "train.sink_size=4", "train.health_every=4")  # goes on after step 8
    assert "train.health_every is left out: in sink mode" in caplog.text
    more = ["train.sink_size=16", "train.steps=16", "train.checkpoint_every=16", "train.validate_every=0"]
    with pytest.raises(PanguError, match=r"train\.sink_size is 16, but 4 steps are left of 16"):
        call(f"train.output={tmp_path / 'two'}", *more)
    one, two = (rows(tmp_path / name) for name in ("one", "two"))
    assert [row["step"] for row in two] == [2, 4, 6, 8, 12]
    assert [row["loss"] for row in two] == [one[row["step"] - 1]["loss"] for row in two]
    assert rows(tmp_path / "two", "validation")[-1]["loss"] == rows(tmp_path / "one", "validation")[-1]["loss"]


def test_steps_within_a_call_that_change_nothing_are_told(
    call: Callable[..., TrainResult], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(PanguError, match="the loss of step 4 is nan"):
        call(f"train.output={tmp_path / 'run'}", "train.sink_size=4", "optimizer.learning_rate=1e30",
             "optimizer.clip_norm=0", "model.dropout=0")  # fmt: skip
    assert "2 of the last 4 steps were not applied" in caplog.text
