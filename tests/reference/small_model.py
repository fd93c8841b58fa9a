"""Small models and batches that the tests of model, training and reference share."""

from __future__ import annotations

import numpy as np
from mindspore import Tensor

from pangu_alpha.config import Config, DataConfig, ModelConfig, OptimizerConfig, TrainConfig
from pangu_alpha.data.order import Batch, arrange_samples
from pangu_alpha.model.initial_values import fill_initial_values
from pangu_alpha.model.numerics import Numerics
from pangu_alpha.model.pangu_alpha import PanguAlphaModel
from pangu_alpha.parallel.context import set_single_device_context
from tests.reference.numpy_pangu import Shape

SEQ_LENGTH, VOCABULARY = 16, 40
END_OF_TEXT = 9


def small_model_config(**changes) -> ModelConfig:
    """One block and the query layer, without dropout."""
    shape = {
        "vocab_size": VOCABULARY,
        "hidden_size": 16,
        "num_layers": 2,
        "num_heads": 2,
        "seq_length": SEQ_LENGTH,
        "dropout": 0.0,
    }
    return ModelConfig(**(shape | changes))


def small_config(model: ModelConfig, optimizer: dict | None = None, **train) -> Config:
    """A constant learning rate from the first step, no decay, no clipping, unless `optimizer` says otherwise."""
    plain = {"learning_rate": 1e-2, "warmup_steps": 0, "decay_steps": 1000, "schedule": "constant"}
    plain |= {"weight_decay": 0.0, "clip_norm": 0.0} | (optimizer or {})
    return Config(
        name="small", model=model, optimizer=OptimizerConfig(**plain), train=TrainConfig(**({"batch_size": 4} | train))
    )


def noisy_model(
    config: ModelConfig, numerics: Numerics | None = None, noise: float = 0.3, dropout_seed: int = 1
) -> PanguAlphaModel:
    """A model in which nothing is trivially zero or one: noise on every parameter."""
    set_single_device_context("cpu")
    model = PanguAlphaModel(config, numerics or Numerics(), dropout_seed=dropout_seed)
    fill_initial_values(model, config, seed=3)
    random = np.random.default_rng(3)
    for parameter in model.get_parameters():
        change = random.standard_normal(parameter.shape).astype(np.float32) * noise
        parameter.set_data(Tensor(parameter.asnumpy() + change))
    return model


def reference_shape(config: ModelConfig) -> Shape:
    """The same model for NumPy."""
    before = config.final_norm == "before_query"
    return Shape(config.num_heads, config.num_blocks, config.query_layer, before, config.layer_norm_epsilon)


def weights_of(parameters) -> dict[str, np.ndarray]:
    """Copies of the values by name."""
    return {parameter.name: np.array(parameter.asnumpy()) for parameter in parameters}


def some_ids(samples: int = 4, seed: int = 4) -> np.ndarray:
    """int32 [samples, S + 1]: the first sample is of one document, the others of several."""
    random = np.random.default_rng(seed)
    ids = random.integers(10, VOCABULARY, (samples, SEQ_LENGTH + 1)).astype(np.int32)
    for sample in range(1, samples):
        ends = random.choice(np.arange(1, SEQ_LENGTH), size=sample, replace=False)
        ids[sample, ends] = END_OF_TEXT
    return ids


def some_batch(order: str = "sequential", samples: int = 4, seed: int = 4, span_length: int = 5) -> Batch:
    """Five int32 [samples, S]."""
    data = DataConfig(order=order, permuted_share=0.5, span_length=span_length)
    return arrange_samples(some_ids(samples, seed), np.zeros(samples), np.arange(samples), seed=1, data=data)


def tensors(batch) -> list[Tensor]:
    """Arrays as a graph takes them."""
    return [Tensor(np.ascontiguousarray(array)) for array in batch]
