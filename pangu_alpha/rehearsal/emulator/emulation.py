"""A run emulated: the graphs of all its ranks compiled, run side by side, and compared with one device."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from mindspore import Tensor

from pangu_alpha.config import Config
from pangu_alpha.data.order import Batch
from pangu_alpha.errors import UsageError
from pangu_alpha.parallel.layout import Layout, layout_of
from pangu_alpha.rehearsal.compile import CompiledRank, CompileRequest, compile_ranks
from pangu_alpha.rehearsal.emulator.batches import batch_of_step
from pangu_alpha.rehearsal.emulator.cluster import Cluster
from pangu_alpha.rehearsal.emulator.comparison import StepComparison, Tolerance, compare_step
from pangu_alpha.rehearsal.emulator.interpreter import Rank
from pangu_alpha.rehearsal.emulator.kernels import as_array, on_one_core, use_cpu_kernels
from pangu_alpha.rehearsal.emulator.plant import Plant
from pangu_alpha.rehearsal.emulator.reference import StepResult, reference_steps
from pangu_alpha.rehearsal.emulator.traffic import Traffic, traffic_of
from pangu_alpha.rehearsal.mindir import MindIR, read_mindir
from pangu_alpha.rehearsal.program import ACCUMULATION, TRAINING_STEP
from pangu_alpha.rehearsal.twin import MOST_RANKS
from pangu_alpha.train.step import read_metrics

STEP, ACCUMULATE = "step", "accumulate"
"""Names of the graphs that a step runs: the last one, and the one of the micro batches before."""

TOLERANCES = {"float32": Tolerance(1e-5, 3e-5), "float16": Tolerance(5e-3, 2e-3)}
"""By `model.compute_dtype`."""


@dataclass
class CompiledRun:
    """The graphs of all ranks of a run.

    Attributes:
        config: the run.
        ranks: program -> its compiled ranks, in order.
        graphs: program -> the graphs of its ranks, which may be transformed before they run.
    """

    config: Config
    ranks: Mapping[str, Sequence[CompiledRank]]
    graphs: dict[str, list[MindIR]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.graphs:
            self.graphs = {name: [read_mindir(rank.graph) for rank in ranks] for name, ranks in self.ranks.items()}

    @property
    def layout(self) -> Layout:
        """The run's layout."""
        return layout_of(self.config)

    def with_error(self, plant: Plant) -> CompiledRun:
        """The run with an error planted into its last graph; one that is planted by compiling is there already."""
        return CompiledRun(self.config, self.ranks, {**self.graphs, STEP: plant.transform(self.graphs[STEP])})

    def groups(self, rank: int) -> dict[str, tuple[int, ...]]:
        """Ranks of each group that a rank is in."""
        return {name: members for ranks in self.ranks.values() for name, members in ranks[rank].groups.items()}


def compile_run(
    config: Config,
    folder: Path,
    target: str = "ascend",
    at_once: int = 2,
    done: Callable[[CompiledRank], None] = lambda rank: None,
    plant: Plant | None = None,
) -> CompiledRun:
    """Compile the graphs of all ranks of `config`, with the parameters' values, into `folder`.

    Args:
        config: the run.
        folder: where the ranks' files go.
        target: ascend or gpu.
        at_once: ranks that compile at a time.
        done: called after each rank.
        plant: an error to plant.

    Raises:
        UsageError: there is one device, or too many.
        PanguError: a rank does not compile.
    """
    check_emulated(config)
    devices = layout_of(config).devices
    programs = programs_of(config)
    if plant is not None:
        planted = {ACCUMULATE: plant.accumulation, STEP: plant.program}
        programs = {name: planted[name] for name in programs}
    requests = [
        CompileRequest(config, rank, target, (folder / name / f"rank_{rank}").absolute(), "export", program)
        for name, program in programs.items()
        for rank in range(devices)
    ]
    compiled = compile_ranks(requests, at_once, done)
    run = CompiledRun(
        config, {name: compiled[place * devices : (place + 1) * devices] for place, name in enumerate(programs)}
    )
    return run if plant is None else run.with_error(plant)


def programs_of(config: Config) -> dict[str, str]:
    """Name of each graph that a rank of the run has -> the program that the worker compiles.

    A pipeline runs all micro batches in one graph; otherwise the host calls one to accumulate and one to end with.
    """
    layout = layout_of(config)
    accumulates = layout.micro_batches > 1 and not layout.in_pipeline
    return ({ACCUMULATE: ACCUMULATION} if accumulates else {}) | {STEP: TRAINING_STEP}


def count_graphs(config: Config) -> int:
    """Graphs that `compile_run` compiles."""
    return len(programs_of(config)) * layout_of(config).devices


