"""The PyTorch peer computes what this project's model computes (collected only where PyTorch is installed)."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
import train_step
from torch_peer import PeerModel, PeerStep

from pangu_alpha.config import Config, DataConfig, ModelConfig, OptimizerConfig, TrainConfig
from pangu_alpha.model.initial_values import initial_value
from pangu_alpha.model.numerics import resolve_numerics
from pangu_alpha.model.pangu_alpha import PanguAlphaLoss, PanguAlphaModel
from pangu_alpha.parallel.context import set_single_device_context
from pangu_alpha.train.step import Stepper, TrainStep

CONFIG = Config(
    model=ModelConfig(vocab_size=200, hidden_size=32, num_layers=3, num_heads=4, seq_length=64, dropout=0.0),
    data=DataConfig(order="mixed"),
    optimizer=OptimizerConfig(learning_rate=1e-2),
    train=TrainConfig(batch_size=4),
)


def changed(**changes: object) -> Config:
    model = dataclasses.replace(CONFIG.model, **changes)
    return dataclasses.replace(CONFIG, model=model, data=CONFIG.data if model.query_layer else DataConfig())


def ours(config: Config) -> tuple[PanguAlphaModel, dict[str, np.ndarray]]:
    """Our model and its weights; biases, norms and tables are all far from their initial values."""
    from mindspore import Tensor

    generator = np.random.default_rng(5)
    model = PanguAlphaModel(config.model, resolve_numerics(config.model, set_single_device_context("cpu")))
    weights = {}
    for parameter in model.get_parameters():
        value = initial_value(parameter.name, tuple(parameter.shape), config.model, 1)
        value = (value + 0.1 * generator.standard_normal(value.shape)).astype(np.float32)
        parameter.set_data(Tensor(value))
        weights[parameter.name] = value.copy()
    return model, weights


@pytest.mark.parametrize(
    "config",
    [
        changed(), changed(final_norm="after_query"), changed(query_layer=False), changed(activation="gelu_erf"),
        changed(activation="fast_gelu"),
        dataclasses.replace(CONFIG, data=DataConfig(order="permuted", reset_attention=False, span_length=8)),
    ],
    ids=["released", "after_query", "gpt", "gelu_erf", "fast_gelu", "documents_joined"],
)  # fmt: skip
def test_logits_are_equal(config):
    from mindspore import Tensor

    model, weights = ours(config)
    peer = PeerModel(config.model)
    peer.load(weights)
    arrays = [array[0] for array in train_step.make_batches(config).values()][:4]
    expected = model(*(Tensor(array) for array in arrays)).asnumpy()
    tensors = [torch.from_numpy(array) for array in arrays]
    if not config.data.reset_attention:
        tensors[3] = None
    with torch.no_grad():
        np.testing.assert_allclose(peer(*tensors).numpy(), expected, rtol=1e-4, atol=2e-5)


def test_steps_are_equal_to_the_bias_correction():
    config = train_step.comparable(CONFIG)
    model, weights = ours(config)
    numerics = resolve_numerics(config.model, "cpu")
    stepper = Stepper(TrainStep(PanguAlphaLoss(model, config.model.vocab_size), config, numerics))
    peer = PeerModel(config.model)
    peer.load(weights)
    step = PeerStep(peer, config.optimizer, see_documents=True)
    batches = list(zip(*train_step.make_batches(config).values(), strict=True))
    losses = [(stepper(batch)[0]["loss"], step(batch)) for batch in batches[:5]]
    assert losses[4][0] < losses[0][0] - 0.1
    np.testing.assert_allclose(*zip(*losses, strict=True), rtol=1e-4)
