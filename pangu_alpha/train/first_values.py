"""The values that a run begins with: initial ones, or those of a checkpoint; on a cluster each rank's part alone."""

from __future__ import annotations

import numpy as np

from pangu_alpha.checkpoint.load import Checkpoint
from pangu_alpha.checkpoint.ownership import is_laid_out, parameter_of
from pangu_alpha.checkpoint.parameters import fill_parameters
from pangu_alpha.config import Config
from pangu_alpha.model.initial_values import fill_initial_values, initial_value
from pangu_alpha.parallel.layout import layout_of
from pangu_alpha.parallel.slice_values import Part, give_slice_values
from pangu_alpha.train.step import TrainStep


def holds_parts(step: TrainStep, config: Config) -> bool:
    """Whether a rank's parameters become parts, as `parallel.slices` cuts them, when the graph is compiled.

    On CPUs every rank holds all, and where MindSpore searches the layout itself, nobody knows the parts beforehand.
    """
    return step.model.sharding.active and config.parallel.search == "none"


def give_initial_values(step: TrainStep, config: Config, rank: int = 0) -> None:
    """Give every weight of a new training step its initial value for the run's seed; moments are zero by themselves.

    Args:
        step: as `build_training_step` made it, not yet compiled.
        config: the run.
        rank: this process among those of the run's layout.
    """
    if not holds_parts(step, config):
        fill_initial_values(step.model, config.model, config.train.seed)
        return
    shapes = {weight.name: tuple(weight.shape) for weight in step.model.get_parameters()}

    def value(name: str, part: Part) -> np.ndarray:
        return initial_value(name, shapes[name], config.model, config.train.seed)[part]

    give_slice_values(step.model.get_parameters(), value, config.model, layout_of(config), rank)


def give_saved_values(step: TrainStep, checkpoint: Checkpoint, config: Config, rank: int = 0) -> None:
    """Give everything that training goes on from its value in a checkpoint, of whatever layout that is.

    Args:
        step: as `build_training_step` made it, not yet compiled.
        checkpoint: whose tensors are verified.
        config: the run.
        rank: this process among those of the run's layout.

    Raises:
        PanguError: a missing, extra or differently shaped tensor: one line with the configuration's key that differs.
    """
    parameters = step.state_parameters()
    if not holds_parts(step, config):
        fill_parameters(parameters, checkpoint, config)
        return
    checkpoint.check_shapes(step.state_shapes(), config)
    laid_out = [parameter for parameter in parameters if is_laid_out(parameter.name)]
    others = [parameter for parameter in parameters if not is_laid_out(parameter.name)]
    give_slice_values(laid_out, checkpoint.part, config.model, layout_of(config), rank, parameter_of)
    fill_parameters(others, checkpoint, config, exact=False)


def give_saved_weights(step: TrainStep, checkpoint: Checkpoint, config: Config, rank: int = 0) -> None:
    """Give the weights alone their values in another run's checkpoint; moments and counters begin anew.

    Args:
        step: as `build_training_step` made it, not yet compiled.
        checkpoint: whose tensors are verified.
        config: the run that begins.
        rank: this process among those of the run's layout.

    Raises:
        PanguError: a missing or differently shaped tensor: one line with the configuration's key that differs.
    """
    weights = list(step.model.get_parameters())
    if not holds_parts(step, config):
        fill_parameters(weights, checkpoint, config, exact=False)
        return
    checkpoint.check_shapes({item.name: tuple(item.shape) for item in weights}, config, exact=False)
    give_slice_values(weights, checkpoint.part, config.model, layout_of(config), rank)
