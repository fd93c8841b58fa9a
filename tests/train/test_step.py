"""The compiled optimizer step: accumulation, dropout by micro batch, loss scale, skipped updates."""

from __future__ import annotations

import dataclasses

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, ops

from pangu_alpha.config import Config, LossScaleConfig, TrainConfig
from pangu_alpha.config_parallel import ParallelConfig
from pangu_alpha.model.numerics import Numerics
from pangu_alpha.model.pangu_alpha import PanguAlphaLoss
from pangu_alpha.train.step import METRICS, Stepper, TrainStep, build_training_step
from tests.reference import numpy_pangu
from tests.reference.numpy_dropout import Drop
from tests.reference.small_model import (
    noisy_model,
    reference_shape,
    small_config,
    small_model_config,
    some_batch,
    weights_of,
)


class Rig:
    """A stepper that tests share, as its graph takes seconds to compile: `fresh` puts everything back.

    Values are assigned in place: once a graph has run, `set_data` no longer reaches parameters that only its
    conditional update uses (MindSpore 2.10; training restores a checkpoint before the first step).
    """

    def __init__(self, config: Config, numerics: Numerics | None = None) -> None:
        self.config, numerics = config, numerics or Numerics()
        model = noisy_model(config.model, numerics, dropout_seed=config.train.seed)
        self.stepper = Stepper(TrainStep(PanguAlphaLoss(model, config.model.vocab_size), config, numerics))
        self.step = self.stepper.step
        self.parameters = list({parameter.name: parameter for parameter in self.step.get_parameters()}.values())
        self.first_values = weights_of(self.parameters)

    def fresh(self) -> Rig:
        return self.put(self.first_values)

    def put(self, values: dict[str, np.ndarray]) -> Rig:
        for parameter in self.parameters:
            if parameter.name in values:
                ops.assign(parameter, Tensor(values[parameter.name]))
        return self

    def state(self) -> dict[str, np.ndarray]:
        return weights_of(self.step.state_parameters())

    def weights(self) -> dict[str, np.ndarray]:
        return weights_of(self.step.weights)

    def accumulators(self) -> list[np.ndarray]:
        return [value.asnumpy() for value in (*self.step.accu_grads, self.step.accumulated_loss)]


CLIPPED = {"optimizer": {"clip_norm": 1.0, "weight_decay": 0.1}}
SEED = 11


@pytest.fixture(scope="module")
def whole() -> Rig:
    """float32, one micro batch."""
    return Rig(small_config(small_model_config(), **CLIPPED))


@pytest.fixture(scope="module")
def in_four() -> Rig:
    """The same in four micro batches."""
    return Rig(small_config(small_model_config(), **CLIPPED, micro_batches=4))


@pytest.fixture(scope="module")
def with_dropout() -> Rig:
    """Dropout and two micro batches."""
    return Rig(small_config(small_model_config(dropout=0.4), micro_batches=2, seed=SEED))


@pytest.fixture(scope="module")
def half_precision() -> Rig:
    """float16, two micro batches, a scale that grows after three good steps."""
    config = small_config(small_model_config(), optimizer={"warmup_steps": 10})
    config = Config(
        model=config.model,
        optimizer=config.optimizer,
        loss_scale=LossScaleConfig(initial=1024.0, factor=2.0, window=3),
        train=TrainConfig(batch_size=4, micro_batches=2),
    )
    return Rig(config, Numerics(ms.float16))


def updates_of(rig: Rig) -> int:
    return int(rig.step.optimizer.global_step.asnumpy()[0])


def is_weight_or_moment(name: str) -> bool:
    return name not in ("loss_scale", "micro_step", "current_iterator_step", "last_overflow_iterator_step")


# -- accumulation ----------------------------------------------------------------------------------------------------


def test_four_micro_batches_are_one_batch(whole: Rig, in_four: Rig) -> None:
    whole.fresh()
    in_four.fresh()
    for seed in (1, 2, 3):
        batch = some_batch("mixed", seed=seed)
        (one, one_norms), (four, four_norms) = whole.stepper(batch), in_four.stepper(batch)
        for name in METRICS:
            assert four[name] == pytest.approx(one[name], rel=2e-5), name
        assert four_norms == pytest.approx(one_norms, rel=1e-3, abs=1e-5)
        assert one["gradient_norm"] > 1.0  # clipped, so that the whole gradient is needed for every weight
    before, four = whole.first_values, in_four.weights()
    for name, value in whole.weights().items():
        if not name.endswith("key.bias"):  # its gradient is rounding alone, as the softmax cancels it
            assert np.abs(value - before[name]).max() > 1e-3, name
            assert four[name] == pytest.approx(value, abs=5e-5), name
    assert all(not value.any() for value in in_four.accumulators())


