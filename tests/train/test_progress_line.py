"""What a person sees while a model trains, on a terminal and without one."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import pty
import re
import struct
import subprocess
import sys
import termios

import pytest

from pangu_alpha.train.metrics import RunScale, StepMetrics
from pangu_alpha.train.progress_line import TrainingProgress

SCALE = RunScale(batch_size=8, flops_per_token=6e9, peak_flops=48e12)

RUN = """
import logging, time
from pangu_alpha.train.metrics import RunScale, StepMetrics
from pangu_alpha.train.progress_line import TrainingProgress
logging.basicConfig(level=logging.INFO, format="%(message)s")
progress = TrainingProgress(40, RunScale(8, 6e9, 48e12), done=10, log_every=10)
for step in range(11, 41):
    time.sleep(0.02)
    progress.step(StepMetrics(step, 8.0 - step / 10, 1e-3, 1.5, 1.0, step != 20, 0.5, 2048, 0))
    if step == 25:
        progress.validation(step, 61.5)
progress.close()
logging.info("after")
"""


def metrics(step: int, **changes) -> StepMetrics:
    values = {
        "step": step,
        "loss": 5.0,
        "learning_rate": 1e-3,
        "gradient_norm": 1.5,
        "loss_scale": 1.0,
        "applied": True,
        "seconds": 0.5,
        "tokens": 2048,
        "epoch": 0,
    }
    return StepMetrics(**{**values, **changes})


def run_in_terminal(code: str, columns: int) -> str:
    """Everything a process shows whose standard error is a terminal of so many columns."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    process = subprocess.Popen([sys.executable, "-c", code], stdout=slave, stderr=slave, close_fds=True)
    os.close(slave)
    shown = b""
    while True:
        try:
            part = os.read(master, 65536)
        except OSError as error:
            assert error.errno == errno.EIO  # the other end is closed
            break
        if not part:
            break
        shown += part
    os.close(master)
    assert process.wait() == 0
    return shown.decode()


def test_a_terminal_shows_one_bar():
    shown = run_in_terminal(RUN, columns=120)
    frames = [re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", frame) for frame in re.split(r"[\r\n]+", shown)]
    frames = [frame for frame in frames if frame.strip()]
    assert all(len(frame) <= 120 for frame in frames)
    bars = [frame for frame in frames if frame.startswith("step ") and "|" in frame]
    assert bars[0].startswith("step 10/40")
    last = bars[-1]
    assert re.match(r"step 40/40 100% \|.*\| loss 4\.000  4,096 tokens/s", last)
    for expected in ("loss 4.000", "4,096 tokens/s", "MFU 51%", "GiB", "1 skipped", "0 s left"):
        assert expected in last
    # A message of another part stands on a line of its own, not inside the bar.
    assert "step 25/40  held-out perplexity 61.50" in frames
    assert frames[-1] == "after"
    assert not any("lr " in frame for frame in frames)  # no log lines beside the bar


@pytest.mark.parametrize("columns", [40, 80])
def test_a_narrow_terminal_is_not_overrun(columns):
    shown = run_in_terminal(RUN, columns)
    frames = [re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", frame) for frame in re.split(r"[\r\n]+", shown)]
    bars = [frame for frame in frames if frame.startswith("step ") and "|" in frame]
    assert bars
    assert all(len(bar) <= columns for bar in bars)


def test_without_a_terminal_there_are_log_lines():
    run = subprocess.run([sys.executable, "-c", RUN], capture_output=True, text=True, check=True)
    lines = run.stderr.splitlines()
    assert [line.split("  ")[0] for line in lines] == ["step 20/40", "step 25/40", "step 30/40", "step 40/40", "after"]
    assert "\r" not in run.stderr
    assert "loss 6.450" in lines[0]  # the mean of steps 11 to 20
    assert "lr 1.00e-03" in lines[0]
    assert "norm 1.50" in lines[0]
    assert "4,096 tokens/s" in lines[0]
    assert "MFU 51%" in lines[0]
    assert re.search(r"\d+\.\d GiB", lines[0])
    assert "1 skipped" in lines[0]
    assert lines[1] == "step 25/40  held-out perplexity 61.50"


def test_the_last_step_is_always_shown(caplog):
    progress = TrainingProgress(7, SCALE, log_every=5)
    with caplog.at_level(logging.INFO):
        for step in range(1, 8):
            progress.step(metrics(step))
    progress.close()
    assert [record.getMessage().split("  ")[0] for record in caplog.records] == ["step 5/7", "step 7/7"]


def test_time_left_is_judged_by_all_that_happened(monkeypatch):
    now = 100.0
    monkeypatch.setattr("pangu_alpha.train.progress_line.time.monotonic", lambda: now)
    progress = TrainingProgress(21, SCALE, log_every=1)
    progress.step(metrics(1, seconds=60.0))  # compiling does not count
    assert "left" not in progress.text(metrics(1), mean_loss=False)
    now += 30.0  # ten steps of one second, and a validation of twenty
    progress.step(metrics(11, seconds=1.0))
    assert progress.text(metrics(11), mean_loss=False).endswith("30 s left")
    progress.close()


def test_loss_scale_is_shown_where_there_is_one():
    progress = TrainingProgress(2, SCALE)
    assert "scale 1024" in progress.text(metrics(1, loss_scale=1024.0), mean_loss=True)
    assert "scale" not in progress.text(metrics(1), mean_loss=True)
    progress.close()
