"""Rank tables: which device of which server has which rank (HCCL's JSON files, versions 1.0 and 1.2).

Three forms are read: `server_list`, the same with super-pods (1.2), and `server_group_list` as ModelArts and ClusterD
write it.  All values are text there, and keys that nobody here knows are kept and written back.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pangu_alpha.errors import PanguError

VERSIONS = ("1.0", "1.2")
LARGEST_FILE = 2**26
_DEVICE_KEYS, _SERVER_KEYS = ("device_id", "device_ip", "rank_id"), ("server_id", "device")


@dataclass(frozen=True)
class Device:
    """One processor of a server."""

    number: int
    """Its number in the server (`device_id`)."""
    address: str
    """Of its own network card (`device_ip`); empty where the table has none."""
    rank: int
    """Its rank in the run (`rank_id`)."""
    other: Mapping[str, Any] = field(default_factory=dict)
    """All other keys, as they stand."""


@dataclass(frozen=True)
class Server:
    """One server with its devices."""

    name: str
    """Address or name (`server_id`)."""
    devices: tuple[Device, ...]
    """In the order of the table."""
    other: Mapping[str, Any] = field(default_factory=dict)
    """All other keys."""
    group: int = 0
    """Which entry of `server_group_list` it stands in."""

    @property
    def first_rank(self) -> int:
        """The lowest rank of its devices."""
        return min(device.rank for device in self.devices)


@dataclass(frozen=True)
class RankTable:
    """All servers of a run."""

    servers: tuple[Server, ...]
    """In the order of the table."""
    version: str = "1.0"
    """1.0, or 1.2 with super-pods."""
    other: Mapping[str, Any] = field(default_factory=dict)
    """All other keys of the file, `super_pod_list` among them."""
    groups: tuple[Mapping[str, Any], ...] = ()
    """With `server_group_list`: the other keys of each group; empty otherwise."""

    @property
    def devices(self) -> int:
        """Devices of all servers."""
        return sum(len(server.devices) for server in self.servers)

    def server_of(self, names: Sequence[str]) -> Server | None:
        """The server that goes by one of `names` (addresses or host names of a machine)."""
        known = ("server_id", "host_ip", "server_ip", "container_ip")
        for server in self.servers:
            values = {server.name, *(str(server.other[key]) for key in known if key in server.other)}
            if values & set(names):
                return server
        return None


def read_rank_table(path: str | Path) -> RankTable:
    """Read and check a rank table.

    Raises:
        PanguError: one line that names file and field: not JSON, a value missing or of another kind, a device or rank
            twice, a gap in the ranks, an address that is none, a count that is not that of the list, a table that is
            still being made.
    """
    path = Path(path)
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise PanguError(f"{path}: {path.stat().st_size} bytes are no rank table")
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise PanguError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        reason = str(error).split("\n", 1)[0]
        raise PanguError(f"{path}: no JSON ({reason}); a rank table is what hccl_tools.py writes") from None
    return parse_rank_table(content, str(path))


def parse_rank_table(content: Any, source: str) -> RankTable:
    """The checked table in `content`, which was read from `source`.

    Raises:
        PanguError: as `read_rank_table`.
    """
    reader = _Reader(source)
    table = reader.mapping(content, "")
    if "status" in table and table["status"] != "completed":
        raise PanguError(
            f"{source}: status is {_shown(table['status'])}: the table is still being made; wait until it is completed"
        )
    version = str(table.get("version", "1.0"))
    if version not in VERSIONS:
        raise PanguError(f"{source}: version is {_shown(version)}; allowed: {', '.join(VERSIONS)}")
    servers: list[Server] = []
    groups: list[Mapping[str, Any]] = []
    if "server_group_list" in table:
        for number, entry in enumerate(reader.sequence(table, "server_group_list", "")):
            where = f"server_group_list[{number}]"
            group = reader.mapping(entry, where)
            servers += reader.servers(group, f"{where}.", number)
            groups.append({key: value for key, value in group.items() if key != "server_list"})
    elif "server_list" in table:
        servers = reader.servers(table, "", 0)
    else:
        raise PanguError(f"{source}: neither server_list nor server_group_list is there; a rank table has one of them")
    known = ("server_list", "server_group_list", "version")
    result = RankTable(
        tuple(servers), version, {key: value for key, value in table.items() if key not in known}, tuple(groups)
    )
    _check_ranks(result, source)
    return result


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=True, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


class _Reader:
    """Takes values out of parsed JSON, and names the field of whatever is wrong."""

    def __init__(self, source: str) -> None:
        self.source = source

    def fail(self, where: str, what: str) -> PanguError:
        return PanguError(f"{self.source}: {where or 'the file'} {what}")

    def mapping(self, value: Any, where: str) -> Mapping[str, Any]:
        if not isinstance(value, dict):
            raise self.fail(where, f"is {_shown(value)}; it must hold keys and values")
        return value

    def sequence(self, parent: Mapping[str, Any], key: str, prefix: str) -> Sequence[Any]:
        value = parent.get(key)
        if not isinstance(value, list) or not value:
            raise self.fail(prefix + key, f"is {_shown(value)}; it must be a list with at least one entry")
        return value

    def number(self, parent: Mapping[str, Any], key: str, prefix: str) -> int:
        value = parent.get(key)
        text = value if isinstance(value, str) else str(value)
        if isinstance(value, bool) or not (text.isascii() and text.isdecimal()) or len(text) > 9:
            raise self.fail(prefix + key, f'is {_shown(value)}; it must be a number in quotes, such as "0"')
        return int(text)

    def servers(self, parent: Mapping[str, Any], prefix: str, group: int) -> list[Server]:
        entries = self.sequence(parent, "server_list", prefix)
        if "server_count" in parent and self.number(parent, "server_count", prefix) != len(entries):
            raise self.fail(
                f"{prefix}server_count",
                f"is {_shown(parent['server_count'])}, but server_list has {len(entries)} entries",
            )
        return [self.server(entry, f"{prefix}server_list[{number}]", group) for number, entry in enumerate(entries)]

    def server(self, value: Any, where: str, group: int) -> Server:
        entry = self.mapping(value, where)
        name = entry.get("server_id")
        if not isinstance(name, str) or not name:
            raise self.fail(f"{where}.server_id", f"is {_shown(name)}; it must be the server's address or name")
        devices = [
            self.device(device, f"{where}.device[{number}]")
            for number, device in enumerate(self.sequence(entry, "device", f"{where}."))
        ]
        seen: dict[int, int] = {}
        for position, device in enumerate(devices):
            if device.number in seen:
                raise self.fail(
                    f"{where}.device[{position}].device_id",
                    f"is {device.number}, which device[{seen[device.number]}] of the same server is already",
                )
            seen[device.number] = position
        other = {key: item for key, item in entry.items() if key not in _SERVER_KEYS}
        return Server(name, tuple(devices), other, group)

    def device(self, value: Any, where: str) -> Device:
        entry = self.mapping(value, where)
        address = entry.get("device_ip", "")
        if address != "" and not is_address(address):
            raise self.fail(f"{where}.device_ip", f"is {_shown(address)}; it must be an IP address")
        other = {key: item for key, item in entry.items() if key not in _DEVICE_KEYS}
        return Device(
            self.number(entry, "device_id", f"{where}."), address, self.number(entry, "rank_id", f"{where}."), other
        )


def is_address(value: Any) -> bool:
    """Whether `value` is the text of an IP address."""
    try:
        ipaddress.ip_address(value if isinstance(value, str) else "")
    except ValueError:
        return False
    return True


def _check_ranks(table: RankTable, source: str) -> None:
    holders: dict[int, str] = {}
    addresses: dict[str, str] = {}
    for server in table.servers:
        for device in server.devices:
            place = f"device {device.number} of server {server.name}"
            if device.rank in holders:
                raise PanguError(f"{source}: rank_id {device.rank} is that of {holders[device.rank]} and of {place}")
            holders[device.rank] = place
            if device.address and device.address in addresses:
                raise PanguError(
                    f"{source}: device_ip {device.address} is that of {addresses[device.address]} and of {place}"
                )
            addresses[device.address] = place
    missing = next((rank for rank in range(len(holders)) if rank not in holders), None)
    if missing is not None:
        raise PanguError(
            f"{source}: rank_id {missing} is missing: {len(holders)} devices have the ranks 0 to {len(holders) - 1}"
        )