def check_emulated(config: Config) -> None:
    """Raise UsageError unless the run has from 2 to MOST_RANKS devices."""
    devices = layout_of(config).devices
    if devices == 1:
        raise UsageError(
            "this run has one device, so there is nothing to emulate; take one of configs/twins, or set "
            "parallel.data_parallel=2"
        )
    if devices > MOST_RANKS:
        raise UsageError(
            f"this run has {devices} devices, and at most {MOST_RANKS} are emulated; take its twin in configs/twins"
        )


class EmulatedRun:
    """All ranks of a compiled run, step by step.

    Attributes:
        cluster: the ranks; their parameters may be changed between steps.
    """

    def __init__(self, run: CompiledRun) -> None:
        use_cpu_kernels()
        self.run = run
        self.layout = run.layout
        self.cluster = Cluster(
            [
                Rank(rank, {name: graphs[rank] for name, graphs in run.graphs.items()}, run.groups(rank))
                for rank in range(self.layout.devices)
            ]
        )

    def step(self, batch: Batch) -> list[tuple[dict[str, float], np.ndarray]]:
        """Run one step on all ranks; each one's metrics and norms of gradients.

        Raises:
            Deadlock, Mismatch: ranks do not fit together.
        """
        use_cpu_kernels()
        for rank in self.cluster.ranks:
            rank.calls.clear()
        pieces = 1 if self.layout.in_pipeline else self.layout.micro_batches
        calls = [self._rows_of_ranks(part) for part in zip(*(np.split(array, pieces) for array in batch), strict=True)]
        with on_one_core():
            for call in calls[:-1]:
                self.cluster.run_each(ACCUMULATE, call)
            results: list[Any] = self.cluster.run_each(STEP, calls[-1])
        return [(read_metrics(metrics), as_array(norms)) for metrics, norms in results]

    def _rows_of_ranks(self, arrays: Sequence[np.ndarray]) -> list[list[np.ndarray]]:
        """What each rank is given of a micro batch, as the training pipeline gives it."""
        parts = [np.split(array, self.layout.row_parts) for array in arrays]
        return [[part[self.layout.row_part(rank)] for part in parts] for rank in range(self.layout.devices)]

    def traffic(self, rank: int) -> dict[tuple[str, tuple[int, ...]], Traffic]:
        """What a rank sent in the last step, see `traffic_of`."""
        return traffic_of(self.cluster.ranks[rank].calls)

    def set_parameter(self, rank: int, name: str, value: np.ndarray) -> None:
        """Give a rank's part of a parameter another value."""
        self.cluster.ranks[rank].parameters[name] = Tensor(value)

    def parameters(self, rank: int) -> dict[str, np.ndarray]:
        """Current parameters of a rank."""
        return {name: as_array(value) for name, value in self.cluster.ranks[rank].parameters.items()}


def compare_run(
    emulated: EmulatedRun, references: Sequence[StepResult], tolerance: Tolerance | None = None
) -> Iterator[StepComparison]:
    """Run as many steps as one device did, comparing each.

    Args:
        emulated: all ranks, before their first step.
        references: what one device did with `batch_of_step` of the same run.
        tolerance: by the run's compute type, if not given.
    """
    run = emulated.run
    step_ranks = run.ranks[STEP]
    tolerance = tolerance or TOLERANCES[run.config.model.compute_dtype]
    rates = 0.0
    for number, reference in enumerate(references):
        rates += reference.metrics["learning_rate"] if run.config.optimizer.kind != "sgd" else 0.0
        results = emulated.step(batch_of_step(run.config, number))
        yield compare_step(
            number,
            reference,
            results,
            [emulated.parameters(rank) for rank in range(run.layout.devices)],
            [rank.layouts for rank in step_ranks],
            [run.groups(rank) for rank in range(run.layout.devices)],
            run.layout,
            dataclasses.replace(tolerance, noise=2 * rates),
        )


def compile_with_reference(
    config: Config,
    folder: Path,
    steps: int,
    target: str = "ascend",
    at_once: int = 2,
    done: Callable[[CompiledRank], None] = lambda rank: None,
    plant: Plant | None = None,
) -> tuple[CompiledRun, list[StepResult]]:
    """Compile all ranks, see `compile_run`, and run `steps` steps on one device meanwhile."""
    check_emulated(config)
    outcome: list[CompiledRun | BaseException] = []

    def work() -> None:
        try:
            outcome.append(compile_run(config, folder, target, at_once, done, plant))
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        batches = [batch_of_step(config, number) for number in range(steps)]
        references = list(reference_steps(config, batches, target=target))
    finally:
        thread.join()
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    return outcome[0], references
