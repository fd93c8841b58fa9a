"""The same run on one device: the trainer's own step, on the CPU."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from pangu_alpha.config import Config
from pangu_alpha.config_parallel import ParallelConfig
from pangu_alpha.data.order import Batch

Prepare = Callable[[int, str, np.ndarray], np.ndarray | None]
"""(step, parameter, its value) -> another value before the step, or None to leave it."""


@dataclass(frozen=True)
class StepResult:
    """What a step leaves.

    Attributes:
        metrics: `pangu_alpha.train.step.METRICS` by name.
        norms: gradient norm of each weight, float32 [P].
        parameters: value of each parameter after the step, moments, counters and accumulators included.
    """

    metrics: Mapping[str, float]
    norms: np.ndarray
    parameters: Mapping[str, np.ndarray]


def single_device_config(config: Config) -> Config:
    """`config` on one device: the same micro batches, nothing cut, nothing computed again."""
    return dataclasses.replace(config, parallel=ParallelConfig())


def reference_steps(
    config: Config, batches: list[Batch], before: Callable[[int, dict[str, np.ndarray]], None] | None = None
) -> Iterator[StepResult]:
    """Steps of `config` on one device, from the initial values of the run.

    Args:
        config: the run, of any layout.
        batches: of the steps.
        before: called before each step with its number and an empty dict, which it may fill with values that
            parameters take.
    """
    import mindspore as ms

    from pangu_alpha.model.initial_values import fill_initial_values
    from pangu_alpha.parallel.context import set_single_device_context
    from pangu_alpha.train.step import Stepper, build_training_step

    single = single_device_config(config)
    device = set_single_device_context("cpu")
    step = build_training_step(single, device)
    step.set_train()
    fill_initial_values(step.model, single.model, single.train.seed)
    stepper = Stepper(step)
    for number, batch in enumerate(batches):
        ms.set_context(mode=ms.GRAPH_MODE)
        if before is not None:
            values: dict[str, np.ndarray] = {}
            before(number, values)
            for parameter in step.get_parameters():
                if parameter.name in values:
                    parameter.set_data(ms.Tensor(values[parameter.name]))
        metrics, norms = stepper(batch)
        parameters = {parameter.name: parameter.asnumpy().copy() for parameter in step.get_parameters()}
        yield StepResult(metrics, norms, parameters)
