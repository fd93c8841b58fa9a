"""The initial value of every parameter, as published."""

from __future__ import annotations

import hashlib
import math

import numpy as np
from mindspore import Tensor

from pangu_alpha.config import ModelConfig
from pangu_alpha.model.pangu_alpha import PanguAlphaModel

_PUBLISHED_WIDTH = 2560  # of the smallest published model that was trained to the end


def initial_value(name: str, shape: tuple[int, ...], config: ModelConfig, seed: int) -> np.ndarray:
    """The float32 initial value of one parameter, a pure function of (seed, name), as the official code has it.

    | parameter                              | value                                   |
    |----------------------------------------|-----------------------------------------|
    | word table                             | N(0, 0.02)                              |
    | query table                            | N(0, 0.02) truncated at two sigma       |
    | position table                         | the same, but whole where `final_norm` is after_query |
    | query, key, value weight               | N(0, 0.01)                              |
    | feed-forward inner weight              | N(0, 0.02)                              |
    | attention and feed-forward output weight | N(0, 0.02 / sqrt(2 num_layers))       |
    | biases, beta                           | 0                                       |
    | gamma                                  | 1                                       |

    (The official pipeline-parallel code, the 200B's, leaves its position table whole.)

    With `model.initial_values: width_scaled` every deviation is multiplied by sqrt(2560 / hidden_size), so that a
    narrow model starts with the signal strengths of the 2.6B, and the query table is N(0, 1): nothing normalises
    the query side, and from 0.02 its attention takes thousands of steps to leave the even distribution.
    """
    part = name.rsplit(".", 1)[-1]
    if part in ("bias", "beta"):
        return np.zeros(shape, np.float32)
    if part == "gamma":
        return np.ones(shape, np.float32)
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    generator = np.random.Generator(np.random.Philox(int.from_bytes(digest[:16], "little")))
    normal = generator.standard_normal(shape, dtype=np.float32)
    if part == "query_table" or (part == "position_table" and config.final_norm == "before_query"):
        while (outside := np.abs(normal) > 2).any():
            normal[outside] = generator.standard_normal(int(outside.sum()), dtype=np.float32)
    sigma = 0.02
    if name.endswith(("query.weight", "key.weight", "value.weight")):
        sigma = 0.01
    elif name.endswith("output.weight"):
        sigma = 0.02 / math.sqrt(2 * config.num_layers)
    if config.initial_values == "width_scaled":
        sigma = 1.0 if part == "query_table" else sigma * math.sqrt(_PUBLISHED_WIDTH / config.hidden_size)
    return normal * np.float32(sigma)


def fill_initial_values(model: PanguAlphaModel, config: ModelConfig, seed: int) -> None:
    """Gives every parameter of `model` its initial value for `seed`."""
    for parameter in model.get_parameters():
        parameter.set_data(Tensor(initial_value(parameter.name, tuple(parameter.shape), config, seed)))
