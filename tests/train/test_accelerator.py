"""Training on an accelerator, where this machine has one that MindSpore can use: what a CPU trains, and as it ships."""

from __future__ import annotations

import functools
import math
import subprocess
import sys
from pathlib import Path

import pytest

from tests.train.small_run import STEPS, finish, folder, rows, start  # noqa: F401

ASK = "from pangu_alpha.parallel.context import set_single_device_context as choose; print(choose('auto'))"


@functools.cache
def own_device() -> str:
    """cpu, gpu or ascend; asked in a process of its own, since MindSpore keeps the first device of a process."""
    return subprocess.run([sys.executable, "-c", ASK], capture_output=True, text=True, check=True).stdout.split()[-1]


@pytest.fixture
def device() -> str:
    device = own_device()
    if device == "cpu":
        pytest.skip("no accelerator (GPU or Ascend) here that the installed MindSpore can use")
    return device


def test_it_trains_what_a_cpu_trains(folder: Path, device: str) -> None:  # noqa: F811
    same = ["model.compute_dtype=float32", "model.dropout_generator=counter", "train.steps=3"]
    losses = {}
    for where in ("cpu", device):
        finish(start(folder, *same, f"train.device={where}", f"train.output=same_on_{where}"))
        losses[where] = [row["loss"] for row in rows(folder / f"same_on_{where}")]
    assert losses[device] == pytest.approx(losses["cpu"], rel=2e-3)


def test_it_trains_as_it_ships(folder: Path, device: str) -> None:  # noqa: F811
    # In fp16 with a dynamic loss scale, and the device's own dropout.
    finish(start(folder, f"train.device={device}", "train.output=shipped"))
    found = [row["loss"] for row in rows(folder / "shipped")]
    assert len(found) == STEPS
    assert all(math.isfinite(loss) for loss in found)
    assert min(found[-3:]) < found[0]
