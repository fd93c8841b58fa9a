"""From what a plug-in asks of drivers to libraries that answer: written as C, built once, kept in the user's cache."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shlex
import shutil
import subprocess
from pathlib import Path

from pangu_alpha.errors import PanguError
from pangu_alpha.files import atomic_directory
from pangu_alpha.rehearsal.driver_stubs.plugin import DriverInterface, Plugin, driver_interface

FORMAT = 1
"""Number of the form of the built stubs; part of their name in the cache, so that a change here builds them anew."""

MANIFEST = "manifest.json"

_ANSWER = {"gpu": 100, "ascend": 0}  # cudaErrorNoDevice: GPU code looks for devices at once; CANN's is success
_LIBRARIES = {"gpu": "cuda/lib64", "ascend": "cann/lib64"}  # MindSpore looks for the toolkit around its libraries
_MAIN = "libpangu_driver_stub.so"
_VARIABLE_BYTES = 512

_STATUS_FACTORY = "_ZN2ge13StatusFactory8InstanceEv"
# ge::StatusFactory::Instance() gives an object that begins with a std::map, which a library fills as it is loaded.
# An empty std::map of libstdc++: the comparison, a header node (colour, parent, left and right, both the node
# itself), and the count.
_STATUS_FACTORY_SOURCE = """
struct node { int colour; struct node *parent, *left, *right; };
static struct { char comparison[8]; struct node header; unsigned long count; char rest[256]; } factory;
void *pangu_status_factory(void) __asm__("_ZN2ge13StatusFactory8InstanceEv");
void *pangu_status_factory(void) {
    if (factory.header.left == 0) factory.header.left = factory.header.right = &factory.header;
    return &factory;
}
"""

# A package that MindSpore looks for before it believes in collectives between Ascend devices.
_HCCL_SOURCE = '"""Stands in for the package of that name, which reports its version only."""\n\n\
class sys_version:\n    __sys_version__ = "8.0"\n'


def cache_folder() -> Path:
    """Where built stubs lie: in $XDG_CACHE_HOME, else in ~/.cache."""
    folder = os.environ.get("XDG_CACHE_HOME", "")
    # The specification of that variable: a relative path is to be ignored.
    base = Path(folder) if Path(folder).is_absolute() else Path("~/.cache").expanduser()
    return base / "pangu_alpha" / "driver_stubs"


def built_stubs(plugin: Plugin) -> Path:
    """The folder of the stubs for `plugin`, from the cache or built now (about two seconds).

    Its name holds MindSpore's version and a hash over the list of the wheel's files, so that after an upgrade, or in
    another environment, other stubs are built; a folder that lost a file is built again.

    Raises:
        PanguError: there is no C compiler or it failed, or the cache cannot be written.
    """
    identity = hashlib.sha256(f"{FORMAT}\n{platform.machine()}\n{plugin.toolkit}\n{plugin.identity}".encode())
    folder = cache_folder() / f"{plugin.target}-{plugin.version}-{identity.hexdigest()[:16]}"
    if _is_whole(folder):
        return folder
    compiler = find_compiler()
    interface = driver_interface(plugin)
    # What stood there is broken and gives way; what another process made meanwhile is the same and stays.
    with atomic_directory(folder, replace=folder.exists()) as partial:
        libraries = partial / _LIBRARIES[plugin.target]
        libraries.mkdir(parents=True)
        _build_libraries(compiler, interface, libraries, _ANSWER[plugin.target])
        if plugin.target == "gpu":
            compiler_stub = partial / "cuda" / "bin" / "nvcc"
            compiler_stub.parent.mkdir()
            version = plugin.toolkit
            compiler_stub.write_text(f'#!/bin/sh\necho "Cuda compilation tools, release {version}, V{version}.0"\n')
            compiler_stub.chmod(0o755)
        else:
            package = partial / "python" / "hccl"
            package.mkdir(parents=True)
            (package / "__init__.py").write_text(_HCCL_SOURCE)
        sizes = {str(path.relative_to(partial)): path.stat().st_size for path in _files(partial)}
        (partial / MANIFEST).write_text(json.dumps({"mindspore": plugin.version, "files": sizes}, indent=1))
    return folder


def library_folder(folder: Path, target: str) -> Path:
    """Where within built stubs the libraries lie."""
    return folder / _LIBRARIES[target]


def find_compiler() -> list[str]:
    """The words that call this machine's C compiler: $CC, else cc, gcc or clang.

    Raises:
        PanguError: there is none.
    """
    chosen = shlex.split(os.environ.get("CC", ""))
    if chosen and shutil.which(chosen[0]):
        return chosen
    for name in ("cc", "gcc", "clang"):
        if shutil.which(name):
            return [name]
    raise PanguError(
        "no C compiler found to build the driver stubs with (looked for $CC, cc, gcc, clang); "
        "install one, such as Debian's gcc, and try again"
    )


def stub_source(interface: DriverInterface, answer: int) -> str:
    """C source of one library with every symbol of `interface`; its functions give back `answer`."""
    lines = [f"long pangu_answer(void) {{ return {answer}; }}"]
    for number, symbol in enumerate(interface.functions):
        if symbol != _STATUS_FACTORY:
            # The name in quotes is the symbol, so that neither C's keywords nor its built-in functions are in the way.
            lines.append(f'long f{number}(void) __asm__("{symbol}") __attribute__((alias("pangu_answer")));')
    for number, symbol in enumerate(interface.variables):
        lines.append(f'char v{number}[{_VARIABLE_BYTES}] __asm__("{symbol}") __attribute__((aligned(16)));')
    if _STATUS_FACTORY in interface.functions:
        lines.append(_STATUS_FACTORY_SOURCE)
    return "\n".join(lines) + "\n"


def _build_libraries(compiler: list[str], interface: DriverInterface, folder: Path, answer: int) -> None:
    source = folder / "stub.c"
    source.write_text(stub_source(interface, answer))
    shared = [*compiler, "-shared", "-fPIC", "-O1", "-w"]
    _run([*shared, f"-Wl,-soname,{_MAIN}", "-o", str(folder / _MAIN), str(source)])
    empty = folder / "empty.c"
    empty.write_text("\n")
    for soname in interface.sonames:
        # Each soname is an empty library that needs the one that has all symbols.
        linking = ["-Wl,--no-as-needed", "-Wl,-rpath,$ORIGIN", f"-Wl,-soname,{soname}"]
        _run([*shared, *linking, "-o", str(folder / soname), str(empty), str(folder / _MAIN)])
    empty.unlink()


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, errors="replace")
    if done.returncode:
        message = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr.strip()[:200])
        raise PanguError(
            f"the C compiler {command[0]} could not build the driver stubs: {message}; set CC to one that works"
        )


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _is_whole(folder: Path) -> bool:
    try:
        sizes = json.loads((folder / MANIFEST).read_text())["files"]
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, KeyError, AttributeError):
        return False
