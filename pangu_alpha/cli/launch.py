"""`pangu-alpha launch`: start all processes of a run on this node, and see them to their end."""

from __future__ import annotations

import argparse
import logging
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pangu_alpha.cli.common import add_config_arguments, load_run
from pangu_alpha.errors import PanguError, UsageError

if TYPE_CHECKING:
    from pangu_alpha.launch.plan import NodePlan
    from pangu_alpha.parallel.layout import Layout
    from pangu_alpha.parallel.rank_table import RankTable, Server

logger = logging.getLogger(__name__)

EXAMPLES = """
pangu-alpha launch --config configs/quickstart.yaml --device cpu --workers 2 name=two
pangu-alpha launch --config configs/runs/2.6b_8.yaml --rank-table hccl_8p.json
pangu-alpha launch --config configs/runs/13b_16.yaml --workers 16 --local-workers 8 --master 10.0.0.1 --node-rank 1
pangu-alpha launch --config configs/runs/350m_8gpu.yaml --device gpu --start mpirun --workers 8
pangu-alpha launch --config configs/runs/200b_2048.yaml --rank-table hccl.json --print-only
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the job."""
    add_config_arguments(parser, "configs/quickstart.yaml")
    parser.add_argument("--profile", metavar="FIRST-LAST", help="write a trace of these steps, e.g. 3-5")
    parser.add_argument("--device", choices=["cpu", "gpu", "ascend"], help="as train.device=…")
    parser.add_argument("--rank-table", metavar="FILE", help="Ascend: addresses and ranks of all devices")
    parser.add_argument("--server", metavar="ADDRESS", help="this node in the table (default: by its addresses)")
    parser.add_argument("--workers", type=int, metavar="N", help="processes of all nodes, one a device")
    parser.add_argument("--local-workers", type=int, metavar="N", help="of them on each node (default: all)")
    parser.add_argument("--master", metavar="ADDRESS", default="127.0.0.1", help="the first node (default: this one)")
    parser.add_argument("--port", type=int, metavar="PORT", help="of the first node (default: 8118; alone: a free one)")
    parser.add_argument("--node-rank", type=int, metavar="N", default=0, help="number of this node, the first is 0")
    parser.add_argument("--start", choices=["msrun", "mpirun"], default="msrun", help="without a rank table (msrun)")
    parser.add_argument("--hostfile", metavar="FILE", default="", help="with --start mpirun: its file of hosts")
    parser.add_argument("--log-dir", metavar="DIR", default="output/msrun_log", help="a log a process (%(default)s)")
    parser.add_argument("--restarts", type=int, metavar="N", default=0, help="start again so often after a failure")
    parser.add_argument("--print-only", action="store_true", help="show each node's commands, start nothing")
    parser.add_argument("--command", help=argparse.SUPPRESS)  # what workers run instead of training, for tests


def run(arguments: argparse.Namespace) -> int:
    """Launch; 0 also when a signal stopped the run after a checkpoint."""
    words = list(arguments.overrides)
    if arguments.device:
        words.append(f"train.device={arguments.device}")
    if arguments.profile:
        words.append(f"train.profile={arguments.profile}")
    loaded, layout = load_run(arguments.config, words)
    workers = _workers(arguments)
    if workers and layout.devices == 1 and workers > 1:
        words.append(f"parallel.data_parallel={workers}")
        loaded, layout = load_run(arguments.config, words)
    if workers and workers != layout.devices:
        raise UsageError(
            f"{workers} processes are asked for, and {arguments.config} is laid out on {layout.devices} ({layout}); "
            "change --workers, or the section parallel"
        )
    if layout.devices == 1:
        return _train_here(arguments.config, words)
    if loaded.config.train.device == "cpu":
        from pangu_alpha.parallel.layout import require_data_parallel_alone

        require_data_parallel_alone(layout)
    command = arguments.command.split() if arguments.command else _training(arguments.config, words)
    plans = _plans(arguments, layout, command, loaded.config.train.device)
    if arguments.print_only:
        from pangu_alpha.launch.plan import format_plan

        print(format_plan(plans))
        return 0
    if not arguments.command:
        _prepare(arguments.config, words)
    _supervise(arguments, plans[0])
    return 0


def _train_here(config: str | None, words: Sequence[str]) -> int:
    from pangu_alpha.cli import train

    return train.run(argparse.Namespace(config=config, overrides=list(words), profile=None))


