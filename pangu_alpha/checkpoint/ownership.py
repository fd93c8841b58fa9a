"""Which rank's file holds which part of each tensor: every part once, with the lowest rank that has it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from pangu_alpha.checkpoint.load import OPTIMIZER_PREFIXES
from pangu_alpha.config import ModelConfig
from pangu_alpha.parallel.layout import Layout
from pangu_alpha.parallel.slices import optimizer_parts, parameter_parts, parameter_slice
from pangu_alpha.parallel.stages import stages_of_parameter

Slice = tuple[tuple[int, int], ...]
"""[start, stop) along each axis of the whole tensor."""

_WEIGHT_PARTS = ("table", "gamma", "beta", "weight", "bias")


class OwnedPart(NamedTuple):
    """One part of a tensor, and who keeps it."""

    rank: int
    slice: Slice


def parameter_of(name: str) -> str:
    """The weight that a tensor of a checkpoint belongs to: itself, or that of a moment."""
    for prefix in OPTIMIZER_PREFIXES:
        if name.startswith(prefix):
            return name[len(prefix) :]
    return name


def is_laid_out(name: str) -> bool:
    """Whether a tensor is cut as a weight is: weights and their moments, not counters and scales."""
    return parameter_of(name).endswith(_WEIGHT_PARTS)


def owned_parts(name: str, shape: tuple[int, ...], model: ModelConfig, layout: Layout) -> list[OwnedPart]:
    """The parts of a tensor under a layout, each with the rank that keeps it, in order of rank.

    Replicas keep nothing; of the tied word table in a pipeline the first stage keeps all, since the last stage's copy
    is never trained.  Counters and scales are kept by rank 0.
    """
    whole: Slice = tuple((0, size) for size in shape)
    if layout.devices == 1 or not is_laid_out(name):
        return [OwnedPart(0, whole)]
    weight = parameter_of(name)
    first = stages_of_parameter(weight, model, layout)[0] * layout.devices_per_stage
    count = optimizer_parts(weight, shape, layout)
    for size in parameter_parts(weight, layout):
        count *= size
    found: dict[Slice, int] = {}
    for rank in range(first, first + layout.devices_per_stage):
        cut = tuple((part.start, part.stop) for part in parameter_slice(weight, shape, layout, rank))
        found.setdefault(cut, rank)
        if len(found) == count:
            break
    return [OwnedPart(rank, cut) for cut, rank in sorted(found.items(), key=lambda item: (item[1], item[0]))]


def ranks_of(parts: Mapping[str, list[OwnedPart]]) -> list[int]:
    """All ranks that keep something, in order."""
    return sorted({part.rank for own in parts.values() for part in own})
