"""All ranks of an emulated run save together and one device goes on from it; and the reverse."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pangu_alpha.checkpoint.format import Manifest
from pangu_alpha.checkpoint.load import Checkpoint
from pangu_alpha.checkpoint.ownership import is_laid_out, owned_parts, parameter_of
from pangu_alpha.checkpoint.parameters import fill_parameters, parameter_arrays
from pangu_alpha.checkpoint.reshard import convert, write_sharded
from pangu_alpha.checkpoint.save import save_checkpoint
from pangu_alpha.config import Config, to_dict
from pangu_alpha.config_file import load_config
from pangu_alpha.model.initial_values import fill_initial_values
from pangu_alpha.parallel.layout import layout_of
from pangu_alpha.parallel.slices import parameter_slice
from pangu_alpha.parallel.stages import stages_of_parameter
from pangu_alpha.rehearsal.emulator.batches import batch_of_step
from pangu_alpha.rehearsal.emulator.emulation import EmulatedRun, compile_run
from pangu_alpha.rehearsal.emulator.reference import single_device_config
from pangu_alpha.train.step import Stepper, build_training_step

TWINS = Path(__file__).parents[3] / "configs" / "twins"


def single(config: Config) -> Stepper:
    step = build_training_step(single_device_config(config), "cpu")
    fill_initial_values(step.model, config.model, config.train.seed)
    return Stepper(step)


def save_ranks(run: EmulatedRun, config: Config, unused: dict[str, np.ndarray], folder: Path, steps: int) -> Checkpoint:
    """What each rank owns of its own memory, as one checkpoint; counters that no graph uses come from `unused`."""
    layout = layout_of(config)
    kinds = {name: (value.dtype.name, value.shape) for name, value in unused.items()}
    memory = [unused | run.parameters(rank) for rank in range(layout.devices)]

    def values() -> Iterator[tuple[str, int, np.ndarray]]:
        for name, (_, shape) in kinds.items():
            for part in owned_parts(name, shape, config.model, layout):
                yield name, part.rank, memory[part.rank][name].reshape([stop - start for start, stop in part.slice])

    manifest = Manifest(steps, time.time(), {}, (), (), to_dict(config), "", "f" * 64, {"step": steps})
    return Checkpoint(write_sharded(folder, manifest, kinds, values(), config, layout))


def check(config: Config, folder: Path) -> None:
    layout = layout_of(config)
    run = EmulatedRun(compile_run(config, folder / "compiled"))
    first = single(config)
    unused = parameter_arrays(first.step.state_parameters())
    for number in range(2):
        run.step(batch_of_step(config, number))
        first(batch_of_step(config, number))

    saved = save_ranks(run, config, unused, folder / "ranks", 2)
    resumed = single(config)
    fill_parameters(resumed.step.state_parameters(), saved, config)
    metrics, _ = resumed(batch_of_step(config, 2))
    results = run.step(batch_of_step(config, 2))
    assert metrics["loss"] == pytest.approx(results[-1][0]["loss"], rel=1e-5)
    assert metrics["gradient_norm"] == pytest.approx(results[-1][0]["gradient_norm"], rel=1e-5)

    # The other way: one device's state is cut, every rank takes what it has, replicas and idle copies included.
    arrays = parameter_arrays(first.step.state_parameters())
    whole = Checkpoint(save_checkpoint(folder / "whole", 2, arrays, {"step": 2}, config, "f" * 64))
    cut = dict(Checkpoint(convert(whole, folder / "cut", config)).tensors())
    for rank in range(layout.devices):
        for name in run.parameters(rank):
            if name in cut and is_laid_out(name):
                weight = parameter_of(name)
                if layout.stage_of(rank) in stages_of_parameter(weight, config.model, layout):
                    run.set_parameter(rank, name, cut[name][parameter_slice(weight, cut[name].shape, layout, rank)])
            elif name in cut:
                run.set_parameter(rank, name, cut[name].reshape(run.parameters(rank)[name].shape))
    expected, _ = first(batch_of_step(config, 2))
    results = run.step(batch_of_step(config, 2))
    assert results[-1][0]["loss"] == pytest.approx(expected["loss"], rel=1e-5)
    assert results[-1][0]["gradient_norm"] == pytest.approx(expected["gradient_norm"], rel=1e-5)


def test_four_ranks_and_one_device(tmp_path: Path) -> None:
    words = ["model.num_layers=3", "parallel.model_parallel=1", "train.micro_batches=2", "train.batch_size=4"]
    check(load_config(TWINS / "all_five.yaml", words).config, tmp_path)


@pytest.mark.slow
def test_two_by_two_by_two_and_one_device(tmp_path: Path) -> None:
    check(load_config(TWINS / "all_five.yaml", []).config, tmp_path)
