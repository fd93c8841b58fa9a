"""Whether training would start on this machine: one finding a question, each with the way to mend it."""

from __future__ import annotations

import ctypes.util
import importlib.metadata
import importlib.util
import os
import platform
import re
import resource
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pangu_alpha.errors import PanguError
from pangu_alpha.launch.host import own_addresses, require_master
from pangu_alpha.parallel.rank_table import read_rank_table

PASSED, WARNING, FAILED = "passed", "warning", "failed"
LEAST_DISK_GIB = 2.0
LEAST_SHARED_MEMORY_MIB = 64.0
LEAST_OPEN_FILES = 1024
ASCEND_HOMES = ("/usr/local/Ascend/ascend-toolkit/latest", "/usr/local/Ascend/cann/latest", "/usr/local/Ascend/latest")
_PROBE = """
import logging
logging.disable(logging.CRITICAL)
import mindspore as ms
from mindspore import Tensor, ops
ms.set_device({target!r})
ms.set_context(mode=ms.GRAPH_MODE)
import numpy as np
print("answer", (Tensor(np.ones(3, np.float32)) + 1).asnumpy().sum())
"""


@dataclass(frozen=True)
class Finding:
    """The answer to one question."""

    name: str
    """What was looked at."""
    state: str
    """PASSED, WARNING or FAILED."""
    text: str
    """What was found, and if it did not pass, how to mend it."""


@dataclass(frozen=True)
class Patient:
    """What is to be examined for."""

    device: str = "cpu"
    """cpu, gpu or ascend."""
    rank_table: str = ""
    """A rank table that the launch will use, or nothing."""
    master: str = "127.0.0.1"
    """The first node."""
    port: int = 8118
    """Its port."""
    output: Path = Path()
    """Where runs go."""


def examine(patient: Patient) -> list[Finding]:
    """All findings, in the order in which a launch would meet them."""
    checks: list[Callable[[Patient], list[Finding]]] = [
        _python, _mindspore, _wheel, _toolkit, _device, _rank_table, _port, _disk, _shared_memory, _open_files,
    ]  # fmt: skip
    return [finding for check in checks for finding in check(patient)]


def _found(name: str, good: bool, text: str, mend: str, otherwise: str = FAILED) -> list[Finding]:
    return [Finding(name, PASSED, text) if good else Finding(name, otherwise, f"{text}: {mend}")]


def _python(patient: Patient) -> list[Finding]:  # noqa: ARG001
    version = sys.version_info[:2]
    text = f"{platform.python_version()} on {platform.machine()}"
    return _found("Python", (3, 10) <= version <= (3, 12), text, "MindSpore has wheels for Python 3.10, 3.11, 3.12")


def _mindspore(patient: Patient) -> list[Finding]:  # noqa: ARG001
    try:
        version = importlib.metadata.version("mindspore")
    except importlib.metadata.PackageNotFoundError:
        return [Finding("MindSpore", FAILED, "is not installed: pip install -e '.[quickstart]' -c constraints.txt")]
    numpy = importlib.metadata.version("numpy")
    found = _found("MindSpore", True, version, "")
    return found + _found(
        "NumPy", int(numpy.split(".")[0]) < 2, numpy, "MindSpore needs one below 2: pip install 'numpy<2'"
    )


def _wheel(patient: Patient) -> list[Finding]:  # noqa: ARG001
    """A wheel of another processor or Python imports nothing."""
    spec = importlib.util.find_spec("mindspore")
    folders = [Path(place) for place in (spec.submodule_search_locations if spec else None) or ()]
    cores = [path.name for folder in folders for path in folder.glob("_c_expression*.so")]
    if not cores:
        return []
    wanted = sysconfig.get_config_var("EXT_SUFFIX") or ""
    good = any(name.endswith(wanted) for name in cores)
    return _found("wheel", good, cores[0], f"install the wheel for {platform.machine()} and this Python ({wanted})")


def _toolkit(patient: Patient) -> list[Finding]:
    if patient.device == "ascend":
        home = os.environ.get("ASCEND_HOME_PATH") or next((path for path in ASCEND_HOMES if Path(path).is_dir()), "")
        good = bool(home) and Path(home).is_dir()
        found = _found("CANN", good, home or "not found", "install CANN and source its set_env.sh")
        if good:
            found += [Finding("CANN version", PASSED, _cann_version(Path(home)))]
        return found + _tool("npu-smi", ["npu-smi", "info"], r"Version: (\S+)", "install the Ascend driver")
    if patient.device == "gpu":
        return _cuda() + _tool(
            "NVIDIA driver", ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"], r"(.+)",
            "install the NVIDIA driver",
        )  # fmt: skip
    return []


def _cuda() -> list[Finding]:
    """The CUDA that MindSpore's GPU plug-in was built for, and whether the loader finds one."""
    spec = importlib.util.find_spec("mindspore")
    folders = [Path(place) for place in (spec.submodule_search_locations if spec else None) or ()]
    built = sorted(
        path.name.partition(".so.")[2] for f in folders for path in f.glob("lib/plugin/libmindspore_gpu.so.*")
    )
    if not built:
        return [Finding("CUDA", FAILED, "this MindSpore has no GPU plug-in: install a wheel that has one")]
    library = ctypes.util.find_library("cudart")
    text = f"MindSpore wants {' or '.join(built)}; the loader finds {library or 'none'}"
    return _found("CUDA", library is not None, text, f"install CUDA {built[-1]} and set LD_LIBRARY_PATH")


