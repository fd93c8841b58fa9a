"""Data parallelism for real: several processes on this machine's CPU train what one process trains."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from pangu_alpha.checkpoint.load import Checkpoint
from pangu_alpha.launch.host import free_port
from tests.train.small_run import ROOT, STEPS, finish, folder, rows, start, wait_until  # noqa: F401

ALONE = ["train.batch_size=8", "train.output=alone"]


def launch(folder: Path, workers: int, output: str, *words: str) -> subprocess.Popen:  # noqa: F811
    """`pangu-alpha launch` of the small run."""
    return subprocess.Popen(
        [sys.executable, "-m", "pangu_alpha.cli.main", "launch", "--config", "small.yaml", "--workers", str(workers),
         "--log-dir", f"{output}_logs", "train.batch_size=8", f"train.output={output}", *words],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"},
    )  # fmt: skip


@pytest.fixture(scope="module")
def alone(folder: Path) -> Path:  # noqa: F811
    """The run of one process."""
    if not (folder / "alone" / "checkpoints").exists():
        finish(start(folder, *ALONE))
    return folder / "alone"


def assert_same_run(one: Path, other: Path) -> None:
    """Losses, norms, held-out losses and all that the last checkpoints hold."""
    for kind, keys in (("step", ("loss", "gradient_norm", "learning_rate")), ("validation", ("loss",))):
        first, second = rows(one, kind), rows(other, kind)
        assert len(first) == len(second)
        for key in keys:
            assert [row[key] for row in second] == pytest.approx([row[key] for row in first], rel=2e-5), key
    checkpoints = [Checkpoint(path / "checkpoints" / f"step_{STEPS:08d}") for path in (one, other)]
    left, right = (dict(checkpoint.tensors()) for checkpoint in checkpoints)
    assert left.keys() == right.keys()
    for name, value in left.items():
        if "key.bias" not in name:  # its gradient is rounding alone
            np.testing.assert_allclose(right[name], value, rtol=1e-3, atol=2e-5, err_msg=name)


@pytest.mark.parametrize("workers", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_several_processes_train_what_one_trains(folder, alone, workers):  # noqa: F811
    # Dropout, mixed order and micro batches are on: masks and samples are the same for any number of ranks.
    process = launch(folder, workers, f"by_{workers}")
    _, error = process.communicate(timeout=400)
    assert process.returncode == 0, error
    assert_same_run(alone, folder / f"by_{workers}")
    logs = folder / f"by_{workers}_logs"
    names = {f"worker_{rank}.log" for rank in range(workers)} | {"scheduler.log", "lock"}
    assert {path.name for path in logs.iterdir()} == names
    assert "held-out perplexity" in (logs / "worker_0.log").read_text()
    assert "held-out perplexity" not in (logs / "worker_1.log").read_text()


@pytest.mark.slow
def test_mindspores_own_msrun_starts_the_same(folder, alone):  # noqa: F811
    # For schedulers and scripts that start with it: the workers are the same, and its environment is all they need.
    words = ["--worker_num=2", "--local_worker_num=2", f"--master_port={free_port()}", "--join=True"]
    train = [Path(sys.executable).with_name("pangu-alpha"), "train", "--config", "small.yaml", "train.device=cpu",
             "parallel.data_parallel=2", "train.batch_size=8", "train.output=msrun"]  # fmt: skip
    done = subprocess.run(
        [Path(sys.executable).with_name("msrun"), *words, "--log_dir=msrun_logs", *train],
        cwd=folder, capture_output=True, text=True, timeout=400, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert_same_run(alone, folder / "msrun")


@pytest.mark.slow
def test_a_killed_worker_ends_the_others_and_the_run_goes_on_from_its_checkpoint(folder, alone):  # noqa: F811
    process = launch(folder, 2, "killed", "train.checkpoint_every=2")
    wait_until(lambda: len(rows(folder / "killed")) >= 5, process, 300)
    victim = next(
        int(path.parent.name)
        for path in Path("/proc").glob("[0-9]*/environ")
        if _reads(path, b"MS_NODE_ID=1") and _reads(path.with_name("cmdline"), b"train.output=killed")
    )
    os.kill(victim, signal.SIGKILL)
    killed_at = time.monotonic()
    _, error = process.communicate(timeout=60)
    assert time.monotonic() - killed_at < 15
    assert process.returncode == 1
    assert "worker_1 was ended by SIGKILL; the others are stopped; its log is" in error.splitlines()[-1]
    assert "Traceback" not in error
    assert not [path for path in Path("/proc").glob("[0-9]*/cmdline") if _reads(path, b"train.output=killed")]
    # One process goes on where two were, at the exact next sample.
    finish(start(folder, "train.batch_size=8", "train.output=killed", "train.checkpoint_every=2"))
    assert_same_run(alone, folder / "killed")


def _reads(path: Path, text: bytes) -> bool:
    try:
        return text in path.read_bytes()
    except OSError:
        return False
