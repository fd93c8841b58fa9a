"""PanGu-α in plain NumPy, float64: written from the paper and the official code's description alone.

It shares no code with the package: only the parameters' names and the layout of the linear weights (query, key and
value as [out, in], the others as [in, out]) are common ground.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

PAD = 6
Weights = Mapping[str, np.ndarray]
Drop = Callable[[int, np.ndarray, int], np.ndarray]
"""Dropout: number of the place in the model, rows [n, columns], index of the first row in the batch's tensor."""


def keep_all(site: int, rows: np.ndarray, first_row: int) -> np.ndarray:
    return rows


@dataclass(frozen=True)
class Shape:
    """What the weights alone don't tell."""

    heads: int
    blocks: int
    query_layer: bool = True
    norm_before_query: bool = True
    epsilon: float = 1e-5


def layer_norm(x: np.ndarray, weights: Weights, name: str, epsilon: float) -> np.ndarray:
    mean = x.mean(-1, keepdims=True)
    variance = ((x - mean) ** 2).mean(-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + epsilon) * weights[f"{name}.gamma"] + weights[f"{name}.beta"]


def gelu(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1.0 + np.tanh(np.sqrt(2.0 / np.pi) * (x + 0.044715 * x**3)))


@dataclass(frozen=True)
class Sample:
    """What the layers need to know of the sample: what each step may see, its number in the batch, and dropout."""

    allowed: np.ndarray
    number: int
    drop: Drop


def attention(
    asking: np.ndarray, answering: np.ndarray, sample: Sample, weights: Weights, name: str, heads: int, site: int
) -> np.ndarray:
    """One sample: [S, H], [S, H] -> [S, H]; head by head."""
    query = asking @ weights[f"{name}.query.weight"].T + weights[f"{name}.query.bias"]
    key = answering @ weights[f"{name}.key.weight"].T + weights[f"{name}.key.bias"]
    value = answering @ weights[f"{name}.value.weight"].T + weights[f"{name}.value.bias"]
    size = query.shape[-1] // heads
    merged = np.empty_like(query)
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        scores = query[:, part] @ key[:, part].T / np.sqrt(size) + (1.0 - sample.allowed) * -10000.0
        scores -= scores.max(-1, keepdims=True)
        shares = np.exp(scores)
        shares /= shares.sum(-1, keepdims=True)
        shares = sample.drop(site, shares, (sample.number * heads + head) * len(query))
        merged[:, part] = shares @ value[:, part]
    return merged @ weights[f"{name}.output.weight"] + weights[f"{name}.output.bias"]


def layer(
    x: np.ndarray, sample: Sample, weights: Weights, name: str, shape: Shape, asking: np.ndarray | None = None
) -> np.ndarray:
    """One sample through a block, or with `asking` through the query layer: [S, H] -> [S, H]."""
    number = shape.blocks if asking is not None else int(name.split(".")[1])
    site, first_row = 1 + 3 * number, sample.number * len(x)
    normed = layer_norm(x, weights, f"{name}.attention_norm", shape.epsilon)
    queries = normed if asking is None else asking
    attended = attention(queries, normed, sample, weights, f"{name}.attention", shape.heads, site)
    x = x + sample.drop(site + 1, attended, first_row)
    inner = layer_norm(x, weights, f"{name}.feed_forward_norm", shape.epsilon)
    inner = gelu(inner @ weights[f"{name}.feed_forward.inner.weight"] + weights[f"{name}.feed_forward.inner.bias"])
    outer = inner @ weights[f"{name}.feed_forward.output.weight"] + weights[f"{name}.feed_forward.output.bias"]
    return x + sample.drop(site + 2, outer, first_row)


def logits_of_sample(
    weights: Weights,
    shape: Shape,
    tokens: np.ndarray,
    positions: np.ndarray,
    query_positions: np.ndarray,
    segments: np.ndarray,
    number: int = 0,
    drop: Drop = keep_all,
) -> np.ndarray:
    """Four int [S] -> float64 [S, V]."""
    steps = range(len(tokens))
    allowed = np.array([[n >= m and segments[n] == segments[m] for m in steps] for n in steps], float)
    sample = Sample(allowed, number, drop)
    x = weights["word_table"][tokens] + weights["embedding.position_table"][positions]
    x = drop(0, x, number * len(tokens))
    for block in range(shape.blocks):
        x = layer(x, sample, weights, f"blocks.{block}", shape)
    if shape.norm_before_query or not shape.query_layer:
        x = layer_norm(x, weights, "final_norm", shape.epsilon)
    if shape.query_layer:
        asking = weights["query_layer.query_table"][query_positions]
        x = layer(x, sample, weights, "query_layer.block", shape, asking)
        if not shape.norm_before_query:
            x = layer_norm(x, weights, "final_norm", shape.epsilon)
    return x @ weights["word_table"].T


def logits(weights: Weights, shape: Shape, *arrays: np.ndarray, drop: Drop = keep_all) -> np.ndarray:
    """Tokens, positions, query positions, segments, int [B, S] each -> float64 [B, S, V]."""
    weights = {name: np.asarray(value, np.float64) for name, value in weights.items()}
    samples = enumerate(zip(*arrays, strict=True))
    return np.stack([logits_of_sample(weights, shape, *rows, number, drop) for number, rows in samples])


def loss(weights: Weights, shape: Shape, *arrays: np.ndarray, drop: Drop = keep_all) -> float:
    """The four of `logits`, and labels, int [B, S] -> mean loss over the steps that feed no <pad>."""
    *inputs, labels = arrays
    values = logits(weights, shape, *inputs, drop=drop)
    probabilities = np.exp(values - values.max(-1, keepdims=True))
    probabilities /= probabilities.sum(-1, keepdims=True)
    asked = np.take_along_axis(probabilities, labels[..., None].astype(np.int64), -1)[..., 0]
    counted = (inputs[0] != PAD).astype(np.float64)
    return float((-np.log(asked) * counted).sum() / (counted.sum() + 1e-5))