def test_a_batch_is_cut_in_order(in_four: Rig) -> None:
    in_four.fresh()
    batch = some_batch(seed=1)
    parts = [[array[part : part + 1] for array in batch] for part in range(4)]
    losses = [numpy_pangu.loss(in_four.weights(), reference_shape(in_four.config.model), *part) for part in parts]
    sums = [float(in_four.stepper.accumulate(*map(Tensor, part)).asnumpy()) for part in parts[:3]]
    assert sums == pytest.approx(np.cumsum(losses)[:3] / 4, rel=1e-5)
    assert in_four.fresh().stepper(batch)[0]["loss"] == pytest.approx(np.mean(losses), rel=1e-5)


@pytest.mark.parametrize("recompute", ["full", "selective"])
def test_what_is_computed_again_is_computed_the_same(whole: Rig, recompute: str) -> None:
    parallel = ParallelConfig(recompute=recompute, recompute_operators=("attention", "activation", "norm"))
    step = build_training_step(dataclasses.replace(whole.config, parallel=parallel), "cpu")
    for parameter in step.get_parameters():
        parameter.set_data(Tensor(whole.first_values[parameter.name]))
    whole.fresh()
    for seed in (1, 2):
        batch = some_batch("mixed", seed=seed)
        expected = whole.stepper(batch)[0]
        assert Stepper(step)(batch)[0] == pytest.approx(expected, rel=1e-6)


# -- dropout ---------------------------------------------------------------------------------------------------------


def test_every_step_and_micro_batch_has_the_masks_of_its_number(with_dropout: Rig) -> None:
    rig = with_dropout.fresh()
    half = some_batch("permuted", samples=2)
    batch = [np.concatenate([array, array]) for array in half]  # both micro batches see the same
    for step in range(2):
        weights = rig.weights()
        expected = [
            numpy_pangu.loss(weights, reference_shape(rig.config.model), *half, drop=Drop(0.4, SEED, 2 * step + part))
            for part in range(2)
        ]
        assert abs(expected[0] - expected[1]) > 0.01
        metrics, _ = rig.stepper(batch)
        assert metrics["loss"] == pytest.approx(np.mean(expected), rel=1e-5)
    assert rig.step.gradients.micro_step.asnumpy().tolist() == [4]


def test_a_step_is_a_function_of_its_state(with_dropout: Rig) -> None:
    # What `state_parameters` gives is all that the next step depends on: put back later, the same numbers come again.
    rig = with_dropout.fresh()
    rig.stepper(some_batch("permuted", seed=1))
    kept = rig.state()
    losses = [rig.stepper(some_batch("permuted", seed=seed))[0] for seed in (2, 3)]
    after = rig.state()
    rig.fresh().stepper(some_batch("permuted", seed=9))
    rig.put(kept)
    assert [rig.stepper(some_batch("permuted", seed=seed))[0] for seed in (2, 3)] == losses
    for name, value in rig.state().items():
        assert np.array_equal(value, after[name]), name


def test_the_state_names_all_that_a_checkpoint_needs(with_dropout: Rig) -> None:
    names = [parameter.name for parameter in with_dropout.step.state_parameters()]
    weights = [weight.name for weight in with_dropout.step.weights]
    assert len(set(names)) == len(names)
    rest = {"global_step", "loss_scale", "micro_step", "current_iterator_step", "last_overflow_iterator_step"}
    moments = {f"{prefix}.{name}" for prefix in ("adam_m", "adam_v") for name in weights}
    assert set(names) == {*weights, *moments, *rest}


# -- what is skipped -------------------------------------------------------------------------------------------------


