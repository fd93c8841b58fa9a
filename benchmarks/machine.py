"""The machine that a number was measured on."""

from __future__ import annotations

import os
import platform
import re
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Machine:
    """What a reader must know of it to compare."""

    processor: str
    """Model name."""
    cores: int
    """Cores that this process may use."""
    widest_vectors: str
    """avx512, avx2 or what the architecture has."""
    system: str
    """Operating system and architecture."""
    python: str
    """Version of Python."""
    load: float
    """Processes that wanted to run, mean of the minute before: above 0.5, others were at work."""


def describe_machine() -> Machine:
    """The machine that this runs on."""
    text = _cpuinfo()
    name = re.search(r"model name\s*: (.*)", text)
    flags = re.search(r"flags\s*: (.*)", text)
    vectors = next((v for v in ("avx512f", "avx2") if flags and v in flags[1].split()), platform.machine())
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Machine(
        name[1].strip() if name else platform.processor() or platform.machine(), cores, vectors.removesuffix("f"),
        f"{platform.system()} {platform.machine()}", platform.python_version(), round(os.getloadavg()[0], 2),
    )  # fmt: skip


class OtherWork:
    """How much of the machine processes other than one have used since this was made (None where Linux is not)."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.start, self.used = time.perf_counter(), self._used()

    def share(self) -> float | None:
        """Between 0 and 1."""
        used, available = self._used(), (time.perf_counter() - self.start) * (os.cpu_count() or 1)
        return None if used is None or self.used is None else max(0.0, used - self.used) / available

    def _used(self) -> float | None:
        """Seconds of processor time that all processes but `pid` have used."""
        try:
            whole = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
            own = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return None
        user, nice, system, _idle, _waiting, interrupts, soft_interrupts, stolen = whole
        ticks = user + nice + system + interrupts + soft_interrupts + stolen - int(own[11]) - int(own[12])
        return ticks / os.sysconf("SC_CLK_TCK")


def is_amd() -> bool:
    """Whether the processor is AMD's, where MKL takes slower code than it could."""
    return "AuthenticAMD" in _cpuinfo()


def _cpuinfo() -> str:
    path = Path("/proc/cpuinfo")
    return path.read_text() if path.exists() else ""
