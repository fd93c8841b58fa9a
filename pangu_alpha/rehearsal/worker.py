"""One rank's process: compiles its graph and writes down what it learned.  Started by `compile_rank`, never by hand.

    python -m pangu_alpha.rehearsal.worker FOLDER

FOLDER has `request.json` and `config.yaml`; this process adds the files that `compile.CompiledRank` names, or
`error.json`.  What MindSpore itself says goes to standard error.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import time
import traceback
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pangu_alpha.config_file import load_config
from pangu_alpha.errors import PanguError
from pangu_alpha.rehearsal.failure import condense, is_out_of_memory
from pangu_alpha.rehearsal.program import ROWS, SLICES, load_program


def main(folder: Path) -> int:
    """Compile as the request in `folder` says; 0, or 1 where `error.json` tells why not."""
    try:
        _work(folder, json.loads((folder / "request.json").read_text()))
    except BaseException as error:  # whatever it is, the parent shall learn of it
        traceback.print_exc()
        kind = "memory" if is_out_of_memory(error) else "user" if isinstance(error, PanguError) else "compile"
        (folder / "error.json").write_text(json.dumps({"kind": kind, "cause": condense(error)}))
        return 1
    return 0


def _work(folder: Path, request: dict[str, Any]) -> None:
    from pangu_alpha.parallel.context import feed_rows, plain_graphs, set_rehearsal_context
    from pangu_alpha.parallel.layout import layout_of

    config = load_config(folder / "config.yaml").config
    layout = layout_of(config)
    set_rehearsal_context(layout, config.parallel, request["target"])
    program = load_program(request["program"], config, request["target"], request["rank"])
    if program.fed == ROWS:
        feed_rows(layout)
    with plain_graphs() if program.fed == SLICES else contextlib.nullcontext():
        if request["mode"] == "export":
            strategies = _export(program, folder / "graph.mindir")
        else:
            strategies = _compile(program, folder / "graph.mindir")

    _write(folder / "groups.json", _groups(layout.devices))
    _write(folder / "strategies.json", strategies)
    _write(folder / "layouts.json", {name: list(row) for name, row in program.cell.parameter_layout_dict.items()})
    result = {
        "processor_seconds": time.process_time(),
        "peak_bytes": peak_bytes(),
        "mindspore": version("mindspore"),
    }
    _write(folder / "result.json", result)


def _compile(program: Any, path: Path) -> dict[str, Any]:
    """The graph without any parameter's data: parameters are never filled, and nothing is prepared for running."""
    from mindspore.graph.api import _cell_graph_executor as executor

    os.environ["MS_DEV_PRECOMPILE_ONLY"] = "1"
    phase, _ = executor.compile(program.cell, *program.inputs, phase="train")
    path.write_bytes(executor._graph_executor.get_func_graph_proto(phase, "mind_ir", False))
    return dict(executor._graph_executor.get_strategy(phase))


def _export(program: Any, path: Path) -> dict[str, Any]:
    """The graph with this rank's slice of every parameter."""
    import mindspore as ms
    from mindspore.graph.api import _cell_graph_executor as executor

    program.fill()
    ms.export(program.cell, *program.inputs, file_name=str(path.with_suffix("")), file_format="MINDIR")
    path.chmod(0o644)  # MindSpore leaves it readable only, which its next writer would stumble over
    return dict(executor._graph_executor.get_strategy(program.cell.compile_phase))


def _groups(devices: int) -> dict[str, list[int]]:
    """Ranks of each communication group that the compiler made, and of the world's, which it does not list."""
    if devices == 1:
        return {}
    from mindspore._c_expression import CollectiveManager
    from mindspore.communication import GlobalComm

    groups = {name: list(ranks) for name, ranks in CollectiveManager.get_instance().get_group_map().items()}
    return groups | {GlobalComm.WORLD_COMM_GROUP: list(range(devices))}


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value))


def peak_bytes() -> int:
    """The most memory that this process ever held at once."""
    status = Path("/proc/self/status").read_text()
    match = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(match[1]) * 1024 if match else 0


if __name__ == "__main__":
    code = main(Path(sys.argv[1]))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # what MindSpore would tear down now are drivers that are not there
