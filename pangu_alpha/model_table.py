"""A model's parts, shapes and parameters, counted from its configuration alone: nothing is allocated.

The whole is L·(12h² + 13h) + (V + 2S)·h + 2h for L layers (the query layer is the last of them), width h,
vocabulary V and S positions; paper table 1 rounds the same sums.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from pangu_alpha.config import ModelConfig


@dataclass(frozen=True)
class Part:
    """Parameters of one shape: a tensor's `name`, its `shape`, and the `count` of such tensors in the model."""

    group: str
    name: str
    shape: tuple[int, ...]
    count: int = 1

    @property
    def parameters(self) -> int:
        """Numbers in all `count` tensors."""
        return self.count * prod(self.shape)


def model_parts(config: ModelConfig) -> list[Part]:
    """Every tensor that a model of this configuration trains, equal tensors of its blocks counted together."""
    hidden, positions = config.hidden_size, config.seq_length
    parts = [
        Part("embedding", "word table, tied with the head", (config.vocab_size, hidden)),
        Part("embedding", "position table", (positions, hidden)),
        *_block_parts(f"block × {config.num_blocks}", config, config.num_blocks),
        Part("final norm", "gamma, beta", (hidden,), 2),
    ]
    if config.query_layer:
        parts.append(Part("query layer", "query table", (positions, hidden)))
        parts.extend(_block_parts("query layer", config, 1))
    return parts


def total_parameters(config: ModelConfig) -> int:
    """Parameters of the whole model; the tied word table counts once."""
    return sum(part.parameters for part in model_parts(config))


def short_count(number: int) -> str:
    """A parameter count as the papers write it: 345.4M, 2.6253B, 206.86B."""
    for size, unit, digits in ((10**9, "B", 5), (10**6, "M", 4), (10**3, "K", 4)):
        if number >= size:
            value = number / size
            return f"{value:.{max(0, digits - len(str(int(value))))}f}{unit}"
    return str(number)


def _block_parts(group: str, config: ModelConfig, count: int) -> list[Part]:
    """Tensors of `count` layers, weights as [in, out]."""
    hidden, inner = config.hidden_size, config.feed_forward_size
    return [
        Part(group, "2 norms: gamma, beta", (hidden,), 4 * count),
        Part(group, "query, key, value: weight", (hidden, hidden), 3 * count),
        Part(group, "query, key, value: bias", (hidden,), 3 * count),
        Part(group, "attention output: weight", (hidden, hidden), count),
        Part(group, "attention output: bias", (hidden,), count),
        Part(group, "feed-forward in: weight", (hidden, inner), count),
        Part(group, "feed-forward in: bias", (inner,), count),
        Part(group, "feed-forward out: weight", (inner, hidden), count),
        Part(group, "feed-forward out: bias", (hidden,), count),
    ]
