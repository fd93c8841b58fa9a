"""Rank tables made, merged, reordered and written."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pangu_alpha.errors import PanguError
from pangu_alpha.files import atomic_write
from pangu_alpha.parallel.rank_table import Device, RankTable, Server, is_address


def format_rank_table(table: RankTable) -> str:
    """The table as the text of a file, in the form that it was read in."""

    def servers_of(group: int) -> list[dict[str, Any]]:
        return [
            {
                "server_id": server.name,
                "device": [
                    {
                        "device_id": str(device.number),
                        **({"device_ip": device.address} if device.address else {}),
                        "rank_id": str(device.rank),
                        **device.other,
                    }
                    for device in server.devices
                ],
                **server.other,
            }
            for server in table.servers
            if server.group == group
        ]

    content: dict[str, Any] = {"version": table.version}
    if table.groups:
        entries = [{**keys, "server_list": servers_of(number)} for number, keys in enumerate(table.groups)]
        content["server_group_list"] = entries
    else:
        content["server_count"] = str(len(table.servers))
        content["server_list"] = servers_of(0)
    content |= {key: value for key, value in table.other.items() if key != "server_count" or table.groups}
    content.setdefault("status", "completed")
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def write_rank_table(table: RankTable, path: str | Path) -> None:
    """Write `table` whole or not at all."""
    with atomic_write(Path(path), "w") as file:
        file.write(format_rank_table(table))


def read_hosts(path: str | Path) -> list[tuple[str, list[str]]]:
    """Servers and the addresses of their devices' network cards, a line a server; # begins a comment.

    Raises:
        PanguError: one line that names file and line.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise PanguError(f"{path}: cannot be read: {getattr(error, 'strerror', 'not UTF-8 text')}") from None
    hosts: list[tuple[str, list[str]]] = []
    for number, line in enumerate(lines, 1):
        words = line.partition("#")[0].replace(",", " ").split()
        if not words:
            continue
        bad = next((word for word in words[1:] if not is_address(word)), None)
        if len(words) < 2 or bad:
            found = f"{bad} is no IP address" if bad else f"{words[0]} has no devices"
            raise PanguError(f"{path}:{number}: {found}; a line is: SERVER DEVICE_IP DEVICE_IP …")
        if words[0] in [name for name, _ in hosts]:
            raise PanguError(f"{path}:{number}: server {words[0]} is listed twice")
        hosts.append((words[0], words[1:]))
    if not hosts:
        raise PanguError(f"{path}: no server is listed; a line is: SERVER DEVICE_IP DEVICE_IP …")
    return hosts


def table_of_hosts(hosts: Sequence[tuple[str, Sequence[str]]]) -> RankTable:
    """A table of servers with the addresses of their devices, ranks in that order.

    Args:
        hosts: address of each server, and of its devices' network cards (on the server: /etc/hccn.conf).
    """
    servers, rank = [], 0
    for name, addresses in hosts:
        devices = [Device(number, address, rank + number) for number, address in enumerate(addresses)]
        rank += len(devices)
        servers.append(Server(name, tuple(devices), {"host_nic_ip": "reserve"}))
    return RankTable(tuple(servers))


def merge_rank_tables(tables: Sequence[RankTable]) -> RankTable:
    """The servers of all tables as one, ranks numbered anew in that order (as merge_hccl.py does for single servers).

    Raises:
        PanguError: a server is in two of them.
    """
    servers: list[Server] = []
    rank = 0
    for table in tables:
        for server in table.servers:
            if any(server.name == other.name for other in servers):
                raise PanguError(f"server {server.name} is in two of the rank tables; give each server's table once")
            ordered = sorted(server.devices, key=lambda device: device.rank)
            devices = tuple(replace(device, rank=rank + number) for number, device in enumerate(ordered))
            rank += len(devices)
            servers.append(replace(server, devices=devices, group=0))
    keys = {"server_count", *(("super_pod_list",) if len(tables) > 1 else ())}
    other = {key: value for key, value in tables[0].other.items() if key not in keys}
    pods = [pod for table in tables for pod in table.other.get("super_pod_list", [])]
    if pods and len(tables) > 1:
        other["super_pod_list"] = pods
    return RankTable(tuple(servers), max(table.version for table in tables), other)


def reorder_ranks(table: RankTable, ranks: Sequence[int]) -> RankTable:
    """The same devices with new ranks: the n-th device, servers in order and devices by number, gets `ranks[n]`.

    Raises:
        PanguError: there are not as many devices as ranks.
    """
    if len(ranks) != table.devices:
        raise PanguError(f"the rank table has {table.devices} devices, and the run is laid out on {len(ranks)}")
    left = iter(ranks)
    servers = []
    for server in table.servers:
        devices = tuple(
            replace(device, rank=next(left)) for device in sorted(server.devices, key=lambda device: device.number)
        )
        servers.append(replace(server, devices=devices))
    return replace(table, servers=tuple(servers))
