"""Compile the true graph of chosen ranks of a run, each in a process of its own, without the devices.

A rank's folder holds, once `compile_rank` has come back:

| file | content |
|---|---|
| `graph.mindir` | a serialized `mindspore.train.mind_ir_pb2.ModelProto`; mode `export`: with each parameter's slice |
| `groups.json` | name of each communication group -> its ranks, the world's included |
| `layouts.json` | parameter -> its row of `parameter_layout_dict`, see `ParameterLayout` |
| `strategies.json` | scope name of each operator -> its strategy (`get_strategy`), operators of all stages |
| `result.json` | seconds and bytes that it took |
| `request.json`, `config.yaml` | what was asked for |
| `log.txt` | all that MindSpore said |
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pangu_alpha
from pangu_alpha.config import Config
from pangu_alpha.config_file import format_config
from pangu_alpha.errors import PanguError, UsageError
from pangu_alpha.parallel.layout import layout_of
from pangu_alpha.rehearsal.driver_stubs import stub_environment
from pangu_alpha.rehearsal.failure import explain
from pangu_alpha.rehearsal.mindir import compiled_protobuf
from pangu_alpha.rehearsal.program import TRAINING_STEP

MODES = ("compile", "export")
"""compile: the graph alone, parameters never filled (a 200B rank takes some GB); export: with their values."""


@dataclass(frozen=True)
class CompileRequest:
    """One rank to compile.

    Attributes:
        config: the run; `config.parallel` is its layout.
        rank: which of the layout's devices.
        target: ascend or gpu.
        folder: where the rank's files go; it is made.
        mode: one of MODES.
        program: `module:function` of what is compiled, see `program.load_program`.
    """

    config: Config
    rank: int
    target: str
    folder: Path
    mode: str = "compile"
    program: str = TRAINING_STEP


@dataclass(frozen=True)
class ParameterLayout:
    """How one parameter is cut.

    Attributes:
        device_matrix: the stage's devices as a grid.
        tensor_map: for each axis of the tensor the grid's axis that it is cut over, counted from the last; -1: none.
        slice_shape: shape of one rank's part before optimizer shards.
        optimizer_group: name of the group that divides the part further, along its first axis; "" for none.
        full_shape: shape of the whole.
    """

    device_matrix: tuple[int, ...]
    tensor_map: tuple[int, ...]
    slice_shape: tuple[int, ...]
    optimizer_group: str
    full_shape: tuple[int, ...]


@dataclass(frozen=True)
class CompiledRank:
    """A compiled rank: its files in `folder` (see the module), read when they are asked for.

    Attributes:
        request: what was asked for.
        seconds: from the start of the process to its end.
        processor_seconds: that it computed; fewer than `seconds` where other programs had the processor.
        peak_bytes: the most memory that the process held.
        mindspore: version of the compiler.
    """

    request: CompileRequest
    seconds: float
    processor_seconds: float
    peak_bytes: int
    mindspore: str = ""

    @property
    def rank(self) -> int:
        """The rank."""
        return self.request.rank

    @property
    def folder(self) -> Path:
        """Where its files lie."""
        return self.request.folder

    @property
    def graph(self) -> Path:
        """File of the serialized ModelProto."""
        return self.folder / "graph.mindir"

    @cached_property
    def groups(self) -> dict[str, tuple[int, ...]]:
        """Ranks of each communication group, in the order of the group."""
        return {name: tuple(ranks) for name, ranks in self._read("groups.json").items()}

    @cached_property
    def layouts(self) -> dict[str, ParameterLayout]:
        """Layout of each parameter of the rank, moments and accumulated gradients included."""
        rows = self._read("layouts.json")
        return {
            name: ParameterLayout(tuple(row[0]), tuple(row[1]), tuple(row[2]), row[5], tuple(row[6]))
            for name, row in rows.items()
        }

    @cached_property
    def strategies(self) -> dict[str, list[Any]]:
        """Scope name of each operator -> a list of parts an axis for each input; operators of all stages."""
        return self._read("strategies.json")

    def _read(self, name: str) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.folder / name).read_text())
        return content


def compile_rank(
    request: CompileRequest, environment: dict[str, str] | None = None, workers: _Workers | None = None
) -> CompiledRank:
    """Compile one rank in a process of its own and wait for it.

    Args:
        request: what to compile.
        environment: of `stub_environment`, for those who compile many; made if it is not given.
        workers: of `compile_ranks`.

    Raises:
        UsageError: there is no such rank or mode.
        PanguError: MindSpore refused (its cause in one line, and where the rest is), memory ran out, or no stubs.
    """
    layout = layout_of(request.config)
    check_rank(request.rank, layout.devices)
    if request.mode not in MODES:
        raise UsageError(f"there is no mode {request.mode!r}; allowed: {', '.join(MODES)}")
    variables = environment if environment is not None else stub_environment(request.target)
    folder = request.folder
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("error.json", "result.json"):
        (folder / name).unlink(missing_ok=True)
    (folder / "config.yaml").write_text(format_config(request.config), encoding="utf-8")
    words = {"rank": request.rank, "target": request.target, "mode": request.mode, "program": request.program}
    (folder / "request.json").write_text(json.dumps(words))
    started = time.monotonic()
    with (folder / "log.txt").open("wb") as log:
        code = (workers or _Workers()).run(
            [sys.executable, "-m", "pangu_alpha.rehearsal.worker", "."],
            cwd=folder,  # MindSpore leaves files where it is started
            env=_rank_environment(variables, request.rank, layout.devices),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    seconds = time.monotonic() - started
    if code or not (folder / "result.json").exists():
        raise _failure(request, code)
    result = json.loads((folder / "result.json").read_text())
    return CompiledRank(request, seconds, **result)


def compile_ranks(
    requests: Sequence[CompileRequest],
    at_once: int = 2,
    done: Callable[[CompiledRank], None] = lambda rank: None,
) -> list[CompiledRank]:
    """Compile several ranks, `at_once` at a time; results in the order of the requests.

    `done` is called after each one.  The first that fails ends the others, and its error is raised.
    """
    environments = {target: stub_environment(target) for target in {request.target for request in requests}}
    workers = _Workers()

    def work(request: CompileRequest) -> CompiledRank:
        if workers.stopped:
            raise _Stopped("another rank failed")
        try:
            compiled = compile_rank(request, environments[request.target], workers)
            done(compiled)
            return compiled
        except BaseException:
            workers.stop()
            raise

    with ThreadPoolExecutor(max_workers=max(1, at_once)) as pool:
        futures: list[Future[CompiledRank]] = [pool.submit(work, request) for request in requests]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            if workers.stopped or not all(future.done() for future in futures):
                workers.stop()
    errors = [error for future in futures if (error := future.exception())]
    for error in sorted(errors, key=lambda error: isinstance(error, _Stopped)):
        raise error
    return [future.result() for future in futures]


class _Stopped(PanguError):
    """A worker was ended, or never started, because another one failed."""


class _Workers:
    """The processes that run at this moment, so that they can be ended together."""

    def __init__(self) -> None:
        self.stopped = False
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()

    def run(self, command: list[str], **options: Any) -> int:
        """Run a command to its end; its exit code, negative for a signal."""
        with self._lock:
            if self.stopped:
                raise _Stopped("another rank failed")
            process = subprocess.Popen(command, **options)
            self._running.add(process)
        try:
            code = process.wait()
        except BaseException:
            process.kill()
            process.wait()
            raise
        finally:
            self._running.discard(process)
        if self.stopped:
            raise _Stopped("another rank failed")
        return code

    def stop(self) -> None:
        """End what runs and start nothing more."""
        with self._lock:
            self.stopped = True
            for process in self._running:
                process.kill()


def check_rank(rank: int, devices: int) -> None:
    """Raise UsageError unless a run of `devices` has this rank."""
    if not 0 <= rank < devices:
        raise UsageError(
            f"there is no rank {rank} in a run of {devices} device{'s' * (devices > 1)}; allowed: 0 to {devices - 1}"
        )


_ALLOCATOR = {
    "GLIBC_TUNABLES": "glibc.malloc.tcache_count=65535",
    "MALLOC_TOP_PAD_": str(64 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(2**30),
}
"""A graph is millions of small objects: glibc keeps more of them at hand, which saves a tenth of the time."""


def _rank_environment(variables: dict[str, str], rank: int, devices: int) -> dict[str, str]:
    package = str(Path(pangu_alpha.__file__).parent.parent)
    environment = {**_ALLOCATOR, **compiled_protobuf(), **os.environ, **variables}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [environment.get("PYTHONPATH", ""), package]))
    environment |= {"RANK_ID": str(rank), "PMIX_RANK": str(rank), "RANK_SIZE": str(devices)}
    environment.pop("MS_DEV_PRECOMPILE_ONLY", None)
    return environment


def _failure(request: CompileRequest, code: int) -> PanguError:
    """The error of a worker that failed, in one line."""
    log_file, error_file = request.folder / "log.txt", request.folder / "error.json"
    error = json.loads(error_file.read_text()) if error_file.exists() else None
    who = f"rank {request.rank} of {layout_of(request.config).devices} ({request.target})"
    return explain(who, code, error, log_file.read_text(errors="replace"), str(log_file))
