"""What each rank holds of each parameter, and how often its gradient counts."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from pangu_alpha.config import ModelConfig
from pangu_alpha.parallel.layout import Layout
from pangu_alpha.parallel.stages import is_optimizer_divided, stages_of_parameter
from pangu_alpha.parallel.strategies import strategy_table


def parameter_parts(name: str, layout: Layout) -> tuple[int, ...]:
    """Parts along each axis into which model parallelism cuts a parameter of the model, optimizer sharding aside."""
    table = strategy_table(layout)
    part = name.rsplit(".", 1)[-1]
    if name.endswith("word_table"):
        return table["word_gather"][0]
    if part in ("position_table", "query_table"):
        return (1, 1)
    if part in ("gamma", "beta"):
        return (1,)
    row, inner = name.endswith(f"output.{part}"), name.endswith(f"inner.{part}")
    if part == "bias":
        return table["row_bias" if row else "column_bias"][0]
    return table["row_weight" if row else "column_weight" if inner else "transposed_column_weight"][0]


def copies_in_stage(name: str, shape: tuple[int, ...], layout: Layout) -> int:
    """Ranks of a stage that hold the same part of a parameter's gradient when the optimizer gets it."""
    parts = math.prod(parameter_parts(name, layout)) * optimizer_parts(name, shape, layout)
    return layout.devices_per_stage // parts


def optimizer_parts(name: str, shape: tuple[int, ...], layout: Layout) -> int:
    """Parts into which optimizer sharding cuts the first axis of a rank's part of a parameter."""
    if not is_optimizer_divided(name, layout):
        return 1
    rows = shape[0] // parameter_parts(name, layout)[0]
    # MindSpore leaves a parameter whole whose first axis cannot be cut.
    return 1 if rows % layout.optimizer_shards else layout.optimizer_shards


def places_in_stage(names: Sequence[str], model: ModelConfig, layout: Layout, rank: int) -> np.ndarray:
    """Where each parameter stands among those of the rank's stage; their number for one of another: int32 [P]."""
    there = [layout.stage_of(rank) in stages_of_parameter(name, model, layout) for name in names]
    return np.where(there, np.cumsum(there) - 1, sum(there)).astype(np.int32)


def parameter_slice(name: str, shape: tuple[int, ...], layout: Layout, rank: int) -> tuple[slice, ...]:
    """The part of a parameter of `shape` that `rank`, whose stage has it, keeps and updates.

    Model parallelism cuts first, optimizer sharding cuts the first axis of what is left (official strategy files).
    """
    parts = parameter_parts(name, layout)
    result = []
    for axis, (size, count) in enumerate(zip(shape, parts, strict=True)):
        length = size // count
        begin = length * layout.model_index(rank) if count > 1 else 0
        if axis == 0:
            shards = optimizer_parts(name, shape, layout)
            length //= shards
            begin += length * (layout.data_index(rank) % shards)
        result.append(slice(begin, begin + length))
    return tuple(result)


def gradient_shares(weights: Sequence[tuple[str, tuple[int, ...]]], layout: Layout, rank: int) -> tuple[float, ...]:
    """What the square sum of each gradient on `rank` counts in the global one, where it is summed over all ranks.

    One over the number of ranks that hold the same part; 0 for the tied word table on the last stage, which has a copy
    that is never trained: its gradient reaches the first stage, where it counts.
    """
    shares = []
    for name, shape in weights:
        idle = layout.in_pipeline and name.endswith("word_table") and layout.stage_of(rank) > 0
        shares.append(0.0 if idle else 1.0 / copies_in_stage(name, shape, layout))
    return tuple(shares)
