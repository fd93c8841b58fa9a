"""The device context, and Ctrl-C while a graph runs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pangu_alpha.errors import PanguError
from pangu_alpha.parallel.context import interruptible, set_single_device_context

ENDLESS = """
import signal, threading, os, sys
import numpy as np
from mindspore import Tensor, nn, ops
from pangu_alpha.parallel.context import interruptible, set_single_device_context

class Squares(nn.Cell):
    def construct(self, x):
        for _ in range(30):
            x = ops.tanh(ops.matmul(x, x))
        return x

set_single_device_context("auto")
squares, x = Squares(), Tensor(np.ones((1000, 1000), np.float32))
squares(x).asnumpy()
print("compiled", flush=True)
caught = 0
for _ in range(3):
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    try:
        while True:
            with interruptible():
                squares(x).asnumpy()
    except KeyboardInterrupt:
        caught += 1
print("caught", caught, flush=True)
try:
    os.kill(os.getpid(), signal.SIGINT)  # between two graphs
except KeyboardInterrupt:
    print("outside")
"""


def test_the_best_device_of_this_machine() -> None:
    device = set_single_device_context("auto")
    assert device in ("cpu", "gpu", "ascend")
    assert set_single_device_context(device) == device


def test_the_device_in_use_can_be_asked_for_after_something_was_computed() -> None:
    code = (
        "import mindspore, numpy; mindspore.Tensor(numpy.ones(3)).sum().asnumpy(); "
        "from pangu_alpha.parallel.context import set_single_device_context as choose; print(choose('auto'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() in ("cpu", "gpu", "ascend")


@pytest.mark.parametrize("device", ["gpu", "ascend"])
def test_a_device_that_mindspore_lacks_is_one_line(device: str) -> None:
    if set_single_device_context("auto") == device:
        pytest.skip(f"this machine has the accelerator {device}")
    with pytest.raises(PanguError, match=f"device {device} cannot be used") as error:
        set_single_device_context(device)
    assert "\n" not in str(error.value)


def test_ctrl_c_stops_a_graph_and_not_the_process(tmp_path: Path, repository: Path) -> None:
    script = tmp_path / "endless.py"  # graphs are compiled from files
    script.write_text(ENDLESS)
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, env=environment)
    assert done.stdout.split() == ["compiled", "caught", "3", "outside"], done.stderr


def test_a_handler_that_is_there_keeps_the_signal() -> None:
    received = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: received.append(number))
    try:
        with interruptible():
            os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert received == [signal.SIGTERM]


def test_afterwards_everything_is_as_before() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), interruptible():
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == before
    thread = threading.Thread(target=lambda: interruptible().__enter__())  # no handlers outside the main thread
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGTERM) == before


def test_ctrl_c_is_not_lost_where_python_swallows_exceptions() -> None:
    class Dying:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGINT)
            sum(range(10))  # Python calls the handler here, and ignores what it raises

    with pytest.raises(KeyboardInterrupt), interruptible():
        Dying()


def test_a_second_ctrl_c_does_not_wait() -> None:
    reached = False
    with pytest.raises(KeyboardInterrupt), interruptible():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        reached = True
    assert not reached
