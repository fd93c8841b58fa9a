"""SIGTERM and SIGINT end training within a step, with a checkpoint and exit code 0; the same command continues."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pangu_alpha.checkpoint.load import list_checkpoints
from pangu_alpha.train.stop_signals import StopSignals
from tests.train.small_run import finish, rows, start, wait_until


def test_a_first_signal_is_noted_and_handlers_come_back() -> None:
    handlers = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    for number in (signal.SIGTERM, signal.SIGINT):
        with StopSignals() as stop:
            assert stop.received == ""
            signal.raise_signal(number)
            assert stop.received == number.name
            signal.raise_signal(signal.SIGTERM)  # a second one of the gentle kind changes nothing
        assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == handlers


def test_a_second_ctrl_c_interrupts_at_once() -> None:
    with pytest.raises(KeyboardInterrupt), StopSignals():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)


AFTER_A_GRAPH = """
import os, signal, sys
import numpy as np
from mindspore import Tensor, nn, ops
from pangu_alpha.parallel.context import set_single_device_context
from pangu_alpha.train.stop_signals import StopSignals

class Square(nn.Cell):
    def construct(self, x):
        return ops.matmul(x, x)

set_single_device_context("cpu")
with StopSignals() as stop:
    for _ in range(2):
        Square()(Tensor(np.ones((8, 8), np.float32))).asnumpy()
        os.kill(os.getpid(), signal.SIGINT)  # MindSpore's now, who makes it SIGTERM
        while not stop.received:
            pass
        print("noted", flush=True)
    stop.renew()
    try:
        os.kill(os.getpid(), signal.SIGINT)
    except KeyboardInterrupt:
        print("interrupted")
"""


def test_after_a_graph_a_second_ctrl_c_interrupts(tmp_path: Path, repository: Path) -> None:
    script = tmp_path / "after_a_graph.py"  # graphs are compiled from files
    script.write_text(AFTER_A_GRAPH)
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, env=environment, timeout=120)
    assert done.stdout.split() == ["noted", "noted", "interrupted"], done.stderr


def test_training_stops_within_a_step_and_the_same_command_continues(folder: Path) -> None:
    run = folder / "stopped"
    words = ("train.output=stopped", "train.steps=100000", "train.checkpoint_every=100000", "train.validate_every=0")
    first = 0
    for number in (signal.SIGTERM, signal.SIGINT):
        process = start(folder, *words)
        wait_until(lambda least=first + 3: bool(rows(run)) and rows(run)[-1]["step"] >= least, process)
        process.send_signal(number)
        before = rows(run)[-1]["step"]
        out, err = finish(process, 0)
        done = [row["step"] for row in rows(run)]
        assert done == list(range(1, done[-1] + 1))
        assert done[-1] <= before + 3  # the step in hand; the other two may have passed between reading and sending
        assert err.count("stopping: the step in hand is finished and a checkpoint is written") == 1
        assert f"stopped after step {done[-1]}; the same command continues" in err
        assert (f"continuing after step {first} of 100000" in err) == (first > 0)
        assert "perplexity" not in out  # no summary of a run that is not over
        assert list_checkpoints(run / "checkpoints")[0].name == f"step_{done[-1]:08d}"
        first = done[-1]
