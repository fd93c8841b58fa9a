"""Workers take turns, the others are stopped, and none outlives the process that started it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from alternation import Worker, WorkerError, ending, in_turn

linux_only = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")

ECHO = """
import sys
sys.path.insert(0, {folder!r})
from alternation import serve, take_output

def answer(request):
    if request == "fail":
        raise ValueError("asked to fail")
    word, *pids = request.split()
    states = [open(f"/proc/{{pid}}/stat").read().rpartition(")")[2].split()[0] for pid in pids]
    return {{"word": word, "states": states}}

output = take_output()
print("noise that a library writes")
serve({{"ready": True}}, answer, output)
"""


@pytest.fixture
def command(tmp_path: Path, repository: Path) -> list[str]:
    script = tmp_path / "echo.py"
    script.write_text(ECHO.format(folder=str(repository / "benchmarks")))
    return [sys.executable, str(script)]


def state(pid: int) -> str:
    """The state of a process: R, S, T (stopped), Z (ended) …; gone once nothing is left of it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return "gone"


def wait_for(pid: int, wanted: str) -> str:
    end = time.monotonic() + 10
    while state(pid) not in wanted.split() and time.monotonic() < end:
        time.sleep(0.01)
    return state(pid)


@linux_only
def test_only_the_worker_that_is_asked_runs(command, tmp_path):
    with ending([]) as workers:
        workers += [Worker(name, command, tmp_path / f"{name}.log") for name in "ab"]
        first, second = workers
        assert first.ready == {"ready": True}
        assert wait_for(first.process.pid, "T") == wait_for(second.process.pid, "T") == "T"
        assert first.ask(f"word {second.process.pid}") == {"word": "word", "states": ["T"]}
        assert wait_for(first.process.pid, "T") == "T"
        assert "noise" in first.log.read_text()
    assert [worker.process.returncode for worker in workers] == [-signal.SIGKILL] * 2


def test_every_round_another_worker_is_the_first():
    assert [in_turn("abc", number) for number in range(4)] == [list("abc"), list("bca"), list("cab"), list("abc")]


def test_a_worker_that_fails_is_told_of_by_its_last_line(command, tmp_path):
    with ending([]) as workers:
        workers.append(Worker("clumsy", command, tmp_path / "log"))
        with pytest.raises(WorkerError, match=r"clumsy ended with code 1: ValueError: asked to fail"):
            workers[0].ask("fail")


def test_a_worker_that_never_gets_ready_is_told_of(tmp_path):
    with pytest.raises(WorkerError, match="empty ended with code 0: it wrote nothing"):
        Worker("empty", [sys.executable, "-c", ""], tmp_path / "log")


@linux_only
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_worker_outlives_its_driver(command, tmp_path, repository, number):
    driver = tmp_path / "driver.py"
    driver.write_text(
        "import sys, time; from pathlib import Path\n"
        f"sys.path.insert(0, {str(repository / 'benchmarks')!r})\n"
        "from alternation import Worker, ending\n"
        "with ending([]) as workers:\n"
        f"    workers += [Worker(name, {command!r}, Path({str(tmp_path)!r}) / name) for name in 'ab']\n"
        "    print(*(worker.process.pid for worker in workers), flush=True)\n"
        "    time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, str(driver)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout
        pids = [int(word) for word in process.stdout.readline().split()]
        assert len(pids) == 2
        assert [wait_for(pid, "T") for pid in pids] == ["T", "T"]
        os.kill(process.pid, number)
    assert {wait_for(pid, "gone Z") for pid in pids} <= {"gone", "Z"}  # Z: ended, not yet read by whoever adopted it
