"""Samples of a real model: against NumPy, and without any effect on training."""

from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from pangu_alpha.config import Config, ModelConfig, OptimizerConfig, TrainConfig
from pangu_alpha.model.initial_values import fill_initial_values
from pangu_alpha.model.numerics import Numerics
from pangu_alpha.model.pangu_alpha import PanguAlphaLoss, PanguAlphaModel
from pangu_alpha.train.health import by_layer, normalised_entropy
from pangu_alpha.train.health_probe import HealthMeter, Probe
from pangu_alpha.train.step import Stepper, TrainStep

BATCH, SEQ = 2, 12


def tiny(**changes) -> ModelConfig:
    shape = {"vocab_size": 40, "hidden_size": 16, "num_layers": 3, "num_heads": 2, "seq_length": SEQ, "dropout": 0.1}
    return ModelConfig(**{**shape, **changes})


def build(config: ModelConfig) -> PanguAlphaModel:
    ms.set_context(mode=ms.GRAPH_MODE)
    model = PanguAlphaModel(config, Numerics())
    fill_initial_values(model, config, seed=3)
    random = np.random.default_rng(3)
    for parameter in model.get_parameters():  # larger than published, so that attention chooses
        noise = random.standard_normal(parameter.shape).astype(np.float32) * 0.3
        parameter.set_data(Tensor(parameter.asnumpy() + noise))
    return model


def batch() -> tuple[np.ndarray, ...]:
    random = np.random.default_rng(4)
    ids = random.integers(10, 40, (BATCH, SEQ + 1)).astype(np.int32)
    segments = np.repeat(np.array([[0] * 5 + [1] * 7], np.int32), BATCH, axis=0)
    positions = np.repeat(np.array([[*range(5), *range(7)]], np.int32), BATCH, axis=0)
    return ids[:, :-1].copy(), positions, positions.copy(), segments, ids[:, 1:].copy()


@pytest.mark.parametrize(
    "config",
    [
        tiny(),
        pytest.param(tiny(final_norm="after_query"), marks=pytest.mark.slow),
        tiny(query_layer=False),
    ],
    ids=["before_query", "after_query", "plain"],
)
def test_the_probe_sees_what_the_layers_compute(config):
    model = build(config)
    probe = Probe(model)
    tokens, positions, query_positions, segments, _ = batch()
    strengths, entropies = probe(*(Tensor(array) for array in (tokens, positions, query_positions, segments)))

    # The same layer by layer, the attention weights' entropy in NumPy.
    mask = model.masks[0](Tensor(segments))
    visible = mask.asnumpy() == 0
    hidden = model.embedding(Tensor(tokens), Tensor(positions), model.word_table)
    expected_strengths, expected_entropies = [hidden.asnumpy()], []

    def layer(block, hidden, query_input=None):
        normed = block.attention_norm(hidden)
        attention = block.attention
        asking = normed if query_input is None else query_input
        query = attention.split_heads(attention.query(asking), BATCH)
        key = attention.split_heads(attention.key(normed), BATCH)
        weights = attention.weights(query, key, mask).asnumpy()
        expected_entropies.append(normalised_entropy(weights, visible))
        return block(hidden, mask, query_input)

    for block in model.blocks:
        hidden = layer(block, hidden)
        expected_strengths.append(hidden.asnumpy())
    normed = model.final_norm(hidden)
    if not config.query_layer:
        expected_strengths.append(normed.asnumpy())
    else:
        query_input = model.query_layer.query_input(Tensor(query_positions))
        before = config.final_norm == "before_query"
        asked = layer(model.query_layer.block, normed if before else hidden, query_input)
        last = [normed, asked] if before else [asked, model.final_norm(asked)]
        expected_strengths += [value.asnumpy() for value in last]

    assert len(probe.output_layers) == len(expected_strengths)
    for row, value in zip(strengths.asnumpy(), expected_strengths, strict=True):
        assert row == pytest.approx([np.sqrt(np.mean(value**2)), np.abs(value).max()], rel=1e-4)
    assert entropies.asnumpy() == pytest.approx(np.array(expected_entropies), abs=1e-5)
    assert probe.attention_layers == [f"blocks.{i}" for i in range(config.num_blocks)] + (
        ["query_layer"] if config.query_layer else []
    )
    assert 0.05 < entropies.asnumpy().min() < entropies.asnumpy().max() < 0.999  # neither extreme: the test can fail


def test_a_sample_tells_what_the_step_did_and_changes_nothing():
    config = Config(
        model=tiny(),
        optimizer=OptimizerConfig(
            learning_rate=1e-2, warmup_steps=0, decay_steps=1000, schedule="constant", weight_decay=0.0
        ),
        train=TrainConfig(steps=4, batch_size=BATCH),
    )

    def run(health_at: int) -> tuple[list[float], list[np.ndarray], object]:
        model = build(config.model)
        stepper = Stepper(TrainStep(PanguAlphaLoss(model, config.model.vocab_size), config, Numerics()))
        meter = HealthMeter(model, stepper.step.weights, stepper.step.optimizer)
        losses, sample = [], None
        for step in range(1, 4):
            if step == health_at:
                before = {weight.name: weight.asnumpy().copy() for weight in stepper.step.weights}
                meter.before()
            metrics, norms = stepper(batch())
            losses.append(metrics["loss"])
            if step == health_at:
                sample = (meter.after(step, norms, batch()), before, metrics)
        return losses, [weight.asnumpy().copy() for weight in stepper.step.weights], sample

    losses, weights, sampled = run(health_at=3)
    plain_losses, plain_weights, _ = run(health_at=0)
    assert losses == plain_losses
    assert all((one == other).all() for one, other in zip(weights, plain_weights, strict=True))

    sample, before, metrics = sampled
    assert sample.step == 3
    total = np.sqrt(sum(value**2 for value in sample.gradient_norm.values()))
    assert total == pytest.approx(metrics["gradient_norm"], rel=1e-5)
    for (name, old), new in zip(before.items(), weights, strict=True):
        assert sample.update_norm[name] == pytest.approx(np.linalg.norm(new - old), rel=1e-4)
        assert sample.weight_norm[name] == pytest.approx(np.linalg.norm(new), rel=1e-5)
    layers = by_layer(sample)
    assert list(layers) == ["word_table", "embedding", "blocks.0", "blocks.1", "final_norm", "query_layer"]
    for health in layers.values():
        assert health.gradient_norm > 0
        assert health.update_ratio > 0
    # Every weight moves by about the learning rate under Adam without weight decay.
    count = sample.elements["word_table"]
    assert 1e-4 < sample.update_norm["word_table"] / count**0.5 < 4e-2
    # Rows of the word table are used by the head all; positions past the documents' lengths are used by no one.
    assert sample.dead_share["word_table"] < 0.1
    assert sample.dead_share["embedding.position_table"] == pytest.approx(5 / 12, abs=0.02)
