"""The settings of the machines that a run is launched on: section `cluster`."""

from __future__ import annotations

from dataclasses import dataclass

from pangu_alpha.config_checks import require


@dataclass(frozen=True)
class ClusterConfig:
    """Devices, servers and racks, and how fast they are joined."""

    processor: str = ""
    """What one device is, for the reader: Ascend 910, A100 …"""
    devices_per_server: int = 8
    """Devices inside one server."""
    servers_per_rack: int = 8
    """Servers that one switch joins."""
    racks: int = 1
    """Racks of the cluster."""
    device_memory_gib: float = 32.0
    """GiB of memory that one device has (Ascend 910: 32)."""
    server_link_gigabytes: float = 30.0
    """10^9 bytes a second that a device can send to another one of its server, each way."""
    rack_link_gigabytes: float = 12.5
    """The same to a device of another server in the rack."""
    spine_link_gigabytes: float = 12.5
    """The same to a device of another rack."""

    def __post_init__(self) -> None:
        for key in ("devices_per_server", "servers_per_rack", "racks"):
            require(getattr(self, key) >= 1, key, getattr(self, key), "it must be at least 1")
        for key in ("device_memory_gib", "server_link_gigabytes", "rack_link_gigabytes", "spine_link_gigabytes"):
            require(getattr(self, key) > 0, key, getattr(self, key), "it must be positive")

    @property
    def devices(self) -> int:
        """Devices of the whole cluster."""
        return self.devices_per_server * self.servers_per_rack * self.racks
