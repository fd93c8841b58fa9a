"""`pangu-alpha topology`: where each rank of a run sits, which groups cross which links, and rank tables."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from pangu_alpha.cli.common import add_config_arguments, format_table, load_run
from pangu_alpha.config_checks import InvalidValue
from pangu_alpha.errors import UsageError

if TYPE_CHECKING:
    from pangu_alpha.parallel.topology import Topology

EXAMPLES = """
pangu-alpha topology --config configs/runs/200b_2048_paper.yaml
pangu-alpha topology --config configs/runs/200b_2048_paper.yaml --picture topology.svg
pangu-alpha topology --config configs/runs/13b_16.yaml --hosts hosts.txt --write hccl.json
pangu-alpha topology --config configs/runs/13b_16.yaml --merge a.json b.json --write hccl.json
pangu-alpha topology --config configs/runs/200b_2048_paper.yaml --rank-table hccl.json --write hccl_mapped.json
"""

PICTURES = (".svg", ".png")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the job."""
    add_config_arguments(parser, "configs/runs/200b_2048_paper.yaml")
    parser.add_argument("--picture", metavar="FILE", help="draw it (.svg or .png)")
    parser.add_argument("--rank-table", metavar="FILE", help="a rank table, to be checked against the run")
    parser.add_argument("--merge", metavar="FILE", nargs="+", help="rank tables of single servers, to be made one")
    parser.add_argument(
        "--hosts", metavar="FILE", help="a line a server: its address, then those of its devices' network cards"
    )
    parser.add_argument("--write", metavar="FILE", help="write the rank table with ranks in the order of this mapping")


def run(arguments: argparse.Namespace) -> int:
    """Print the mapping; draw and write what is asked for."""
    from pangu_alpha.parallel.topology import Topology

    loaded, layout = load_run(arguments.config, arguments.overrides)
    picture = Path(arguments.picture) if arguments.picture else None
    if picture and picture.suffix not in PICTURES:
        raise UsageError(f"--picture {picture}: it must end with {' or '.join(PICTURES)}")
    try:
        topology = Topology(layout, loaded.config.cluster)
    except InvalidValue as error:
        raise UsageError(f"{loaded.sources[error.key]}: {error.key} is {error.value}; {error.allowed}") from None
    print(format_topology(topology))
    if picture:
        from pangu_alpha.parallel.topology_picture import draw_topology

        draw_topology(topology, picture)
        print(f"\npicture: {picture}")
    _rank_table(arguments, topology)
    return 0


def format_topology(topology: Topology) -> str:
    """The mapping as two tables: servers, and groups by the links that they cross."""
    layout, cluster = topology.layout, topology.cluster
    machines = (
        f"{cluster.devices_per_server} a server, {cluster.servers_per_rack} servers a rack, {cluster.racks} racks"
    )
    lines = [str(layout), f"{cluster.processor or 'devices'}: {machines}"]
    speeds = {
        "server": cluster.server_link_gigabytes,
        "rack": cluster.rack_link_gigabytes,
        "spine": cluster.spine_link_gigabytes,
    }
    rows = []
    for kind, links in sorted(topology.links_of_groups().items()):
        size = len(next(group for group in topology.groups() if group.kind == kind).ranks)
        counts = [f"{links[link]:,}" if links[link] else "" for link in speeds]
        rows.append([kind, f"{sum(links.values()):,}", str(size), *counts])
    header = ["group", "groups", "ranks each"] + [f"{name} ({speed:g} GB/s)" for name, speed in speeds.items()]
    if rows:
        lines += ["", "how far groups reach:", format_table(header, rows, right=range(1, 6))]
    lines += ["", "who sits where:", format_table(["rack", "server", "stage", "replica", "ranks"], _servers(topology))]
    return "\n".join(lines)


MOST_SERVERS = 24
"""Servers that are listed; of more, the first and the last."""


def _servers(topology: Topology) -> list[list[str]]:
    per_server = topology.cluster.devices_per_server
    count = -(-len(topology.ranks) // per_server)
    rows = []
    for server in range(count):
        if count > MOST_SERVERS and MOST_SERVERS - 4 <= server < count - 3:
            if server == MOST_SERVERS - 4:
                rows.append(["…", f"{count - MOST_SERVERS + 1} more", "", "", ""])
            continue
        ranks = topology.ranks[server * per_server : (server + 1) * per_server]
        stages = sorted({topology.layout.stage_of(rank) for rank in ranks})
        replicas = sorted({topology.layout.data_index(rank) for rank in ranks})
        rack = topology.place(ranks[0]).rack
        rows.append([str(rack), str(server), _span(stages), _span(replicas), _span(sorted(ranks))])
    return rows


def _span(numbers: list[int]) -> str:
    if len(numbers) > 1 and numbers == list(range(numbers[0], numbers[-1] + 1)):
        return f"{numbers[0]}-{numbers[-1]}"
    return ", ".join(map(str, numbers))


def _rank_table(arguments: argparse.Namespace, topology: Topology) -> None:
    from pangu_alpha.parallel.rank_table import read_rank_table
    from pangu_alpha.parallel.rank_table_writing import (
        merge_rank_tables,
        read_hosts,
        reorder_ranks,
        table_of_hosts,
        write_rank_table,
    )

    sources = [name for name in ("rank_table", "merge", "hosts") if getattr(arguments, name)]
    if len(sources) > 1:
        raise UsageError("--rank-table, --merge and --hosts all say where a rank table comes from; give one of them")
    if not sources:
        if arguments.write:
            raise UsageError("--write needs a rank table: --rank-table FILE, --merge FILES or --hosts FILE")
        return
    if arguments.rank_table:
        table = read_rank_table(arguments.rank_table)
    elif arguments.merge:
        table = merge_rank_tables([read_rank_table(path) for path in arguments.merge])
    else:
        table = table_of_hosts(read_hosts(arguments.hosts))
    table = reorder_ranks(table, topology.ranks)
    if arguments.write:
        write_rank_table(table, arguments.write)
        print(f"\nrank table: {arguments.write} ({len(table.servers)} servers, {table.devices} devices)")
    else:
        print(f"\nthe rank table fits: {len(table.servers)} servers, {table.devices} devices")
