"""Ctrl-C in the seconds in which MindSpore is imported: one line and the usual exit code, whenever it comes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pangu_alpha.interrupts import unbroken_import
from tests.tiny_model import model, run_directory, tokenizer, vocabulary  # noqa: F401

MOMENTS = ["mindspore.version", "mindspore._c_expression", "mindspore.ops", "mindspore.dataset"]
"""Modules after whose import the signal comes; after the first MindSpore's own library is loaded."""


def stopped(moment: str, number: signal.Signals, *words: str, times: int = 1) -> tuple[int, list[str]]:
    """Exit code, and the lines of standard error, of a command that gets a signal once `moment` is imported."""
    process = subprocess.Popen(
        [sys.executable, "-X", "importtime", "-m", "pangu_alpha.cli.main", *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    shown = []
    for line in process.stderr:
        shown.append(line)
        if line.split()[-1:] == [moment]:
            for _ in range(times):
                process.send_signal(number)
            break
    shown += process.stderr.readlines()
    process.stderr.close()
    return process.wait(60), [line for line in shown if not line.startswith("import time:")]


@pytest.mark.parametrize("moment", MOMENTS)
def test_ctrl_c_while_mindspore_is_imported_is_one_line(run_directory: Path, moment: str) -> None:  # noqa: F811
    words = ("generate", "--checkpoint", str(run_directory), "今天")
    assert stopped(moment, signal.SIGINT, *words) == (130, ["pangu-alpha: interrupted\n"])


def test_an_impatient_ctrl_c_before_a_training_is_one_line(repository: Path) -> None:
    words = ("train", "--config", str(repository / "configs" / "quickstart.yaml"))
    assert stopped("mindspore.ops", signal.SIGINT, *words, times=3) == (130, ["pangu-alpha: interrupted\n"])


def test_sigterm_ends_the_import_at_once(run_directory: Path) -> None:  # noqa: F811
    words = ("generate", "--checkpoint", str(run_directory), "今天")
    assert stopped("mindspore.ops", signal.SIGTERM, *words) == (-signal.SIGTERM, [])


def test_the_interrupt_comes_when_the_import_has_ended() -> None:
    before = signal.getsignal(signal.SIGINT)
    reached = []
    with pytest.raises(KeyboardInterrupt), unbroken_import():
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGINT)
        reached.append("the end")
    assert reached == ["the end"]
    assert signal.getsignal(signal.SIGINT) == before


def test_an_error_of_the_import_is_not_replaced() -> None:
    with pytest.raises(ImportError), unbroken_import():
        os.kill(os.getpid(), signal.SIGINT)
        raise ImportError


def test_an_ignored_ctrl_c_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with unbroken_import():
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_other_threads_import_as_ever() -> None:
    before, seen = signal.getsignal(signal.SIGINT), []

    def work() -> None:
        with unbroken_import():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]
