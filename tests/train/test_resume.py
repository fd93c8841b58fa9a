"""A run that was killed and continued in a new process gives the numbers of the uninterrupted one, bit for bit."""

from __future__ import annotations

import signal
from pathlib import Path

import numpy as np
import pytest

from pangu_alpha.checkpoint.load import Checkpoint, list_checkpoints
from tests.train.small_run import CHECKPOINT_EVERY, STEPS, finish, finished_run, rows, start

KILLED_AT = 7
DRIVER = Path(__file__).with_name("killed_training.py")
TIMES = {"seconds", "tokens_per_second", "utilisation", "memory"}


@pytest.fixture(scope="module")
def runs(folder: Path) -> tuple[Path, Path]:
    """Directories of the run in one go, and of the one that was killed at step 7 and continued."""
    # Both at once, as there are two cores.
    killed = start(folder, "train.output=parts", program=(str(DRIVER), str(KILLED_AT)))
    whole, _, _ = finished_run(folder)
    killed.communicate(timeout=240)
    assert killed.returncode == -signal.SIGKILL
    parts = folder / "parts"
    assert [row["step"] for row in rows(parts)] == list(range(1, KILLED_AT + 1))
    # The newest, and that of the best held-out score so far.
    assert [path.name for path in list_checkpoints(parts / "checkpoints")] == [
        f"step_{CHECKPOINT_EVERY:08d}", "step_00000004"
    ]  # fmt: skip
    _, err = finish(start(folder, "train.output=parts"))
    assert f"parts: continuing after step {CHECKPOINT_EVERY} of {STEPS}" in err
    return whole, parts


def without_times(run: Path, kind: str) -> list[dict]:
    return [{key: value for key, value in row.items() if key not in TIMES} for row in rows(run, kind)]


def test_every_number_of_every_step_is_the_same(runs: tuple[Path, Path]) -> None:
    whole, parts = (without_times(run, "step") for run in runs)
    assert [row["step"] for row in parts] == list(range(1, STEPS + 1))  # each once, though 6 and 7 were done twice
    assert parts == whole
    assert whole[-1]["loss"] < whole[0]["loss"] - 0.3  # and it learns
    assert len({row["loss"] for row in whole}) == STEPS
    assert without_times(runs[1], "validation") == without_times(runs[0], "validation")
    assert [row["step"] for row in rows(runs[0], "validation")] == [0, 4, 8, 12]


def test_the_last_weights_and_moments_are_the_same(runs: tuple[Path, Path]) -> None:
    whole, parts = (Checkpoint(run / "checkpoints" / f"step_{STEPS:08d}") for run in runs)
    assert set(whole.entries) == set(parts.entries)
    assert {"word_table", "adam_m.word_table", "adam_v.query_layer.query_table", "micro_step"} <= set(whole.entries)
    for (name, value), (_, other) in zip(whole.tensors(), parts.tensors(), strict=True):
        assert np.array_equal(value, other), name
    one, two = ({**c.train_state, "seconds": 0} for c in (whole, parts))
    assert one == two
    assert (one["step"], one["samples"]) == (STEPS, STEPS * 4)


def test_dropout_order_and_accumulation_were_on(runs: tuple[Path, Path]) -> None:
    # Or the test would prove little: the saved configuration tells.
    config = Checkpoint(runs[1] / "checkpoints" / f"step_{STEPS:08d}").manifest.config
    assert config["model"]["dropout"] == 0.1
    assert (config["data"]["order"], config["data"]["permuted_share"], config["data"]["shuffle"]) == (
        "mixed",
        0.5,
        True,
    )
    assert config["train"]["micro_batches"] == 2
