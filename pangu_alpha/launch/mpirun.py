"""A start with Open MPI: one mpirun starts the ranks of all nodes."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from pangu_alpha.launch.plan import NodePlan, ProcessPlan

PASSED_ON = ("PATH", "LD_LIBRARY_PATH", "PYTHONPATH", "GLOG_v", "NCCL_DEBUG", "CUDA_VISIBLE_DEVICES")
"""Variables that ranks on other nodes get, where they are set here; Open MPI adds OMPI_COMM_WORLD_RANK and others."""
_FIRST_TO_END = re.compile(r"Process name: \[\[\d+,\d+\],(\d+)\]|process rank (\d+) with PID")


def by_mpirun(workers: int, hostfile: str, command: Sequence[str], log_directory: Path) -> NodePlan:
    """The one command of the first node.

    Args:
        workers: ranks on all nodes.
        hostfile: file of hosts with their slots; empty for this machine alone.
        command: what a rank runs.
        log_directory: each rank's output goes to mpi/1/rank.<rank>/stdout below it.
    """
    # Without a list of hosts Open MPI allows one process a core, and devices are not counted by cores.
    places = ["--hostfile", hostfile] if hostfile else ["--host", f"localhost:{workers}"]
    options = ["--allow-run-as-root", "--output-filename", str(log_directory.resolve() / "mpi")]
    options += ["--merge-stderr-to-stdout"]
    for name in PASSED_ON:
        if name in os.environ:
            options += ["-x", name]
    process = ProcessPlan("mpirun", ("mpirun", "-n", str(workers), *places, *options, *command))
    return NodePlan("all", (process,))


def first_failed_rank(log: Path) -> tuple[int, Path] | None:
    """The rank that mpirun says ended first, and its own log.

    Args:
        log: what mpirun wrote.

    Returns:
        None where mpirun names no rank, such as when it could not start, or its log is on another node.
    """
    found = _FIRST_TO_END.search(log.read_text(encoding="utf-8", errors="replace"))
    if found is None:
        return None
    rank = int(found[1] or found[2])
    # rank.007 where there are more than a hundred.
    own = [path for path in log.parent.glob("mpi/*/rank.*/stdout") if int(path.parent.name[5:]) == rank]
    return (rank, own[0]) if own else None
