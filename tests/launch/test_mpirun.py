"""Open MPI itself starts ranks on this machine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pangu_alpha.launch.mpirun import by_mpirun, first_failed_rank

ROOT = Path(__file__).resolve().parents[2]

needs_mpirun = pytest.mark.skipif(not shutil.which("mpirun"), reason="no mpirun here (Debian: openmpi-bin)")


def launch(folder: Path, code: str, *words: str) -> subprocess.CompletedProcess:
    (folder / "worker.py").write_text(code)
    return subprocess.run(
        [sys.executable, "-m", "pangu_alpha.cli.main", "launch", "--config", str(ROOT / "configs/runs/350m_8gpu.yaml"),
         "--device", "gpu", "--start", "mpirun", "--workers", "8", "--log-dir", "logs",
         "--command", f"{sys.executable} -u worker.py", *words],
        cwd=folder, capture_output=True, text=True, timeout=120, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


def test_it_is_one_command(tmp_path, monkeypatch):
    monkeypatch.setenv("NCCL_DEBUG", "INFO")
    (process,) = by_mpirun(16, "hosts", ["python", "train"], tmp_path).processes
    assert process.command[:5] == ("mpirun", "-n", "16", "--hostfile", "hosts")
    assert process.command[-2:] == ("python", "train")
    assert process.command[process.command.index("NCCL_DEBUG") - 1] == "-x"


@needs_mpirun
def test_every_rank_learns_who_it_is(tmp_path):
    code = "import json, os\nprint(json.dumps({k: v for k, v in os.environ.items() if k.startswith('OMPI_COMM')}))"
    done = launch(tmp_path, code)
    assert done.returncode == 0, done.stderr
    assert "all: one mpirun; logs in logs" in done.stderr
    for rank in range(8):
        said = json.loads((tmp_path / "logs" / "mpi" / "1" / f"rank.{rank}" / "stdout").read_text())
        assert said["OMPI_COMM_WORLD_RANK"] == said["OMPI_COMM_WORLD_LOCAL_RANK"] == str(rank)
        assert said["OMPI_COMM_WORLD_SIZE"] == "8"


@needs_mpirun
@pytest.mark.parametrize(
    ("end", "said"),
    [("sys.exit(9)", "ended with exit code 9"), ("os.kill(os.getpid(), 9)", "was ended by SIGKILL")],
)
def test_the_rank_that_failed_is_named_with_its_last_lines(tmp_path, end, said):
    code = "import os, sys, time\nif os.environ['OMPI_COMM_WORLD_RANK'] == '5':\n    print('boom', flush=True)\n"
    done = launch(tmp_path, f"{code}    time.sleep(1)\n    {end}\ntime.sleep(100)")
    assert done.returncode == 1
    *_, shown, last = done.stderr.splitlines()
    log = "logs/mpi/1/rank.5/stdout"
    assert last == f"pangu-alpha: worker_5 {said}; the others are stopped; its log is {log}"
    assert shown == "  boom"


def test_where_mpirun_names_no_rank(tmp_path):
    log = tmp_path / "mpirun.log"
    log.write_text("There are not enough slots available in the system\n")
    assert first_failed_rank(log) is None
    log.write_text("  Process name: [[3091,1],2]\n  Exit code:    9\n")
    assert first_failed_rank(log) is None  # its log is on another node
