"""Processes that save without end, killed at random moments: what was announced is there, whole, and newest."""

from __future__ import annotations

import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pangu_alpha.checkpoint.load import list_checkpoints, newest_good_checkpoint
from pangu_alpha.checkpoint.run_directory import RunDirectory, RunLock

ROOT = Path(__file__).parents[2]
SAVER = """
import sys, time
from pathlib import Path
import numpy as np
from pangu_alpha.checkpoint.background import BackgroundSaver
from pangu_alpha.checkpoint.load import newest_good_checkpoint
from pangu_alpha.checkpoint.run_directory import RunDirectory, RunLock
from pangu_alpha.checkpoint.save import save_checkpoint
from pangu_alpha.config import Config
run = RunDirectory(Path(sys.argv[1]))
saver = BackgroundSaver()
with RunLock(run.path):
    checkpoint, damages = newest_good_checkpoint(run.checkpoints)
    assert not damages, damages
    step = checkpoint.step if checkpoint else 0
    values = dict(checkpoint.tensors()) if checkpoint else {"a": np.zeros(200_000, np.float32)}
    assert all((value == step).all() for value in values.values())  # goes on exactly where it was
    print("resumed", step, flush=True)
    while True:
        step += 1
        arrays = {"a": np.full(200_000, step, np.float32), "b": np.full(1000, step, np.int32)}
        saving = lambda step=step, arrays=arrays: save_checkpoint(
            run.checkpoints, step, arrays, {"step": step}, Config(), "f" * 64, keep=2, pinned={step // 10 * 10})
        done = saver.start(saving)
        if done: print("saved", int(done.name[5:]), flush=True)
        time.sleep(0.002)
"""


def kill_and_look(run: Path, kills: int, seed: int) -> None:
    draw = random.Random(seed)
    announced = 0
    for _ in range(kills):
        process = subprocess.Popen(
            [sys.executable, "-c", SAVER, str(run)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
        )
        assert process.stdout is not None and process.stderr is not None
        first = process.stdout.readline().split()
        assert first[:1] == ["resumed"], process.stderr.read()
        assert int(first[1]) >= announced  # no step that was announced is lost
        time.sleep(draw.uniform(0.0, 0.3))
        process.send_signal(signal.SIGKILL)
        rest, _ = process.communicate()
        # Whole lines: the kill may come in the middle of one.
        saved = [int(step) for step in re.findall(r"^saved (\d+)\n", rest, re.MULTILINE)]
        announced = max([announced, int(first[1]), *saved])
        checkpoint, damages = newest_good_checkpoint(RunDirectory(run).checkpoints)
        assert not damages
        assert announced == 0 or (checkpoint is not None and checkpoint.step >= announced)
    with RunLock(run):  # clears what was left half-written
        pass
    left = [path.name for path in RunDirectory(run).checkpoints.iterdir()]
    assert all(name.startswith("step_") for name in left), left
    assert announced > kills  # it got somewhere in between
    assert len(list_checkpoints(RunDirectory(run).checkpoints)) >= 2


def test_ten_kills(tmp_path: Path) -> None:
    kill_and_look(tmp_path / "run", 10, seed=1)


@pytest.mark.slow
def test_fifty_kills(tmp_path: Path) -> None:
    kill_and_look(tmp_path / "run", 50, seed=2)
