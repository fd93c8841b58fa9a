"""Driver stubs, so that MindSpore's Ascend and GPU compilers load where neither CANN nor CUDA is installed.

A process that starts with `stub_environment(target)` can compile graphs for that device, and cannot run any of them.
"""

from __future__ import annotations

import os

from pangu_alpha.errors import UsageError
from pangu_alpha.rehearsal.driver_stubs.build import built_stubs, library_folder
from pangu_alpha.rehearsal.driver_stubs.plugin import TARGETS, find_plugin

__all__ = ["TARGETS", "stub_environment"]


def stub_environment(target: str) -> dict[str, str]:
    """Environment variables that let a new Python process compile for `target`: "ascend" or "gpu".

    The stubs are built at the first call and taken from the user's cache afterwards.  To be laid over the environment
    of the new process; paths that stand there already are kept behind the stubs'.

    Raises:
        UsageError: there is no such target.
        PanguError: this machine or its MindSpore cannot have stubs (no plug-in, no C compiler, not Linux on x86-64).
    """
    if target not in TARGETS:
        raise UsageError(f"there is no target {target!r}; allowed: {', '.join(TARGETS)}")
    plugin = find_plugin(target)
    folder = built_stubs(plugin)
    libraries = [str(library_folder(folder, target)), *map(str, plugin.folders)]
    environment = {
        "LD_LIBRARY_PATH": _before("LD_LIBRARY_PATH", *libraries),
        "MS_SIMULATION_LEVEL": "0",  # collectives that answer without a peer
        "OMPI_COMMAND": "python",  # MindSpore asks whether mpirun started it
        "GLOG_v": "3",
    }
    if target == "gpu":
        environment["CUDA_HOME"] = str(folder / "cuda")
    else:
        environment["PYTHONPATH"] = _before("PYTHONPATH", str(folder / "python"))
    return environment


def _before(name: str, *paths: str) -> str:
    """`paths`, then what the variable already holds."""
    return os.pathsep.join([*paths, *filter(None, [os.environ.get(name, "")])])
