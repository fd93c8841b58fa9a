"""Per-layer health of a model in training.

Does the gradient reach every layer, does every weight take part, is the signal strong enough: from arrays on, which the
training step supplies.  docs/model-health.md tells how to read the result.
"""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

DEAD_BELOW = 1e-6
"""A weight takes no part where its second moment is below this share of its parameter's mean: a gradient that is
usually a thousandth of its neighbours'."""


@dataclass(frozen=True)
class HealthSample:
    """What one step tells about every parameter and every layer.

    Parameters are keyed by name (`blocks.3.attention.query.weight`), layers as `layer_of` names them (`blocks.3`).
    Anything that was not measured stays empty.
    """

    step: int
    """Number of the step."""
    learning_rate_share: float = 1.0
    """Learning rate of the step over the highest of the schedule; small updates are expected where it is small."""
    gradient_norm: Mapping[str, float] = field(default_factory=dict)
    """Norm of each parameter's gradient, before clipping and without loss scale."""
    weight_norm: Mapping[str, float] = field(default_factory=dict)
    """Norm of each parameter."""
    update_norm: Mapping[str, float] = field(default_factory=dict)
    """Norm of what the step changed in each parameter."""
    adam_m_norm: Mapping[str, float] = field(default_factory=dict)
    """Norm of each parameter's first moment."""
    adam_v_norm: Mapping[str, float] = field(default_factory=dict)
    """Norm of each parameter's second moment."""
    dead_share: Mapping[str, float] = field(default_factory=dict)
    """Share of each parameter's elements that get next to no gradient (`dead_share`)."""
    elements: Mapping[str, int] = field(default_factory=dict)
    """Number of elements of each parameter; weighs the parameters of a layer."""
    activation_rms: Mapping[str, float] = field(default_factory=dict)
    """Root mean square of each layer's output (the residual stream after it)."""
    activation_max: Mapping[str, float] = field(default_factory=dict)
    """Largest magnitude in each layer's output."""
    attention_entropy: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """For each layer with attention, `normalised_entropy` of each head."""


def norm(array: Array) -> float:
    """Euclidean norm of all elements of a float array, summed in float64."""
    flat = np.asarray(array).ravel()
    return math.sqrt(sum(float(np.vdot(part, part)) for part in np.array_split(flat, flat.size // 2**20 + 1)))


def dead_share(second_moment: Array) -> float:
    """Share of elements of an Adam second moment (any shape) below DEAD_BELOW of its mean; 1 where all are zero."""
    mean = float(second_moment.mean())
    return float(np.count_nonzero(second_moment <= DEAD_BELOW * mean)) / second_moment.size


def normalised_entropy(weights: Array, visible: Array) -> Array:
    """How evenly each head looks at what it may see: float [B, heads, S, S] -> float64 [heads], from 0 to 1.

    The entropy of a row of attention weights over the logarithm of the number of positions that row may see (`visible`,
    bool or 0/1 [B, 1, S, S]), averaged over rows that see two or more.  0: one position takes all; 1: all the same.
    """
    safe = np.where(weights > 0, weights, 1.0).astype(np.float64)
    entropy = -(safe * np.log(safe)).sum(axis=-1)  # [B, heads, S]
    seen = np.broadcast_to(visible.sum(axis=-1), entropy.shape)
    share = entropy / np.log(np.maximum(seen, 2))
    return np.where(seen >= 2, share, 0.0).sum(axis=(0, 2)) / np.maximum((seen >= 2).sum(axis=(0, 2)), 1)


def measure_parameters(
    step: int,
    gradient_norms: Mapping[str, float],
    weights: Mapping[str, Array],
    weights_before: Mapping[str, Array],
    adam_m: Mapping[str, Array],
    adam_v: Mapping[str, Array],
    learning_rate_share: float = 1.0,
) -> HealthSample:
    """The part of a sample that parameters tell, by parameter name; activations stay empty.

    Gradient norms come from the step, which has them anyway; the others are float arrays before and after it.
    """
    return HealthSample(
        step=step,
        learning_rate_share=learning_rate_share,
        gradient_norm=dict(gradient_norms),
        weight_norm={name: norm(array) for name, array in weights.items()},
        update_norm={name: norm(array - weights_before[name]) for name, array in weights.items()},
        adam_m_norm={name: norm(array) for name, array in adam_m.items()},
        adam_v_norm={name: norm(array) for name, array in adam_v.items()},
        dead_share={name: dead_share(array) for name, array in adam_v.items()},
        elements={name: int(array.size) for name, array in weights.items()},
    )


def layer_of(parameter: str) -> str:
    """The layer that a parameter belongs to: `blocks.3` for a block's, the first part of the name for others."""
    block = re.match(r"blocks\.\d+", parameter)
    return block[0] if block else parameter.split(".", 1)[0]


def layer_order(layers: Sequence[str]) -> list[str]:
    """Layers in the order in which a token passes them; unknown names follow, as they came."""
    places = {"word_table": -2, "embedding": -1, "final_norm": 10**6, "query_layer": 10**6 + 1}

    def place(layer: str) -> int:
        number = re.fullmatch(r"blocks\.(\d+)", layer)
        return int(number[1]) if number else places.get(layer, 10**7)

    return sorted(dict.fromkeys(layers), key=place)


@dataclass(frozen=True)
class LayerHealth:
    """One layer at one step; what was not measured is NaN."""

    gradient_norm: float = math.nan
    """Norm of the layer's gradient."""
    update_ratio: float = math.nan
    """Norm of the layer's update over the norm of its weights."""
    dead_share: float = math.nan
    """Share of its weights that get next to no gradient."""
    activation_rms: float = math.nan
    """Root mean square of its output."""
    activation_max: float = math.nan
    """Largest magnitude of its output."""
    attention_entropy: float = math.nan
    """Normalised entropy of its attention, mean over the heads."""


def by_layer(sample: HealthSample) -> dict[str, LayerHealth]:
    """The parameters of a sample gathered into layers, in the order in which a token passes them."""
    gradients, weights = _together(sample.gradient_norm), _together(sample.weight_norm)
    updates = _together(sample.update_norm)
    dead: dict[str, list[float]] = {}
    for name, share in sample.dead_share.items():
        count = float(sample.elements.get(name, 1))
        total = dead.setdefault(layer_of(name), [0.0, 0.0])
        total[0], total[1] = total[0] + share * count, total[1] + count
    layers = layer_order([*gradients, *weights, *dead, *sample.activation_rms, *sample.attention_entropy])
    result = {}
    for layer in layers:
        entropy = sample.attention_entropy.get(layer, ())
        weight = weights.get(layer, 0.0)
        result[layer] = LayerHealth(
            gradient_norm=gradients.get(layer, math.nan),
            update_ratio=updates[layer] / weight if layer in updates and weight > 0 else math.nan,
            dead_share=dead[layer][0] / dead[layer][1] if layer in dead else math.nan,
            activation_rms=sample.activation_rms.get(layer, math.nan),
            activation_max=sample.activation_max.get(layer, math.nan),
            attention_entropy=statistics.fmean(entropy) if len(entropy) else math.nan,
        )
    return result


def _together(norms: Mapping[str, float]) -> dict[str, float]:
    """Norms of parameters -> norms of layers."""
    squares: dict[str, float] = {}
    for name, value in norms.items():
        squares[layer_of(name)] = squares.get(layer_of(name), 0.0) + value * value
    return {layer: math.sqrt(square) for layer, square in squares.items()}
