"""All ranks of an emulated run save together and one device goes on from it; and the reverse."""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from pangu_alpha.checkpoint.load import Checkpoint
from pangu_alpha.checkpoint.parameters import fill_parameters, parameter_arrays
from pangu_alpha.checkpoint.rank_share import RankShare
from pangu_alpha.checkpoint.save import save_checkpoint
from pangu_alpha.config import Config
from pangu_alpha.config_file import load_config
from pangu_alpha.model.initial_values import fill_initial_values
from pangu_alpha.parallel.layout import layout_of
from pangu_alpha.rehearsal.compile import CompileRequest, compile_ranks
from pangu_alpha.rehearsal.emulator.batches import batch_of_step
from pangu_alpha.rehearsal.emulator.emulation import STEP, CompiledRun, EmulatedRun, compile_run
from pangu_alpha.rehearsal.emulator.reference import single_device_config
from pangu_alpha.rehearsal.program import Program, training_program
from pangu_alpha.train.first_values import give_saved_values
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


def resumed_program(config: Config, target: str, rank: int) -> Program:
    """The training step of a rank that goes on from a checkpoint."""
    program = training_program(config, target, rank)
    step = program.cell
    return dataclasses.replace(
        program, fill=lambda: give_saved_values(step, Checkpoint(config.train.init_from), config, rank)
    )


def check(config: Config, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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

    # The other way: one device's state, from which every rank takes its parts as it would at the start of a training.
    arrays = parameter_arrays(first.step.state_parameters())
    whole = save_checkpoint(folder / "whole", 2, arrays, {"step": 2}, config, "f" * 64)
    begun = dataclasses.replace(config, train=dataclasses.replace(config.train, init_from=str(whole)))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    program = f"{Path(__file__).stem}:resumed_program"
    requests = [
        CompileRequest(begun, rank, "ascend", folder / f"again_{rank}", "export", program)
        for rank in range(layout.devices)
    ]
    continued = EmulatedRun(CompiledRun(begun, {STEP: compile_ranks(requests, 2)}))
    expected, _ = first(batch_of_step(config, 2))
    results = continued.step(batch_of_step(config, 2))
    assert results[-1][0]["loss"] == pytest.approx(expected["loss"], rel=1e-5)
    assert results[-1][0]["gradient_norm"] == pytest.approx(expected["gradient_norm"], rel=1e-5)
    assert results[-1][0]["learning_rate"] == pytest.approx(expected["learning_rate"], rel=1e-6)  # counters, too


def test_two_stages_and_one_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = [
        "model.num_layers=3",
        "parallel.model_parallel=1",
        "parallel.data_parallel=1",
        "parallel.optimizer_shards=1",
    ]
    words += ["train.micro_batches=2", "train.batch_size=2"]
    check(load_config(TWINS / "all_five.yaml", words).config, tmp_path, monkeypatch)


@pytest.mark.slow
def test_four_ranks_and_one_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["model.num_layers=3", "parallel.model_parallel=1", "train.micro_batches=2", "train.batch_size=4"]
    check(load_config(TWINS / "all_five.yaml", words).config, tmp_path, monkeypatch)


@pytest.mark.slow
def test_two_by_two_by_two_and_one_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check(load_config(TWINS / "all_five.yaml", []).config, tmp_path, monkeypatch)
