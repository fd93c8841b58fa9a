"""What fails on one node is known on all, within seconds, and all start again together."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pangu_alpha.launch.host import free_port
from pangu_alpha.launch.node_link import NodeLink
from pangu_alpha.parallel.rank_table_writing import table_of_hosts, write_rank_table

ROOT = Path(__file__).resolve().parents[2]
RUN = ["parallel.data_parallel=2", "parallel.optimizer_shards=1", "parallel.model_parallel=2", "train.device=ascend"]
LAST_RANK_FAILS = """
import os, time
print("rank", os.environ["RANK_ID"], flush=True)
if os.environ["RANK_ID"] == "3":
    time.sleep(1.5)
    print("out of memory, say", flush=True)
    raise SystemExit(7)
time.sleep(600)
"""


def start_node(folder: Path, node: int, code: str, *words: str) -> subprocess.Popen:
    (folder / "worker.py").write_text(code)
    return subprocess.Popen(
        [sys.executable, "-m", "pangu_alpha.cli.main", "launch", "--config", str(ROOT / "configs/runs/13b_16.yaml"),
         *RUN, "--log-dir", f"logs_{node}", "--command", f"{sys.executable} worker.py", *words],
        cwd=folder, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


def tables(folder: Path, port: int) -> list[list[str]]:
    """Words for both nodes of a start with a rank table; the second "server" is this machine, too."""
    path = folder / "hccl.json"
    hosts = [("127.0.0.1", ["192.168.0.1", "192.168.0.2"]), ("127.0.0.2", ["192.168.0.3", "192.168.0.4"])]
    write_rank_table(table_of_hosts(hosts), path)
    words = ["--rank-table", str(path), "--port", str(port)]
    return [words, [*words, "--server", "127.0.0.2"]]


def left_in(folder: Path) -> list[str]:
    found = []
    for link in Path("/proc").glob("[0-9]*/cwd"):
        try:
            if link.readlink() == folder:
                found.append(link.parent.name)
        except OSError:
            continue
    return found


def wait_for(condition, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.05)


def test_a_rank_that_fails_on_one_node_ends_all_nodes_within_seconds(tmp_path):
    nodes = [start_node(tmp_path, node, LAST_RANK_FAILS, *words) for node, words in enumerate(tables(tmp_path, 18130))]
    log = tmp_path / "logs_1" / "worker_3.log"
    wait_for(lambda: log.exists() and "out of memory" in log.read_text())
    failed_at = time.monotonic()
    errors = [node.communicate(timeout=60)[1].splitlines() for node in nodes]
    assert time.monotonic() - failed_at < 10
    assert [node.returncode for node in nodes] == [1, 1]
    failure = "node 1: worker_3 ended with exit code 7; its log is logs_1/worker_3.log"
    assert errors[0][-1] == f"pangu-alpha: {failure}; the processes of this node are stopped"
    assert "  out of memory, say" in errors[0]
    assert errors[1][-1].startswith("pangu-alpha: worker_3 ended with exit code 7; the others are stopped")
    wait_for(lambda: not left_in(tmp_path), 10)


def test_all_nodes_start_again_together(tmp_path):
    code = "import os, pathlib, time\nrank = os.environ['RANK_ID']\n"
    code += "log = pathlib.Path(f'starts_{rank}'); log.open('a').write('x')\nstart = log.stat().st_size\n"
    code += "time.sleep(1)\nif start == 1 and rank == '0': raise SystemExit(5)\ntime.sleep(60 if start == 1 else 1)"
    words = tables(tmp_path, 18132)
    nodes = [start_node(tmp_path, node, code, *words[node], "--restarts", "1") for node in range(2)]
    for node in nodes:
        _, error = node.communicate(timeout=60)
        assert node.returncode == 0, error
        assert "start 2 of 2" in error
        assert "no line between" not in error
    assert [(tmp_path / f"starts_{rank}").read_text() for rank in range(4)] == ["xx"] * 4


def test_a_launcher_that_is_killed_ends_the_others(tmp_path):
    code = "import os, time; print('ready', flush=True); time.sleep(600)"
    nodes = [start_node(tmp_path, node, code, *words) for node, words in enumerate(tables(tmp_path, 18134))]
    logs = [tmp_path / f"logs_{rank // 2}" / f"worker_{rank}.log" for rank in range(4)]
    wait_for(lambda: all(log.exists() and "ready" in log.read_text() for log in logs))
    time.sleep(1.5)  # the line between them is made while workers start
    nodes[1].send_signal(signal.SIGKILL)
    _, error = nodes[0].communicate(timeout=20)
    assert nodes[0].returncode == 1
    assert error.splitlines()[-1] == (
        "pangu-alpha: node 1: its launcher is gone; the processes of this node are stopped"
    )
    nodes[1].communicate(timeout=20)
    wait_for(lambda: not left_in(tmp_path), 10)


def test_leaving_is_no_failure():
    port = free_port()
    with NodeLink("127.0.0.1", port, 0, 2, "job") as first:
        with NodeLink("127.0.0.1", port, 1, 2, "job") as second:
            wait_for(lambda: second._lines, 10)
        time.sleep(0.3)
        assert first.failure() is None


@pytest.mark.parametrize("other", [("another job", 0), ("job", 1)])
def test_strangers_are_turned_away(other):
    port = free_port()
    with NodeLink("127.0.0.1", port, 0, 2, "job") as first, NodeLink("127.0.0.1", port, 1, 2, *other) as stranger:
        stranger.tell("worker_9 ended", [])
        with socket.create_connection(("127.0.0.1", port)) as line:
            line.sendall(json.dumps({"failed": "all"}).encode() + b"\n")
        with socket.create_connection(("127.0.0.1", port)) as line:
            line.sendall(b"GET / HTTP/1.1\r\n\r\n")
        time.sleep(1)
        assert first.failure() is None
        assert stranger.failure() is None
        assert not stranger._lines


def test_without_a_line_training_goes_on_after_a_warning(caplog):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with NodeLink("127.0.0.1", port, 0, 2, "job") as link:
            assert link.failure() is None
    assert f"no line between the nodes' launchers at 127.0.0.1 port {port} (Address already in use)" in caplog.text