def test_an_overflow_skips_the_update_and_halves_the_scale(half_precision: Rig) -> None:
    rig = half_precision.fresh()
    batch = some_batch("permuted")
    metrics, _ = rig.stepper(batch)
    assert (metrics["applied"], metrics["loss_scale"]) == (1.0, 1024.0)
    assert np.isfinite(metrics["gradient_norm"])
    before = rig.state()
    rig.put({"loss_scale": np.float32(2.0**40)})
    for scale in (2.0**40, 2.0**39):
        metrics, _ = rig.stepper(batch)
        assert (metrics["applied"], metrics["loss_scale"]) == (0.0, scale)
        assert not np.isfinite(metrics["gradient_norm"])
        assert np.isfinite(metrics["loss"])
        for name, value in rig.state().items():
            assert np.array_equal(value, before[name]) or not is_weight_or_moment(name), name
        assert float(rig.step.loss_scale.asnumpy()) == scale / 2
        assert updates_of(rig) == 1  # so the learning rate waits, too
        assert all(not value.any() for value in rig.accumulators())
    # The step after an overflow starts from clean accumulators: it gives what it would have given without.
    rig.put({"loss_scale": np.float32(1024.0)})
    found, _ = rig.stepper(batch)
    assert (found["applied"], found["learning_rate"]) == (1.0, pytest.approx(1e-3))
    rig.fresh().stepper(batch)
    assert rig.stepper(batch)[0] == found


def test_the_scale_doubles_after_the_window(half_precision: Rig) -> None:
    rig = half_precision.fresh()
    batch = some_batch()

    def scales(steps: int) -> list[float]:
        return [rig.stepper(batch)[0]["loss_scale"] for _ in range(steps)]

    assert scales(7) == [1024.0] * 3 + [2048.0] * 3 + [4096.0]
    rig.put({"loss_scale": np.float32(2.0**40)})
    assert scales(1) == [2.0**40]  # an overflow: counting begins anew
    rig.put({"loss_scale": np.float32(1024.0)})
    assert scales(4) == [1024.0] * 3 + [2048.0]


def test_the_scale_does_not_fall_below_one(half_precision: Rig) -> None:
    rig = half_precision.fresh()
    rig.put({"word_table": np.full(rig.step.weights[0].shape, np.nan, np.float32), "loss_scale": np.float32(2.0)})
    assert [rig.stepper(some_batch())[0]["loss_scale"] for _ in range(3)] == [2.0, 1.0, 1.0]


def test_the_scale_changes_no_gradient(half_precision: Rig, whole: Rig) -> None:
    rig = half_precision
    norms = []
    for scale in (64.0, 1024.0):
        rig.fresh().put({"loss_scale": np.float32(scale)})
        metrics, each = rig.stepper(some_batch())
        norms.append([metrics["gradient_norm"], *each])
    large = np.array(norms[0]) > 0.01
    assert np.array(norms[1])[large] == pytest.approx(np.array(norms[0])[large], rel=0.01)
    assert norms[1][0] == pytest.approx(whole.fresh().stepper(some_batch())[0]["gradient_norm"], rel=0.01)


def test_float32_has_no_scale(whole: Rig) -> None:
    metrics, _ = whole.fresh().stepper(some_batch())
    assert metrics["loss_scale"] == 1.0
    assert [whole.stepper(some_batch())[0]["loss_scale"] for _ in range(3)] == [1.0] * 3


def test_a_norm_beyond_the_limit_skips_the_update(in_four: Rig) -> None:
    rig = in_four.fresh()
    batch = some_batch(seed=1)
    usual, _ = rig.stepper(batch)
    before = rig.state()
    rig.stepper.set_norm_limit(usual["gradient_norm"] / 100)
    metrics, _ = rig.stepper(batch)
    assert metrics["applied"] == 0.0
    assert np.isfinite(metrics["gradient_norm"])
    for name, value in rig.state().items():
        assert np.array_equal(value, before[name]) == (name != "micro_step"), name
    assert all(not value.any() for value in rig.accumulators())
    rig.stepper.set_norm_limit(np.inf)
    assert rig.stepper(batch)[0] == metrics | {"applied": 1.0}


def test_a_gradient_that_is_no_number_leaves_the_weights_alone(whole: Rig) -> None:
    rig = whole.fresh()
    poisoned = rig.first_values["final_norm.gamma"].copy()
    poisoned[3] = np.nan
    rig.put({"final_norm.gamma": poisoned})
    before = rig.state()
    metrics, _ = rig.stepper(some_batch())
    assert np.isnan(metrics["loss"])
    assert metrics["applied"] == 0.0
    for name, value in rig.state().items():
        assert np.array_equal(value, before[name], equal_nan=True) == (name != "micro_step"), name
