"""What the emulated ranks run in a step, and how one rank comes by it."""

from __future__ import annotations

from typing import Any

from pangu_alpha.config import Config
from pangu_alpha.parallel.layout import layout_of
from pangu_alpha.rehearsal.program import TRAINING_STEP, Program, training_program

ACCUMULATE = "accumulate"
STEP = "step"


def accumulation_program(config: Config, target: str, rank: int) -> Program:
    """All micro batches of a step but the last, where the host cuts the batch: `train.step.AccumulateStep`."""
    from pangu_alpha.train.step import AccumulateStep

    program = training_program(config, target, rank)
    cell: Any = AccumulateStep(program.cell)
    cell.set_train()
    return Program(cell, program.inputs, program.fill)


def programs_of(config: Config) -> dict[str, str]:
    """Name of each graph that a rank of the run has -> the program that the worker compiles.

    A pipeline runs all micro batches in one graph; otherwise the host calls one to accumulate and one to end with.
    """
    layout = layout_of(config)
    step = {STEP: TRAINING_STEP}
    if layout.micro_batches > 1 and not layout.in_pipeline:
        return {ACCUMULATE: f"{__name__}:accumulation_program", **step}
    return step
