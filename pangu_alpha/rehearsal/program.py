"""What a rank compiles: the training step as the trainer's own function builds it."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pangu_alpha.config import Config

TRAINING_STEP = "pangu_alpha.rehearsal.program:training_program"
"""The program that is compiled unless another one is asked for."""
ACCUMULATION = "pangu_alpha.rehearsal.program:accumulation_program"
"""What the host calls for all micro batches of a step but the last, outside a pipeline."""


@dataclass(frozen=True)
class Program:
    """A cell, the tensors of one call, and what gives its parameters their values.

    Attributes:
        cell: a `mindspore.nn.Cell` in training mode.
        inputs: its arguments, whole batches; their values do not matter.
        fill: sets the values of all parameters, for those who run the graph; compiling alone needs none.
    """

    cell: Any
    inputs: tuple[Any, ...]
    fill: Callable[[], None] = lambda: None


def load_program(name: str, config: Config, target: str, rank: int) -> Program:
    """Call the function `module:function` that builds a program.

    Args:
        name: such as TRAINING_STEP; the function takes (config, target, rank) and is called within the rank's context.
        config: the run.
        target: ascend or gpu.
        rank: whose program.
    """
    module, _, function = name.partition(":")
    program: Program = getattr(importlib.import_module(module), function)(config, target, rank)
    return program


def training_program(config: Config, target: str, rank: int) -> Program:
    """The training step of `config`, as `train` builds it on `rank` for the device `target`."""
    from pangu_alpha.model.initial_values import fill_initial_values
    from pangu_alpha.train.step import build_training_step, training_inputs

    step = build_training_step(config, target, rank)
    step.set_train()

    def fill() -> None:
        fill_initial_values(step.model, config.model, config.train.seed)

    return Program(step, training_inputs(config), fill)


def accumulation_program(config: Config, target: str, rank: int) -> Program:
    """The cell with which `train` adds a micro batch's gradients up, where the host cuts the batch."""
    from pangu_alpha.train.step import Stepper

    program = training_program(config, target, rank)
    cell = Stepper(program.cell).accumulate
    assert cell is not None, "this run does not accumulate on the host"
    cell.set_train()
    return Program(cell, program.inputs, program.fill)
