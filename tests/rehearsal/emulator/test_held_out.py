"""Held-out text between steps, measured by all ranks as `train` does it, beside one device."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pangu_alpha.config import Config
from pangu_alpha.config_file import load_config
from pangu_alpha.model.initial_values import fill_initial_values
from pangu_alpha.parallel.layout import layout_of
from pangu_alpha.rehearsal.compile import CompileRequest, compile_ranks
from pangu_alpha.rehearsal.emulator.batches import batch_of_step
from pangu_alpha.rehearsal.emulator.cluster import Cluster
from pangu_alpha.rehearsal.emulator.interpreter import Rank
from pangu_alpha.rehearsal.emulator.kernels import as_array, on_one_core, use_cpu_kernels
from pangu_alpha.rehearsal.emulator.reference import single_device_config
from pangu_alpha.rehearsal.mindir import read_mindir
from pangu_alpha.rehearsal.program import HELD_OUT, TABLE_COPY, TRAINING_STEP
from pangu_alpha.train.step import Stepper, build_training_step
from pangu_alpha.train.validation import Validator

STEPS = 2
"""The first one's learning rate is 0."""
TWINS = Path(__file__).parents[3] / "configs" / "twins"


def _compiled(config: Config, folder: Path) -> list[Rank]:
    """Ranks with the programs step, held_out and, at both ends of a pipeline, copy."""
    layout = layout_of(config)
    everyone = range(layout.devices)
    ends = [rank for rank in everyone if layout.stage_of(rank) in (0, layout.pipeline_stages - 1)]
    wanted = [(name, rank) for name in ("step", "held_out") for rank in everyone]
    wanted += [("copy", rank) for rank in ends if layout.in_pipeline]
    programs = {"step": TRAINING_STEP, "held_out": HELD_OUT, "copy": TABLE_COPY}
    compiled = compile_ranks(
        [
            CompileRequest(config, rank, "ascend", folder / name / f"rank_{rank}", "export", programs[name])
            for name, rank in wanted
        ],
        at_once=2,
    )
    graphs: list[dict] = [{} for _ in everyone]
    groups: list[dict] = [{} for _ in everyone]
    for (name, rank), result in zip(wanted, compiled, strict=True):
        graphs[rank][name] = read_mindir(result.graph)
        groups[rank].update(result.groups)
    use_cpu_kernels()
    return [Rank(rank, graphs[rank], groups[rank]) for rank in everyone]


def _held_out_losses(ranks: list[Rank], config: Config, batch: list[np.ndarray]) -> list[float]:
    layout = layout_of(config)
    parts = [np.split(array, layout.row_parts) for array in batch]
    rows = [[part[layout.row_part(rank.number)] for part in parts] for rank in ranks]
    with on_one_core():
        return [float(as_array(loss)) for loss in Cluster(ranks).run_each("held_out", rows)]


def _measure(config: Config, folder: Path) -> tuple[float, list[float], list[float]]:
    """After two steps: the loss on one device, on each rank, and on each rank after the word table was copied."""
    layout = layout_of(config)
    held_out = [np.split(array, config.train.micro_batches)[0] for array in batch_of_step(config, STEPS)]
    ranks = _compiled(config, folder)
    single = single_device_config(config)
    stepper = Stepper(build_training_step(single, "cpu"))
    fill_initial_values(stepper.step.model, single.model, single.train.seed)
    for step in range(STEPS):
        batch = batch_of_step(config, step)
        stepper(batch)
        parts = [np.split(array, layout.row_parts) for array in batch]
        with on_one_core():
            Cluster(ranks).run_each("step", [[part[layout.row_part(rank.number)] for part in parts] for rank in ranks])
    expected = Validator(stepper.step.model, single.model)([held_out]).loss
    before = _held_out_losses(ranks, config, held_out)
    ends = [rank for rank in ranks if "copy" in rank.programs]
    if ends:
        with on_one_core():
            Cluster(ends).run("copy", [])
    return expected, before, _held_out_losses(ranks, config, held_out)


def test_last_stage_needs_the_trained_word_table(tmp_path):
    config = load_config(
        TWINS / "all_five.yaml",
        ["model.num_layers=3", "parallel.model_parallel=1", "train.micro_batches=2", "train.batch_size=4"],
    ).config
    expected, before, after = _measure(config, tmp_path)
    assert before[:2] == after[:2] == [0.0, 0.0]  # the first stage has no loss
    assert abs(before[2] - expected) > 1e-4 * expected  # its own copy is not trained
    np.testing.assert_allclose(after[2:], expected, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["all_five", "13b_16"])
def test_all_ranks_measure_what_one_device_does(name, tmp_path):
    config = load_config(TWINS / f"{name}.yaml", []).config
    layout = layout_of(config)
    expected, _, after = _measure(config, tmp_path)
    last = after[-layout.devices_per_stage :]
    np.testing.assert_allclose(last, expected, rtol=1e-6)
