"""All ranks of an emulated run save together and one device goes on from it; and the reverse."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from pangu_alpha.checkpoint.load import Checkpoint
from pangu_alpha.checkpoint.ownership import is_laid_out, parameter_of
from pangu_alpha.checkpoint.parameters import fill_parameters, parameter_arrays
from pangu_alpha.checkpoint.rank_share import RankShare
from pangu_alpha.checkpoint.reshard import convert
from pangu_alpha.checkpoint.save import save_checkpoint
from pangu_alpha.config import Config
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


def save_ranks(run: EmulatedRun, config: Config, unused: dict[str, np.ndarray], folder: Path) -> Checkpoint:
    """All ranks write together what each owns of its memory; counters that no graph uses come from `unused`."""
    layout = layout_of(config)
    shapes = {name: value.shape for name, value in unused.items()}

    def save(rank: int) -> Path | None:
        share = RankShare.of(rank, layout, config.model, shapes, "1")
        memory = unused | run.parameters(rank)
        own = {name: memory[name] for name in share.names()}
        if rank:
            return share.hand_over(folder, 2, own)
        return save_checkpoint(folder, 2, own, {"step": 2}, config, "f" * 64, share=share)

    with ThreadPoolExecutor(layout.devices) as ranks:
        saved = list(ranks.map(save, range(layout.devices)))
    assert saved[0] is not None
    return Checkpoint(saved[0])


def check(config: Config, folder: Path) -> None:
    layout = layout_of(config)
    run = EmulatedRun(compile_run(config, folder / "compiled"))
    first = single(config)
    unused = parameter_arrays(first.step.state_parameters())
    for number in range(2):
        run.step(batch_of_step(config, number))
        first(batch_of_step(config, number))

    saved = save_ranks(run, config, unused, folder / "ranks")
    resumed = single(config)
    fill_parameters(resumed.step.state_parameters(), saved, config)
    metrics, _ = resumed(batch_of_step(config, 2))
    results = run.step(batch_of_step(config, 2))
    assert metrics["loss"] == pytest.approx(results[-1][0]["loss"], rel=1e-5)
    assert metrics["gradient_norm"] == pytest.approx(results[-1][0]["gradient_norm"], rel=1e-5)

    # The other way: one device's state is cut, every rank takes what it has, replicas and idle copies included.
    arrays = parameter_arrays(first.step.state_parameters())
    whole = Checkpoint(save_checkpoint(folder / "whole", 2, arrays, {"step": 2}, config, "f" * 64))
    cut = Checkpoint(convert(whole, folder / "cut", config))
    for rank in range(layout.devices):
        for name, held in run.parameters(rank).items():
            if name in cut.entries and is_laid_out(name):
                weight = parameter_of(name)
                if layout.stage_of(rank) in stages_of_parameter(weight, config.model, layout):
                    part = parameter_slice(weight, cut.entries[name].shape, layout, rank)
                    run.set_parameter(rank, name, cut.part(name, part))
            elif name in cut.entries:
                run.set_parameter(rank, name, dict(cut.tensors([name]))[name].reshape(held.shape))
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
