"""Processes of a node: logs, the first failure, signals, restarts, and no process left behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pangu_alpha.errors import PanguError
from pangu_alpha.launch.plan import ProcessPlan
from pangu_alpha.launch.supervisor import Supervisor

ROOT = Path(__file__).resolve().parents[2]


def worker(rank: int, code: str) -> ProcessPlan:
    return ProcessPlan(f"worker_{rank}", (sys.executable, "-u", "-c", code), {"RANK_ID": str(rank)}, rank)


SLEEP = "import time; print('here', flush=True); time.sleep(600)"
CHILD = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)', MARK]); "


def left_with(mark: str) -> list[str]:
    """Processes whose command line has `mark`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if mark.encode() in path.read_bytes() and int(path.parent.name) != os.getpid():
                found.append(path.parent.name)
        except OSError:
            continue
    return found


def test_each_process_has_a_log_and_the_old_one_is_kept(tmp_path):
    supervisor = Supervisor(tmp_path / "logs")
    for round_ in ("first", "second"):
        supervisor.run([worker(rank, f"import os; print('{round_}', os.environ['RANK_ID'])") for rank in range(2)])
    assert (tmp_path / "logs" / "worker_1.log").read_text() == "second 1\n"
    assert (tmp_path / "logs" / "worker_1.log.old").read_text() == "first 1\n"


def test_the_first_that_fails_is_named_with_its_last_lines_and_the_others_are_ended(tmp_path, caplog):
    mark = f"mark-{os.getpid()}-a"
    plans = [worker(rank, CHILD.replace("MARK", repr(mark)) + SLEEP) for rank in range(3)]
    plans[1] = worker(1, "for n in range(30): print('line', n)\nraise SystemExit(7)")
    started = time.monotonic()
    with pytest.raises(
        PanguError, match="worker_1 ended with exit code 7; the others are stopped; its log is"
    ) as error:
        Supervisor(tmp_path, grace_seconds=2).run(plans)
    assert time.monotonic() - started < 10
    assert "\n" not in str(error.value)
    shown = caplog.text
    assert "line 29" in shown
    assert "line 10" in shown
    assert "line 9\n" not in shown
    time.sleep(0.2)
    assert left_with(mark) == []


def test_a_process_that_ignores_sigterm_is_killed(tmp_path):
    mark = f"mark-{os.getpid()}-b"
    deaf = f"import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); '{mark}'; time.sleep(600)"
    with pytest.raises(PanguError, match="worker_0 was ended by SIGKILL"):
        Supervisor(tmp_path, 1).run(
            [worker(0, "import os, time; time.sleep(1); os.kill(os.getpid(), 9)"), worker(1, deaf)]
        )
    time.sleep(0.2)
    assert left_with(mark) == []


def test_a_program_that_is_not_there(tmp_path):
    with pytest.raises(PanguError, match="no-such-program cannot be started: No such file"):
        Supervisor(tmp_path).run([worker(0, SLEEP), ProcessPlan("worker_1", ("no-such-program",), {}, 1)])


def launcher(folder: Path, *words: str, command: str) -> subprocess.Popen:
    """`pangu-alpha launch` of two workers that run `command`, which needs no MindSpore."""
    (folder / "worker.py").write_text(command)
    return subprocess.Popen(
        [sys.executable, "-m", "pangu_alpha.cli.main", "launch", "--config", str(ROOT / "configs/quickstart.yaml"),
         "--workers", "2", "--device", "cpu", "--log-dir", "logs",
         "--command", f"{sys.executable} -u worker.py", *words],
        cwd=folder, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


def wait_for(condition, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.05)


def test_sigterm_is_passed_on_to_every_rank_and_the_end_is_good(tmp_path):
    patient = "import signal, sys, os\n"
    patient += "def end(*a): print('checkpoint of', os.environ['RANK_ID']); sys.exit(0)\n"
    patient += "signal.signal(signal.SIGTERM, end); print('ready', flush=True); signal.pause()"
    process = launcher(tmp_path, "--start", "msrun", command=patient)
    logs = [tmp_path / "logs" / f"worker_{rank}.log" for rank in range(2)]
    wait_for(lambda: all(log.exists() and "ready" in log.read_text() for log in logs))
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 0, error
    assert [log.read_text() for log in logs] == [f"ready\ncheckpoint of {rank}\n" for rank in range(2)]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_no_worker_outlives_its_launcher(tmp_path, number):
    process = launcher(tmp_path, command="import time\nprint('ready', flush=True)\ntime.sleep(600)")
    logs = [tmp_path / "logs" / f"worker_{rank}.log" for rank in range(2)]
    wait_for(lambda: all(log.exists() and "ready" in log.read_text() for log in logs))
    workers = [path.parent.name for path in Path("/proc").glob("[0-9]*/cwd") if _points_to(path, tmp_path)]
    assert len(workers) >= 3
    process.send_signal(number)
    process.communicate(timeout=60)
    wait_for(lambda: not [path for path in Path("/proc").glob("[0-9]*/cwd") if _points_to(path, tmp_path)], 20)


def _points_to(link: Path, folder: Path) -> bool:
    try:
        return link.readlink() == folder
    except OSError:
        return False


def test_a_failed_launch_is_started_again_as_often_as_asked(tmp_path):
    third_time = "import os, pathlib\nlog = pathlib.Path('starts'); log.open('a').write('x')\n"
    third_time += "raise SystemExit(0 if log.stat().st_size > 4 else 3)"
    process = launcher(tmp_path, "--restarts", "2", command=third_time)
    _, error = process.communicate(timeout=90)
    assert process.returncode == 0, error
    assert "start 2 of 3" in error
    process = launcher(tmp_path, "--restarts", "1", command="raise SystemExit(3)")
    _, error = process.communicate(timeout=90)
    assert process.returncode == 1
    assert "ended with exit code 3" in error.splitlines()[-1]


def test_a_second_launch_with_the_same_logs_is_refused(tmp_path):
    first = launcher(tmp_path, command="import time; print('ready', flush=True); time.sleep(600)")
    logs = [tmp_path / "logs" / f"worker_{rank}.log" for rank in range(2)]
    wait_for(lambda: all(log.exists() and "ready" in log.read_text() for log in logs))
    try:
        second = launcher(tmp_path, command="pass")
        _, error = second.communicate(timeout=60)
        assert second.returncode == 1
        assert "is being written by process" in error
        assert "another --log-dir" in error
        assert error.count("\n") <= 2
    finally:
        first.terminate()
        first.communicate(timeout=60)


def test_a_port_in_use_is_named(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        process = launcher(tmp_path, "--port", str(port), command="pass")
        _, error = process.communicate(timeout=60)
    assert process.returncode == 1
    assert f"--master 127.0.0.1 --port {port}: it is in use; give another one" in error
    assert not (tmp_path / "logs").exists()
