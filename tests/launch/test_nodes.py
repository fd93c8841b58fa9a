"""Two nodes on loopback with a recording command in place of training: what each rank finds in its environment."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from pangu_alpha.parallel.rank_table_writing import table_of_hosts, write_rank_table

ROOT = Path(__file__).resolve().parents[2]
RECORD = "import json, os; open(f\"rank_{os.environ['RANK_ID']}.json\", 'w').write(json.dumps(dict(os.environ)))"
RUN = ["parallel.data_parallel=2", "parallel.optimizer_shards=1", "parallel.model_parallel=2", "train.device=ascend"]
NAMES = ("MS_ROLE", "MS_SCHED_HOST", "MS_SCHED_PORT", "MS_WORKER_NUM", "MS_NODE_ID", "RANK_ID", "RANK_SIZE",
         "DEVICE_ID", "RANK_TABLE_FILE", "HCCL_CONNECT_TIMEOUT")  # fmt: skip


def start_node(folder: Path, node: int, *words: str) -> subprocess.Popen:
    """`pangu-alpha launch` on one of the "nodes", its ranks recording their environment."""
    (folder / "record.py").write_text(RECORD)
    return subprocess.Popen(
        [sys.executable, "-m", "pangu_alpha.cli.main", "launch", "--config", str(ROOT / "configs/runs/13b_16.yaml"),
         *RUN, "--log-dir", f"logs_{node}", "--command", f"{sys.executable} record.py", *words],
        cwd=folder, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


def recorded(folder: Path) -> list[dict[str, str]]:
    """Of each rank the variables that matter."""
    result = []
    for rank in range(4):
        found = json.loads((folder / f"rank_{rank}.json").read_text())
        result.append({name: found[name] for name in NAMES if name in found})
    return result


def end(nodes: list[subprocess.Popen]) -> None:
    for node in nodes:
        _, error = node.communicate(timeout=60)
        assert node.returncode == 0, error


def test_with_a_rank_table_each_node_finds_its_ranks(tmp_path):
    path = tmp_path / "hccl.json"
    write_rank_table(table_of_hosts([("127.0.0.1", ["192.168.0.1", "192.168.0.2"]), ("127.0.0.2", ["192.168.0.3", "192.168.0.4"])]), path)  # fmt: skip  # noqa: E501
    table = ["--rank-table", str(path)]
    # The first node is found by its own address, the second one is told, as both are this machine.
    end([start_node(tmp_path, 0, *table), start_node(tmp_path, 1, *table, "--server", "127.0.0.2")])
    assert recorded(tmp_path) == [
        {
            "RANK_ID": str(rank),
            "RANK_SIZE": "4",
            "DEVICE_ID": str(rank % 2),
            "RANK_TABLE_FILE": str(path),
            "HCCL_CONNECT_TIMEOUT": "7200",
        }
        for rank in range(4)
    ]


def test_without_one_the_ranks_are_told_of_the_scheduler(tmp_path):
    words = ["--workers", "4", "--local-workers", "2", "--master", "127.0.0.1", "--port", "18118", "--node-rank"]
    # The second node has no scheduler; the first one's would wait for workers that never come, and is ended with them.
    end([start_node(tmp_path, node, *words, str(node)) for node in range(2)])
    assert recorded(tmp_path) == [
        {
            "MS_ROLE": "MS_WORKER",
            "MS_SCHED_HOST": "127.0.0.1",
            "MS_SCHED_PORT": "18118",
            "MS_WORKER_NUM": "4",
            "MS_NODE_ID": str(rank),
            "RANK_ID": str(rank),
            "RANK_SIZE": "4",
            "DEVICE_ID": str(rank % 2),
            "HCCL_CONNECT_TIMEOUT": "7200",
        }
        for rank in range(4)
    ]
    assert (tmp_path / "logs_0" / "scheduler.log").exists()
    assert not (tmp_path / "logs_1" / "scheduler.log").exists()
