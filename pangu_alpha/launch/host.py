"""What a node knows of itself: its addresses, and whether a port is free."""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import socket
import struct

from pangu_alpha.errors import PanguError, UsageError

_SIOCGIFADDR = 0x8915


def own_addresses() -> list[str]:
    """Host names and IPv4 addresses by which this machine may be listed in a rank table."""
    found = [socket.gethostname(), socket.getfqdn()]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            with contextlib.suppress(OSError):  # an interface without an address
                answer = fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, struct.pack("256s", name[:15].encode()))
                found.append(socket.inet_ntoa(answer[20:24]))
    return list(dict.fromkeys(found))


def require_master(master: str, port: int, is_here: bool) -> None:
    """Check where the workers are to find each other.

    Raises:
        UsageError: an IPv6 address, which MindSpore does not take, or a port out of range.
        PanguError: the scheduler is to run here, and the port is in use.
    """
    with contextlib.suppress(ValueError):
        if ipaddress.ip_address(master).version == 6:
            raise UsageError(f"--master {master}: MindSpore takes no IPv6 address; give an IPv4 address or a name")
    if not 1024 <= port <= 65535:
        raise UsageError(f"--port {port}: it must lie between 1024 and 65535")
    if not is_here:
        return
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((master, port))
        except OSError as error:
            reason = "it is in use" if error.errno == 98 else f"it cannot be opened here ({error.strerror})"
            raise PanguError(f"--master {master} --port {port}: {reason}; give another one") from None


def free_port() -> int:
    """A port of this machine that nobody uses at the moment."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
