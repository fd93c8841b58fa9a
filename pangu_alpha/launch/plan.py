"""Which processes a node starts, and each one's environment, for the three ways that MindSpore knows.

| way        | who finds whom                                                | variables that are set |
|------------|---------------------------------------------------------------|------------------------|
| rank-table | HCCL reads addresses and ranks from a file                    | RANK_TABLE_FILE, RANK_ID, RANK_SIZE, DEVICE_ID |
| msrun      | a scheduler process on the first node, as MindSpore's msrun has | MS_ROLE, MS_SCHED_HOST, MS_SCHED_PORT, MS_WORKER_NUM, MS_NODE_ID, MS_TOPO_TIMEOUT, RANK_ID, RANK_SIZE, DEVICE_ID |
| mpirun     | Open MPI (launch/mpirun.py)                                   | its own |
"""  # noqa: E501 (a table)

from __future__ import annotations

import hashlib
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pangu_alpha.parallel.rank_table import RankTable, Server

CONNECT_SECONDS = "7200"
"""How long ranks wait for each other: compiling 200B takes long, and not equally long everywhere (official scripts)."""
TOPOLOGY_SECONDS = "600"
"""How long a scheduler waits for all workers (msrun's default)."""
SCHEDULER_PROGRAM = ("-m", "pangu_alpha.launch.scheduler")


@dataclass(frozen=True)
class ProcessPlan:
    """One process to start."""

    name: str
    """worker_<rank>, scheduler or mpirun; its log is <name>.log."""
    command: tuple[str, ...]
    """Program and arguments."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables beside those that the launcher has itself."""
    rank: int | None = None
    """Rank of a worker."""

    def __str__(self) -> str:
        variables = " ".join(f"{name}={shlex.quote(value)}" for name, value in self.environment.items())
        return f"{variables} {shlex.join(self.command)}".strip()


@dataclass(frozen=True)
class NodePlan:
    """What one node starts."""

    name: str
    """Its address, or its number where addresses are not known."""
    processes: tuple[ProcessPlan, ...]
    """The scheduler first, if it is here."""
    node_rank: int = 0
    """Number of the node."""
    nodes: int = 1
    """How many nodes start processes of the job, each by a launcher of its own."""
    master: str = ""
    """Address of the first node."""
    job: str = ""
    """What tells this job's launchers from others'."""


def by_rank_table(table: RankTable, path: Path, server: Server, command: Sequence[str]) -> NodePlan:
    """A worker for each device of `server` in the rank table at `path`."""
    processes = []
    for device in sorted(server.devices, key=lambda device: device.rank):
        environment = {
            "RANK_TABLE_FILE": str(path.resolve()),
            "RANK_ID": str(device.rank),
            "RANK_SIZE": str(table.devices),
            "DEVICE_ID": str(device.number),
            "HCCL_CONNECT_TIMEOUT": CONNECT_SECONDS,
        }
        processes.append(ProcessPlan(f"worker_{device.rank}", tuple(command), environment, device.rank))
    names = [each.name for each in table.servers]
    job = hashlib.sha256(repr(table.servers).encode()).hexdigest()
    return NodePlan(server.name, tuple(processes), names.index(server.name), len(names), names[0], job)


def by_scheduler(
    workers: int, local_workers: int, node_rank: int, master: str, port: int, command: Sequence[str], on_ascend: bool
) -> NodePlan:
    """The workers of node `node_rank`, each node having `local_workers`, and on the first node the scheduler."""
    shared = {
        "MS_SCHED_HOST": master,
        "MS_SCHED_PORT": str(port),
        "MS_WORKER_NUM": str(workers),
        "MS_TOPO_TIMEOUT": TOPOLOGY_SECONDS,
        "RANK_SIZE": str(workers),
    }
    if on_ascend:
        shared["HCCL_CONNECT_TIMEOUT"] = CONNECT_SECONDS
    processes = []
    if node_rank == 0:
        environment = {"MS_ROLE": "MS_SCHED", **shared, "RANK_ID": "0"}
        processes.append(ProcessPlan("scheduler", (sys.executable, *SCHEDULER_PROGRAM), environment))
    for device in range(local_workers):
        rank = node_rank * local_workers + device
        own = {"MS_NODE_ID": str(rank), "RANK_ID": str(rank), "DEVICE_ID": str(device)}
        environment = {"MS_ROLE": "MS_WORKER", **shared, **own}
        processes.append(ProcessPlan(f"worker_{rank}", tuple(command), environment, rank))
    nodes = workers // local_workers
    return NodePlan(f"node {node_rank}", tuple(processes), node_rank, nodes, master, f"{workers} by {master}:{port}")


def format_plan(plans: Sequence[NodePlan]) -> str:
    """The commands of all nodes, to read or to paste."""
    lines = []
    for plan in plans:
        lines.append(f"# {plan.name}")
        lines += [str(process) for process in plan.processes]
    return "\n".join(lines)
