"""AdamWeightDecay with the published decay rule."""

from __future__ import annotations

from typing import Any

import mindspore as ms
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops

from pangu_alpha.config import OptimizerConfig
from pangu_alpha.model.numerics import Numerics
from pangu_alpha.train.schedule import Schedule

_decay = ops.MultitypeFuncGraph("decay")
_adam = ops.MultitypeFuncGraph("adam")


@_decay.register("Tensor", "Tensor")
def _decay_one(share: Tensor, weight: Parameter) -> Tensor:
    return ops.assign_sub(weight, weight * share)


@_adam.register("Function", *(["Tensor"] * 9))
def _adam_one(
    update: ops.Primitive,
    power: Tensor,
    rate: Tensor,
    beta1: Tensor,
    beta2: Tensor,
    epsilon: Tensor,
    weight: Parameter,
    first_moment: Parameter,
    second_moment: Parameter,
    gradient: Tensor,
) -> Tensor:
    return update(weight, first_moment, second_moment, power, power, rate, beta1, beta2, epsilon, gradient)


def is_decayed(name: str) -> bool:
    """Whether weight decay acts on the parameter: on all but biases and LayerNorm's gamma and beta."""
    return name.rsplit(".", 1)[-1] not in ("bias", "gamma", "beta")


class DecayThenAdam(nn.AdamWeightDecay):
    """nn.AdamWeightDecay in two steps, `p -= lr decay p` and then the Adam operator with powers of beta that are 0.

    On the CPU its one operator for both takes four times as long as Adam's.
    """

    def __init__(self, groups: list[dict[str, Any]], config: OptimizerConfig) -> None:
        super().__init__(groups, Schedule(config), config.beta1, config.beta2, config.epsilon)
        decayed = [parameter for parameter in self.parameters if is_decayed(parameter.name)]
        self.decayed = ParameterTuple(decayed if config.weight_decay > 0.0 else [])
        self.decay, self.power = Tensor(config.weight_decay, ms.float32), Tensor(0.0, ms.float32)
        self.update = ops.Adam()

    def construct(self, gradients: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Gradients in the order of the parameters -> the moments' updates, done."""
        rate = self.get_lr()
        self.assignadd(self.global_step, self.global_step_increase_tensor)
        shrunk = self.hyper_map(ops.partial(_decay, rate * self.decay), self.decayed)
        adam = ops.partial(_adam, self.update, self.power, rate, self.beta1, self.beta2, self.eps)
        gradients = ops.depend(gradients, shrunk)
        return self.hyper_map(adam, self._parameters, self.moments1, self.moments2, gradients)


def build_optimizer(parameters: list[Parameter], config: OptimizerConfig, numerics: Numerics) -> nn.Optimizer:
    """The optimizer over `parameters`, in their order.

    `m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2;  p -= lr (m / (sqrt(v) + eps) + decay p)`: no bias correction,
    as in the official runs; moments are float32 parameters named adam_m.<name> and adam_v.<name>.  With `kind: sgd`
    `p -= lr (g + decay p)`.
    """
    groups: list[dict[str, Any]] = [
        {"params": [p for p in parameters if is_decayed(p.name)], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if not is_decayed(p.name)], "weight_decay": 0.0},
        {"order_params": parameters},
    ]
    if config.kind == "sgd":
        return nn.SGD(groups, Schedule(config))
    if not numerics.fused_operators:
        return DecayThenAdam(groups, config)
    return nn.AdamWeightDecay(groups, Schedule(config), config.beta1, config.beta2, config.epsilon)