def _cann_version(home: Path) -> str:
    for name in ("version.cfg", "compiler/version.info", "runtime/version.info"):
        path = home / name
        if path.is_file() and (match := re.search(r"(?:Version|version)\W+([0-9][^\s\]]*)", path.read_text("utf-8"))):
            return match[1]
    return f"unknown (no version file in {home})"


def _tool(name: str, command: list[str], pattern: str, mend: str) -> list[Finding]:
    if not shutil.which(command[0]):
        return [Finding(name, FAILED, f"{command[0]} is not there: {mend}")]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        return [Finding(name, FAILED, f"{command[0]} does not answer ({type(error).__name__}): {mend}")]
    match = re.search(pattern, done.stdout)
    return _found(name, done.returncode == 0 and bool(match), match[1].strip() if match else "no answer", mend)


def _device(patient: Patient) -> list[Finding]:
    """One addition on the device, in a process of its own, as a bad driver can end it."""
    target = {"cpu": "CPU", "gpu": "GPU", "ascend": "Ascend"}[patient.device]
    try:
        done = subprocess.run(
            [sys.executable, "-c", _PROBE.format(target=target)], capture_output=True, text=True, timeout=300
        )
    except subprocess.TimeoutExpired:
        return [Finding("device", FAILED, f"{target} did not add three numbers in 300 s: restart its driver")]
    if "answer 6.0" in done.stdout:
        return [Finding("device", PASSED, f"{target} adds")]
    offered = re.search(r"only supports one of the (\[.*?\])", done.stderr)
    if offered:
        reason = (
            f"this MindSpore supports {offered[1].lower()} here: give --device one of these, or install what is missing"
        )
        return [Finding("device", FAILED, f"{target} cannot be used: {reason}")]
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    return [Finding("device", FAILED, f"{target} cannot be used: {lines[-1][:200] if lines else done.returncode}")]


def _rank_table(patient: Patient) -> list[Finding]:
    if not patient.rank_table:
        return []
    try:
        table = read_rank_table(patient.rank_table)
    except PanguError as error:
        return [Finding("rank table", FAILED, str(error))]
    names = own_addresses()
    server = table.server_of(names)
    if server is None:
        text = f"{patient.rank_table}: this machine ({', '.join(names)}) is none of its {len(table.servers)} servers"
        return [Finding("rank table", FAILED, f"{text}: `pangu-alpha launch --server ADDRESS` names the one it is")]
    ranks = sorted(device.rank for device in server.devices)
    found = [
        Finding("rank table", PASSED, f"{len(table.servers)} servers, {table.devices} devices; here ranks {ranks}")
    ]
    if patient.device == "ascend":
        missing = [device.number for device in server.devices if not Path(f"/dev/davinci{device.number}").exists()]
        text = f"{len(server.devices)} devices of the table are here"
        if missing:
            text = f"/dev/davinci{missing[0]} is in the table and not on this machine"
        found += _found("devices", not missing, text, "mend the table, or the driver")
    return found


def _port(patient: Patient) -> list[Finding]:
    if patient.rank_table or patient.master not in (*own_addresses(), "127.0.0.1", "localhost"):
        return []
    try:
        require_master(patient.master, patient.port, is_here=True)
    except PanguError as error:
        return [Finding("port", FAILED, str(error))]
    return [Finding("port", PASSED, f"{patient.port} is free")]


def _disk(patient: Patient) -> list[Finding]:
    folder = patient.output.resolve()
    while not folder.is_dir():
        folder = folder.parent
    free = shutil.disk_usage(folder).free / 2**30
    if not os.access(folder, os.W_OK):
        return [Finding("disk", FAILED, f"{folder} cannot be written by this user: give another train.output")]
    return _found("disk", free >= LEAST_DISK_GIB, f"{free:.0f} GiB free at {folder}", "free some, or train.output=…")


def _shared_memory(patient: Patient) -> list[Finding]:  # noqa: ARG001
    place = Path("/dev/shm")
    if not place.is_dir():
        return [Finding("shared memory", WARNING, "there is no /dev/shm: data workers may fail; mount a tmpfs there")]
    size = shutil.disk_usage(place).total / 2**20
    mend = "in a container start it with --shm-size=1g"
    return _found("shared memory", size >= LEAST_SHARED_MEMORY_MIB, f"{size:,.0f} MiB in /dev/shm", mend, WARNING)


def _open_files(patient: Patient) -> list[Finding]:  # noqa: ARG001
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = limit == resource.RLIM_INFINITY
    text = "no limit" if unlimited else f"{limit:,} at a time"
    return _found("open files", unlimited or limit >= LEAST_OPEN_FILES, text, "ulimit -n 65536", WARNING)
