"""Processes for data: Ctrl-C and SIGTERM end them with the work, without a word of theirs, at any moment."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pangu_alpha.data.piece_finding import SentencePieceError, find_pieces
from pangu_alpha.data.worker_pool import WorkerPool, termination_raises
from pangu_alpha.errors import PanguError, Terminated

WORK = """
import sys, time
from pathlib import Path
from pangu_alpha.cli.main import main
from pangu_alpha.data.worker_pool import WorkerPool
from pangu_alpha.files import atomic_directory
{slow_start}
def write(path):
    for number in range(10**6):
        (path / f"{{time.monotonic_ns()}}").write_text("")
if __name__ == "__main__":
    from pangu_alpha.cli import prepare
    def run(arguments):
        with atomic_directory("made") as partial, WorkerPool(2) as pool:
            for _ in range(6):
                pool.submit(write, partial)
            print("begun", flush=True)
            time.sleep(60)
    prepare.run = run
    sys.exit(main(["prepare"]))
"""


@pytest.fixture
def own_interrupts() -> Iterator[None]:
    """SIGINT as Python handles it; MindSpore, if another test has run a graph, would end this process with it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before or signal.default_int_handler)


@pytest.mark.parametrize("slow_start", ["", "if __name__ != '__main__': time.sleep(5)"], ids=["writing", "starting"])
def test_an_interrupt_ends_processes_before_their_files_are_removed(tmp_path: Path, slow_start: str) -> None:
    (tmp_path / "work.py").write_text(WORK.format(slow_start=slow_start))
    with subprocess.Popen(
        [sys.executable, "work.py"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == "begun\n"
            deadline = time.monotonic() + 20
            while not slow_start and not list(tmp_path.glob(".made*/*")) and time.monotonic() < deadline:
                time.sleep(0.01)
            time.sleep(0.5 if slow_start else 0.1)
            os.killpg(process.pid, signal.SIGINT)
            errors = process.communicate(timeout=20)[1]
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    assert process.returncode == 130
    assert errors == "pangu-alpha: interrupted\n"
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "__pycache__") == ["work.py"]


def test_an_error_ends_processes_at_once() -> None:
    start = time.monotonic()
    with pytest.raises(ValueError, match="wrong"), WorkerPool(2) as pool:
        pool.submit(time.sleep, 60)
        raise ValueError("wrong")
    assert time.monotonic() - start < 10


@pytest.mark.usefixtures("own_interrupts")
def test_work_comes_back_and_ctrl_c_counts_again_afterwards() -> None:
    with WorkerPool(2) as pool:
        assert [future.result() for future in [pool.submit(abs, -number) for number in range(5)]] == [0, 1, 2, 3, 4]
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1)


def test_termination_raises_where_nobody_else_handles_it() -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        with pytest.raises(Terminated), termination_raises():
            os.kill(os.getpid(), signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
        received = []
        signal.signal(signal.SIGTERM, lambda number, frame: received.append(number))
        with termination_raises():
            os.kill(os.getpid(), signal.SIGTERM)
        assert received == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.usefixtures("own_interrupts")
def test_training_of_pieces_can_be_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = tmp_path / "python"
    slow.write_text("#!/bin/sh\nexec sleep 60\n")
    slow.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(slow))
    start = time.monotonic()
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        find_pieces(["今 天"], {})
    assert time.monotonic() - start < 10


def test_pieces_that_cannot_be_found_are_told_and_a_lost_process_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SentencePieceError, match="set it to a value"):
        find_pieces(["今 天"], {"vocab_size": 5000, "minloglevel": 2})
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(PanguError, match=r"ended early \(exit code 1\)"):
        find_pieces(["今 天"] * 100_000, {})
