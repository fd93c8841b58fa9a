"""`pangu-alpha doctor`: real answers of this machine, and of tools and tables that are made up."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path

import pytest

from pangu_alpha.cli.main import main
from pangu_alpha.launch import doctor
from pangu_alpha.launch.doctor import FAILED, PASSED, WARNING, Patient, examine
from pangu_alpha.launch.host import own_addresses
from pangu_alpha.parallel.rank_table_writing import table_of_hosts, write_rank_table


def state(findings, name: str):
    return next((finding.state, finding.text) for finding in findings if finding.name == name)


def test_this_machine_can_train_on_its_cpu(capsys, tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    assert main(["doctor", "--output", str(tmp_path / "runs"), "--port", str(port)]) == 0
    shown = capsys.readouterr().out
    assert "CPU adds" in shown
    assert shown.endswith("\ntraining can start\n")


@pytest.fixture
def quick(monkeypatch):
    """Without the addition on the device, which takes seconds."""
    monkeypatch.setattr(doctor, "_device", lambda patient: [])


def tool(folder: Path, monkeypatch, name: str, answer: str, code: int = 0) -> None:
    """A program of that name, first on the path."""
    path = folder / name
    path.write_text(f"#!/bin/sh\ncat <<'EOF'\n{answer}\nEOF\nexit {code}\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def test_a_gpu_s_driver_is_asked(tmp_path, monkeypatch, quick):
    name, text = "NVIDIA driver", "NVIDIA H100 80GB HBM3, 550.54.15"
    tool(tmp_path, monkeypatch, "nvidia-smi", text)
    assert state(examine(Patient("gpu")), name) == (PASSED, text)
    tool(tmp_path, monkeypatch, "nvidia-smi", "NVIDIA-SMI has failed", code=9)
    assert state(examine(Patient("gpu")), name)[0] == FAILED
    assert state(examine(Patient("gpu")), "CUDA")[1].startswith("MindSpore wants 11.1 or 11.6; the loader finds")


def test_cann_is_found_and_its_version_read(tmp_path, monkeypatch, quick):
    home = tmp_path / "cann"
    (home / "compiler").mkdir(parents=True)
    (home / "compiler" / "version.info").write_text("Version=8.0.RC2\n")
    monkeypatch.setenv("ASCEND_HOME_PATH", str(home))
    tool(tmp_path, monkeypatch, "npu-smi", "| npu-smi 24.1.rc2   Version: 24.1.rc2  |")
    findings = examine(Patient("ascend"))
    assert state(findings, "CANN version") == (PASSED, "8.0.RC2")
    assert state(findings, "npu-smi") == (PASSED, "24.1.rc2")
    monkeypatch.setenv("ASCEND_HOME_PATH", str(tmp_path / "gone"))
    assert state(examine(Patient("ascend")), "CANN")[0] == FAILED


def test_a_rank_table_is_held_against_the_machine(tmp_path, quick):
    path = tmp_path / "hccl.json"
    write_rank_table(table_of_hosts([("10.9.9.9", ["192.168.0.1"]), (own_addresses()[-1], ["192.168.0.2"])]), path)
    assert state(examine(Patient(rank_table=str(path))), "rank table") == (
        PASSED,
        "2 servers, 2 devices; here ranks [1]",
    )
    found, text = state(examine(Patient("ascend", rank_table=str(path))), "devices")
    assert (found, text[:14]) == (FAILED, "/dev/davinci0 ")
    write_rank_table(table_of_hosts([("10.9.9.9", ["192.168.0.1"])]), path)
    found, text = state(examine(Patient(rank_table=str(path))), "rank table")
    assert found == FAILED
    assert "is none of its 1 servers: `pangu-alpha launch --server ADDRESS`" in text
    path.write_text("{}")
    assert state(examine(Patient(rank_table=str(path))), "rank table")[0] == FAILED


def test_a_port_in_use_a_full_disk_and_little_shared_memory(monkeypatch, quick):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        found, text = state(examine(Patient(port=taken.getsockname()[1])), "port")
    assert (found, "it is in use; give another one" in text) == (FAILED, True)
    usage = type(shutil.disk_usage("/"))(10 * 2**20, 9 * 2**20, 2**20)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    findings = examine(Patient())
    assert state(findings, "disk")[0] == FAILED
    assert state(findings, "shared memory")[0] == WARNING  # which stops nothing


def test_the_exit_code_tells(monkeypatch, capsys, quick):
    monkeypatch.setattr(doctor, "_disk", lambda patient: [doctor.Finding("disk", FAILED, "full")])
    assert main(["doctor"]) == 1
    assert "1 of " in capsys.readouterr().out
