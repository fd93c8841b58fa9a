"""AdamWeightDecay by hand, alone and through the step with its clipping, and on which parameters decay acts."""

from __future__ import annotations

import numpy as np
import pytest
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops

from pangu_alpha.config import OptimizerConfig
from pangu_alpha.model.numerics import Numerics
from pangu_alpha.model.pangu_alpha import PanguAlphaLoss
from pangu_alpha.parallel.context import set_single_device_context
from pangu_alpha.train.optimizer import build_optimizer, is_decayed
from pangu_alpha.train.step import Stepper, TrainStep
from tests.reference.small_model import (
    noisy_model,
    small_config,
    small_model_config,
    some_batch,
    tensors,
    weights_of,
)

NOT_DECAYED = {"gamma", "beta", "bias"}


class HandAdam:
    """m = b1 m + (1 - b1) g; v = b2 v + (1 - b2) g^2; p -= rate * (m / (sqrt(v) + eps) + decay * p), in float64."""

    def __init__(self, weights: dict[str, np.ndarray], config: OptimizerConfig) -> None:
        self.weights = {name: value.astype(np.float64) for name, value in weights.items()}
        self.m = {name: np.zeros_like(value) for name, value in self.weights.items()}
        self.v = {name: np.zeros_like(value) for name, value in self.weights.items()}
        self.config = config

    def update(self, gradients: dict[str, np.ndarray], rate: float) -> None:
        config = self.config
        for name, value in self.weights.items():
            gradient = gradients[name].astype(np.float64)
            self.m[name] = config.beta1 * self.m[name] + (1 - config.beta1) * gradient
            self.v[name] = config.beta2 * self.v[name] + (1 - config.beta2) * gradient**2
            decay = 0.0 if name.rsplit(".", 1)[-1] in NOT_DECAYED else config.weight_decay
            direction = self.m[name] / (np.sqrt(self.v[name]) + config.epsilon) + decay * value
            self.weights[name] = value - rate * direction


def test_decay_acts_on_all_but_biases_and_norms():
    model = noisy_model(small_model_config(num_layers=3))
    decayed = {parameter.name for parameter in model.get_parameters() if is_decayed(parameter.name)}
    layer = {
        f"{place}.{part}.weight"
        for place in ("blocks.0", "blocks.1", "query_layer.block")
        for part in (
            *(f"attention.{name}" for name in ("query", "key", "value", "output")),
            "feed_forward.inner",
            "feed_forward.output",
        )
    }
    # Embeddings are decayed: the published rule leaves out only names with `layernorm` or `bias`.
    assert decayed == layer | {"word_table", "embedding.position_table", "query_layer.query_table"}


@pytest.mark.parametrize("changes", [{}, {"beta1": 0.8, "beta2": 0.999, "epsilon": 1e-3, "weight_decay": 0.0}])
@pytest.mark.parametrize("fused", [False, True])
def test_three_updates_by_hand(changes, fused):
    set_single_device_context("cpu")
    shape = {"learning_rate": 0.05, "warmup_steps": 2, "decay_steps": 1000, "schedule": "constant"}
    config = OptimizerConfig(**(shape | {"weight_decay": 0.3} | changes))
    # Tolerances: 1 - 0.999 has five digits in float32.
    random = np.random.default_rng(1)
    names = ["a.weight", "a.bias", "norm.gamma", "norm.beta", "word_table"]
    weights = {name: random.standard_normal((5, 7)).astype(np.float32) for name in names}
    parameters = [Parameter(Tensor(value), name=name) for name, value in weights.items()]
    optimizer = build_optimizer(parameters, config, Numerics(fused_operators=fused))
    assert [parameter.name for parameter in optimizer.parameters] == names  # gradients are given in this order
    hand = HandAdam(weights, config)
    for rate in (0.0, 0.025, 0.05):
        gradients = [random.standard_normal((5, 7)).astype(np.float32) * 10.0**power for power in range(-3, 2)]
        optimizer(tuple(Tensor(gradient) for gradient in gradients))
        hand.update(dict(zip(names, gradients, strict=True)), rate)
        for found, name in zip(parameters, names, strict=True):
            assert found.asnumpy() == pytest.approx(hand.weights[name], rel=1e-5, abs=1e-5), name
            if rate == 0.0:
                assert np.array_equal(found.asnumpy(), weights[name])
    for prefix, moments in (("adam_m", hand.m), ("adam_v", hand.v)):
        found = {parameter.name: parameter.asnumpy() for parameter in optimizer.get_parameters()}
        for name in names:
            assert found[f"{prefix}.{name}"] == pytest.approx(moments[name], rel=3e-5), name


class ValueAndGradient(nn.Cell):
    """Loss and gradients, without the machinery of the step."""

    def __init__(self, network: PanguAlphaLoss) -> None:
        super().__init__(auto_prefix=False)
        self.both = ops.value_and_grad(network, None, ParameterTuple(network.trainable_params()))

    def construct(self, *batch):
        return self.both(*batch)


def test_steps_by_hand_one_clipped_and_one_not():
    model_config = small_model_config()
    model = noisy_model(model_config)
    network = PanguAlphaLoss(model, model_config.vocab_size)
    plain = ValueAndGradient(network)
    names = [weight.name for weight in network.trainable_params()]

    def gradients_of(batch) -> tuple[float, dict[str, np.ndarray], np.ndarray, float]:
        loss, gradients = plain(*tensors(batch))
        by_name = {name: gradient.asnumpy() for name, gradient in zip(names, gradients, strict=True)}
        norms = np.array([np.linalg.norm(gradient.astype(np.float64)) for gradient in by_name.values()])
        return float(loss.asnumpy()), by_name, norms, float(np.linalg.norm(norms))

    batches = [some_batch("permuted", seed=seed) for seed in (1, 2, 1)]
    first, second = (gradients_of(batch)[-1] for batch in batches[:2])
    assert abs(first - second) > 0.01
    # The first update has rate 0, so both norms are met again, and the limit lies between them.
    config = small_config(
        model_config,
        optimizer={"clip_norm": (first + second) / 2, "weight_decay": 0.1, "warmup_steps": 1, "learning_rate": 0.02},
    )
    stepper = Stepper(TrainStep(network, config, Numerics()))
    hand = HandAdam(weights_of(stepper.step.weights), config.optimizer)
    clipped = []
    for batch, rate in zip(batches, (0.0, 0.02, 0.02), strict=True):
        loss, gradients, norms, norm = gradients_of(batch)
        metrics, found_norms = stepper(batch)
        assert metrics["loss"] == pytest.approx(loss, rel=1e-6)
        assert metrics["gradient_norm"] == pytest.approx(norm, rel=1e-5)
        assert found_norms == pytest.approx(norms, rel=1e-4, abs=1e-7)
        assert metrics["learning_rate"] == pytest.approx(rate)
        assert (metrics["loss_scale"], metrics["applied"]) == (1.0, 1.0)
        limit = config.optimizer.clip_norm
        clipped.append(norm > limit)
        factor = limit / max(norm, limit)
        hand.update({name: gradient * factor for name, gradient in gradients.items()}, rate)
        for name, value in weights_of(stepper.step.weights).items():
            assert value == pytest.approx(hand.weights[name], rel=1e-4, abs=2e-6), name
    assert set(clipped[:2]) == {True, False}
