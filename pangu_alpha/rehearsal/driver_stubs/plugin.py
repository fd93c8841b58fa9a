"""What the installed MindSpore's Ascend or GPU plug-in asks of drivers: sonames and symbols, read from its own files.

The libraries that a plug-in needs are followed through the folders of the wheel.  A soname that no folder has is a
driver library; a symbol that is wanted there and found nowhere is a driver function.  There is no list of symbols to
keep: another MindSpore gives other lists by itself.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import platform
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from pangu_alpha.errors import PanguError
from pangu_alpha.rehearsal.driver_stubs.elf import read_shared_library

TARGETS = ("ascend", "gpu")
"""Devices whose compilers can be loaded through stubs."""

_SYSTEM = re.compile(r"lib(stdc\+\+|m|gcc_s|c|pthread|dl|rt|gomp|util)\.so|ld-linux")
# Python's own interface, transactional memory and thread-local wrappers: the process itself has them, or needs none.
_PROVIDED = ("Py", "_Py", "_ITM", "_ZTH", "__gmon", "__cxa_finalize")


@dataclass(frozen=True)
class Plugin:
    """A plug-in of the installed wheel.

    Attributes:
        target: ascend or gpu.
        version: MindSpore's version.
        identity: text that differs where any file of the wheel differs; names what stubs were made for.
        library: the plug-in itself.
        folders: where its libraries lie, as the dynamic linker shall search them.
        toolkit: version of the toolkit that it was built for, "" where its name tells none.
    """

    target: str
    version: str
    identity: str
    library: Path
    folders: tuple[Path, ...]
    toolkit: str = ""


@dataclass(frozen=True)
class DriverInterface:
    """What stubs must offer: `sonames` of libraries, and in any one of them `functions` and `variables`."""

    sonames: tuple[str, ...]
    functions: tuple[str, ...]
    variables: tuple[str, ...]


def find_plugin(target: str) -> Plugin:
    """The plug-in of the installed MindSpore; MindSpore is not imported.

    Raises:
        PanguError: this machine or this MindSpore has none.
    """
    if sys.platform != "linux":
        raise PanguError(f"MindSpore's {target} compiler exists for Linux only, and this is {sys.platform}")
    if target == "gpu" and platform.machine() != "x86_64":
        raise PanguError(
            f"MindSpore's GPU compiler exists for x86-64 only, and this machine is {platform.machine()}; "
            "take --target ascend, or an x86-64 machine"
        )
    spec = importlib.util.find_spec("mindspore")
    if spec is None or spec.origin is None:
        raise PanguError("MindSpore is not installed here; install it with `pip install mindspore`")
    libraries = Path(spec.origin).parent / "lib"
    version, identity = _wheel_identity(libraries)
    plugins = libraries / "plugin"
    found = sorted(plugins.glob(f"libmindspore_{target}.so.*"), key=lambda path: _numbers(path.name))
    if not found:
        raise PanguError(
            f"MindSpore {version} at {libraries.parent} has no {target} plug-in (libmindspore_{target}.so.*); "
            "the x86-64 wheels from PyPI have it"
        )
    library = found[-1]
    toolkit = library.name.rpartition(".so.")[2]
    if target == "gpu":
        inner = [plugins / f"gpu{toolkit}", plugins / "gpu"]
    else:
        # DT_RPATH makes the wheel's own libshmem win over LD_LIBRARY_PATH: those folders come first here too.
        shared_memory = (plugins / "ascend" / "ms_kernels_symmetric_memory").rglob("*.so")
        inner = [*sorted({path.parent for path in shared_memory}), plugins / "ascend"]
    folders = tuple(folder for folder in [*inner, plugins, libraries] if folder.is_dir())
    return Plugin(target, version, identity, library, folders, toolkit)


def driver_interface(plugin: Plugin) -> DriverInterface:
    """Everything that `plugin` asks for and neither the wheel nor the system has."""
    roots = [plugin.library]
    if plugin.target == "gpu":
        # Loaded by name when communication starts, so that nothing lists it as needed.
        roots += plugin.folders[0].glob("libnvidia_collective.so")
    defined: set[str] = set()
    wanted: set[str] = set()
    data: set[str] = set()
    missing: set[str] = set()
    seen: set[Path] = set()
    to_read = list(roots)
    while to_read:
        path = to_read.pop()
        if path in seen:
            continue
        seen.add(path)
        library = read_shared_library(path)
        defined |= library.defined
        wanted |= library.wanted
        data |= library.wanted_data
        for soname in library.needed:
            if _SYSTEM.match(soname):
                continue
            place = _find(soname, plugin.folders)
            if place is None:
                missing.add(soname)
            else:
                to_read.append(place)
    if plugin.target == "ascend":
        missing.add("libascendcl.so")  # opened by this name
    absent = _not_in_system(symbol for symbol in wanted - defined if not symbol.startswith(_PROVIDED))
    return DriverInterface(tuple(sorted(missing)), tuple(sorted(absent - data)), tuple(sorted(absent & data)))


def _find(soname: str, folders: Sequence[Path]) -> Path | None:
    return next((folder / soname for folder in folders if (folder / soname).exists()), None)


def _not_in_system(symbols: Iterable[str]) -> set[str]:
    """The symbols that neither this process nor the C and C++ libraries define, asked of the dynamic linker itself."""
    libraries = [ctypes.CDLL(None)]
    for name in ("libstdc++.so.6", "libgcc_s.so.1", "libm.so.6", "libgomp.so.1", "librt.so.1", "libdl.so.2"):
        with contextlib.suppress(OSError):
            libraries.append(ctypes.CDLL(name))
    return {symbol for symbol in symbols if not any(hasattr(library, symbol) for library in libraries)}


def _wheel_identity(libraries: Path) -> tuple[str, str]:
    """MindSpore's version, and the list of its files with their hashes (or sizes and times, if it has no such list)."""
    version = "of unknown version"
    with contextlib.suppress(PackageNotFoundError):
        package = distribution("mindspore")
        version = package.version
        record = package.read_text("RECORD")
        if record:
            return version, record
    files = sorted(libraries.rglob("*.so*"))
    return version, "\n".join(f"{path} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in files)


def _numbers(name: str) -> list[int]:
    return [int(word) for word in re.findall(r"\d+", name)]
