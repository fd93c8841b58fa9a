"""The same run on one device: the trainer's own step, on the CPU."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pangu_alpha.config import Config
from pangu_alpha.config_parallel import ParallelConfig
from pangu_alpha.data.order import Batch

Disturb = Callable[[int, dict[str, np.ndarray]], None]
"""(number of the step, parameters by name): called before a step, may change values in the dict."""


@dataclass(frozen=True)
class StepResult:
    """What a step leaves.

    Attributes:
        metrics: `pangu_alpha.train.step.METRICS` by name.
        norms: gradient norm of each weight, float32 [P].
        weights: their names.
        parameters: value of each parameter after the step, moments, counters and accumulators included.
    """

    metrics: Mapping[str, float]
    norms: np.ndarray
    weights: tuple[str, ...]
    parameters: Mapping[str, np.ndarray]


def single_device_config(config: Config) -> Config:
    """`config` on one device: the same micro batches, nothing cut, nothing computed again."""
    return dataclasses.replace(config, parallel=ParallelConfig())


def reference_steps(
    config: Config,
    batches: Sequence[Batch],
    disturb: Disturb = lambda number, values: None,
    target: str = "ascend",
) -> Iterator[StepResult]:
    """Steps of `config` on one device, from the initial values of the run.

    Args:
        config: the run, of any layout.
        batches: of the steps.
        disturb: changes parameters between steps, for those who test what then happens.
        target: ascend or gpu, whose operators are taken, on the CPU's kernels: far fewer than the CPU's own forms.
    """
    import mindspore as ms

    from pangu_alpha.model.initial_values import fill_initial_values
    from pangu_alpha.parallel.context import set_single_device_context
    from pangu_alpha.train.step import Stepper, build_training_step

    single = single_device_config(config)
    set_single_device_context("cpu")
    step = build_training_step(single, target)
    fill_initial_values(step.model, single.model, single.train.seed)
    stepper = Stepper(step)
    for number, batch in enumerate(batches):
        ms.set_context(mode=ms.GRAPH_MODE)
        values = {parameter.name: parameter.asnumpy().copy() for parameter in step.get_parameters()}
        changed = dict(values)
        disturb(number, changed)
        for parameter in step.get_parameters():
            if changed[parameter.name] is not values[parameter.name]:
                parameter.set_data(ms.Tensor(changed[parameter.name]))
        metrics, norms = stepper(batch)
        parameters = {parameter.name: parameter.asnumpy().copy() for parameter in step.get_parameters()}
        yield StepResult(metrics, norms, tuple(weight.name for weight in step.weights), parameters)
