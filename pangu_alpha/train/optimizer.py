"""AdamWeightDecay with the published decay rule."""

from __future__ import annotations

from mindspore import Parameter, nn

from pangu_alpha.config import OptimizerConfig
from pangu_alpha.train.schedule import Schedule


def is_decayed(name: str) -> bool:
    """Whether weight decay acts on the parameter: on all but biases and LayerNorm's gamma and beta."""
    return name.rsplit(".", 1)[-1] not in ("bias", "gamma", "beta")


def build_optimizer(parameters: list[Parameter], config: OptimizerConfig) -> nn.Optimizer:
    """The optimizer over `parameters`, in their order.

    `m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2;  p -= lr (m / (sqrt(v) + eps) + decay p)`: no bias correction,
    as in the official runs; moments are float32 parameters named adam_m.<name> and adam_v.<name>.  With `kind: sgd`
    `p -= lr (g + decay p)`.
    """
    groups = [
        {"params": [p for p in parameters if is_decayed(p.name)], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if not is_decayed(p.name)], "weight_decay": 0.0},
        {"order_params": parameters},
    ]
    if config.kind == "sgd":
        return nn.SGD(groups, Schedule(config))
    return nn.AdamWeightDecay(groups, Schedule(config), config.beta1, config.beta2, config.epsilon)