def _training(config: str | None, words: Sequence[str]) -> list[str]:
    given = ["--config", str(config)] if config else []
    return [sys.executable, "-m", "pangu_alpha.cli.main", "train", *given, *words]


def _prepare(config: str | None, words: Sequence[str]) -> None:
    """Make the training samples before the workers ask for them, all at once."""
    given = ["--config", str(config)] if config else []
    done = subprocess.run([sys.executable, "-m", "pangu_alpha.cli.main", "prepare", *given, *words], stdout=sys.stderr)
    if done.returncode:
        raise PanguError("nothing was launched, as the text could not be prepared; the line above says why")


def _workers(arguments: argparse.Namespace) -> int | None:
    if arguments.rank_table:
        if arguments.workers:
            raise UsageError("--rank-table says how many workers there are; leave --workers out")
        return None
    return arguments.workers


def _plans(arguments: argparse.Namespace, layout: Layout, command: Sequence[str], device: str) -> list[NodePlan]:
    """The plan of this node, or with --print-only those of all."""
    from pangu_alpha.launch.mpirun import by_mpirun
    from pangu_alpha.launch.plan import by_rank_table, by_scheduler

    if arguments.rank_table:
        from pangu_alpha.parallel.rank_table import read_rank_table

        path = Path(arguments.rank_table)
        table = read_rank_table(path)
        if table.devices != layout.devices:
            raise PanguError(
                f"{path} has {table.devices} devices, and {arguments.config} is laid out on {layout.devices} ({layout})"
            )
        if arguments.print_only:
            return [by_rank_table(table, path, server, command) for server in table.servers]
        return [by_rank_table(table, path, _own_server(table, path, arguments.server), command)]
    if arguments.start == "mpirun":
        if not arguments.print_only and not shutil.which("mpirun"):
            raise PanguError("--start mpirun: there is no mpirun on this machine; install Open MPI, or use msrun")
        return [by_mpirun(layout.devices, arguments.hostfile, command, Path(arguments.log_dir))]
    local = arguments.local_workers or layout.devices
    if layout.devices % local:
        raise UsageError(f"--local-workers {local}: it must divide the {layout.devices} workers")
    nodes = layout.devices // local
    if not 0 <= arguments.node_rank < nodes:
        raise UsageError(f"--node-rank {arguments.node_rank}: there are {nodes} nodes, numbered from 0")
    port = _port(arguments, nodes)
    ranks = range(nodes) if arguments.print_only else [arguments.node_rank]
    on_ascend = device == "ascend"
    return [by_scheduler(layout.devices, local, rank, arguments.master, port, command, on_ascend) for rank in ranks]


def _port(arguments: argparse.Namespace, nodes: int) -> int:
    from pangu_alpha.launch.host import free_port, require_master

    if nodes == 1 and arguments.port is None and not arguments.print_only:
        return free_port()
    port = 8118 if arguments.port is None else int(arguments.port)
    require_master(arguments.master, port, arguments.node_rank == 0 and not arguments.print_only)
    return port


def _own_server(table: RankTable, path: Path, name: str | None) -> Server:
    from pangu_alpha.launch.host import own_addresses

    names = [name] if name else own_addresses()
    server = table.server_of(names)
    if server is None:
        listed = ", ".join(server.name for server in table.servers[:8])
        raise PanguError(
            f"{path}: this machine ({', '.join(names)}) is none of its servers ({listed}"
            f"{' …' if len(table.servers) > 8 else ''}); --server ADDRESS names the one that it is"
        )
    return server


def _supervise(arguments: argparse.Namespace, plan: NodePlan) -> None:
    from pangu_alpha.launch.node_link import NodeLink
    from pangu_alpha.launch.supervisor import Supervisor

    supervisor = Supervisor(Path(arguments.log_dir))
    workers = sum(process.rank is not None for process in plan.processes)
    for attempt in range(arguments.restarts + 1):
        started = f"{workers} worker{'s' * (workers > 1)}" if workers else "one mpirun"
        logger.info("%s: %s; logs in %s", plan.name, started, arguments.log_dir)
        try:
            port = (arguments.port or 8118) + 1  # beside the scheduler's
            with NodeLink(plan.master, port, plan.node_rank, plan.nodes, plan.job, attempt) as link:
                supervisor.run(plan.processes, link)
            return
        except PanguError as error:
            if attempt == arguments.restarts or supervisor.was_stopped:
                raise
            logger.error("%s; start %d of %d", error, attempt + 2, arguments.restarts + 1)
