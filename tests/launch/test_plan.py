"""What each rank of each node is started with, for the three ways; compared with what MindSpore documents."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest

from pangu_alpha.cli.main import main
from pangu_alpha.launch.plan import by_rank_table, by_scheduler
from pangu_alpha.parallel.rank_table_writing import table_of_hosts, write_rank_table

COMMAND = ["python", "train.py"]
TABLE = table_of_hosts([("10.0.0.1", ["192.168.0.1", "192.168.0.2"]), ("10.0.0.2", ["192.168.0.3", "192.168.0.4"])])


def test_a_rank_table_start_sets_what_the_official_scripts_export():
    plan = by_rank_table(TABLE, Path("/tables/hccl.json"), TABLE.servers[1], COMMAND)
    assert [process.name for process in plan.processes] == ["worker_2", "worker_3"]
    assert plan.processes[1].environment == {
        "RANK_TABLE_FILE": "/tables/hccl.json",
        "RANK_ID": "3",
        "RANK_SIZE": "4",
        "DEVICE_ID": "1",
        "HCCL_CONNECT_TIMEOUT": "7200",
    }


def test_a_start_without_rank_table_sets_what_msrun_exports():
    first = by_scheduler(4, 2, 0, "10.0.0.1", 8118, COMMAND, on_ascend=False)
    second = by_scheduler(4, 2, 1, "10.0.0.1", 8118, COMMAND, on_ascend=True)
    assert [process.name for process in first.processes] == ["scheduler", "worker_0", "worker_1"]
    assert [process.name for process in second.processes] == ["worker_2", "worker_3"]
    shared = {
        "MS_SCHED_HOST": "10.0.0.1", "MS_SCHED_PORT": "8118", "MS_WORKER_NUM": "4", "MS_TOPO_TIMEOUT": "600",
        "RANK_SIZE": "4",
    }  # fmt: skip
    assert first.processes[0].environment == shared | {"MS_ROLE": "MS_SCHED", "RANK_ID": "0"}
    own = {"MS_ROLE": "MS_WORKER", "MS_NODE_ID": "3", "RANK_ID": "3", "DEVICE_ID": "1", "HCCL_CONNECT_TIMEOUT": "7200"}
    assert second.processes[1].environment == shared | own


@pytest.fixture(autouse=True)
def in_checkout(monkeypatch, repository):
    monkeypatch.chdir(repository)


def test_print_only_shows_every_node(capsys, tmp_path):
    hosts = [(f"10.0.0.{server}", [f"192.168.{server}.{device}" for device in range(8)]) for server in (1, 2)]
    path = tmp_path / "hccl.json"
    write_rank_table(table_of_hosts(hosts), path)
    run = ["launch", "--config", "configs/runs/13b_16.yaml", "--rank-table", str(path), "--print-only"]
    assert main(run) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("#")] == ["# 10.0.0.1", "# 10.0.0.2"]
    words = shlex.split(lines[-1])
    assert {"RANK_ID=15", "DEVICE_ID=7", "RANK_SIZE=16"} <= set(words)
    assert words[-4:] == ["pangu_alpha.cli.main", "train", "--config", "configs/runs/13b_16.yaml"]
    assert words[-6] == sys.executable


SIXTEEN = ["--config", "configs/runs/13b_16.yaml", "--workers", "16", "--local-workers"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--config", "configs/runs/13b_16.yaml", "--workers", "8"], "8 processes are asked for, and"),
        ([*SIXTEEN, "5"], "--local-workers 5: it must divide the 16 workers"),
        ([*SIXTEEN, "8", "--node-rank", "2"], "--node-rank 2: there are 2 nodes"),
        (["--workers", "2", "--port", "80"], "--port 80: it must lie between 1024 and 65535"),
        (["--workers", "2", "--port", "9000", "--master", "::1"], "MindSpore takes no IPv6 address"),
        (
            ["--config", "configs/runs/2.6b_8.yaml", "--device", "cpu"],
            "parallel.model_parallel is 8; on a CPU MindSpore runs data parallelism alone",
        ),
        (["--rank-table", "no.json", "--workers", "2"], "--rank-table says how many workers there are"),
        (["--config", "configs/runs/13b_16.yaml", "--rank-table", "no.json"], "no.json: cannot be read"),
        (["--workers", "3"], "parallel.data_parallel is 3; it must divide the"),
    ],
)
def test_bad_use_is_one_line(words, message, capsys):
    assert main(["launch", *words]) in (1, 2)
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_rank_table_that_contradicts_the_run_or_this_machine(capsys, tmp_path):
    path = tmp_path / "hccl.json"
    write_rank_table(TABLE, path)
    run = ["launch", "--config", "configs/runs/13b_16.yaml", "--rank-table", str(path)]
    assert main(run) == 1
    assert "has 4 devices, and configs/runs/13b_16.yaml is laid out on 16" in capsys.readouterr().err
    smaller = ["parallel.data_parallel=1", "parallel.optimizer_shards=1", "parallel.model_parallel=4"]
    assert main([*run, *smaller]) == 1
    error = capsys.readouterr().err
    assert "is none of its servers (10.0.0.1, 10.0.0.2); --server ADDRESS names the one that it is" in error
    assert error.count("\n") == 1
