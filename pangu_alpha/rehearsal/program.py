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


HELD_OUT = "pangu_alpha.rehearsal.program:held_out_program"
"""The loss of held-out text, as `train` measures it between steps."""
TABLE_COPY = "pangu_alpha.rehearsal.program:table_copy_program"
"""In a pipeline, what ranks of the first and last stage run before they measure held-out text."""

WHOLE, ROWS, SLICES = FEEDS = ("whole", "rows", "slices")
"""What a rank's program is called with and works on: the same arguments on all ranks; its rows of a batch
(`context.feed_rows`); or as it is written, on the slices that the rank holds (`context.plain_graphs`)."""


@dataclass(frozen=True)
class Program:
    """A cell, the tensors of one call, and what gives its parameters their values.

    Attributes:
        cell: a `mindspore.nn.Cell` in training mode.
        inputs: its arguments; their values do not matter.
        fill: sets the values of all parameters, for those who run the graph; compiling alone needs none.
        fed: one of FEEDS.
    """

    cell: Any
    inputs: tuple[Any, ...]
    fill: Callable[[], None] = lambda: None
    fed: str = WHOLE


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
    from pangu_alpha.train.first_values import give_initial_values
    from pangu_alpha.train.step import build_training_step, training_inputs

    step = build_training_step(config, target, rank)

    def fill() -> None:
        give_initial_values(step, config, rank)

    return Program(step, training_inputs(config), fill, ROWS)


def accumulation_program(config: Config, target: str, rank: int) -> Program:
    """The cell with which `train` adds a micro batch's gradients up, where the host cuts the batch."""
    from pangu_alpha.train.step import Stepper

    program = training_program(config, target, rank)
    cell = Stepper(program.cell).accumulate
    assert cell is not None, "this run does not accumulate on the host"
    return Program(cell, program.inputs, program.fill, ROWS)


def held_out_program(config: Config, target: str, rank: int) -> Program:
    """What measures held-out text, for one micro batch at a time."""
    from pangu_alpha.parallel.layout import layout_of
    from pangu_alpha.train.step import batch_inputs
    from pangu_alpha.train.validation import HeldOutLoss

    program = training_program(config, target, rank)
    layout = layout_of(config)
    inputs = batch_inputs(config, config.train.batch_size // layout.micro_batches // layout.row_parts)
    return Program(HeldOutLoss(program.cell.network).set_train(False), inputs, program.fill, ROWS)


def table_copy_program(config: Config, target: str, rank: int) -> Program:  # noqa: ARG001 (what programs are called with)
    """What gives the last stage the word table, on the slices of it that the rank holds."""
    from mindspore.common.initializer import initializer

    from pangu_alpha.model.parameter import new_parameter
    from pangu_alpha.parallel.layout import layout_of
    from pangu_alpha.parallel.slices import parameter_slice
    from pangu_alpha.parallel.tied_table import TiedTableCopy

    layout, shape = layout_of(config), (config.model.vocab_size, config.model.hidden_size)
    held = parameter_slice("word_table", shape, layout, rank)
    table = new_parameter("word_table", *(part.stop - part.start for part in held))
    return Program(
        TiedTableCopy(table, layout, rank),
        (),
        lambda: table.set_data(initializer("zeros", table.shape, table.dtype)),
        SLICES,
    )
