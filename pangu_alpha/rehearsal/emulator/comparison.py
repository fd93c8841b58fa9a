"""Emulated ranks held against one device: losses, gradient norms, and every rank's part of every parameter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pangu_alpha.parallel.layout import Layout
from pangu_alpha.rehearsal.compile import ParameterLayout
from pangu_alpha.rehearsal.emulator.reference import StepResult

WORD_TABLE = "word_table"

NOISE = "attention.key.bias"
"""It adds the same to all scores of a row, so softmax does not see it: its gradient is 0, but for rounding.  Adam
divides by the size of what it gets, so that it moves such a weight by up to a learning rate a step in any direction."""


@dataclass(frozen=True)
class Tolerance:
    """How far ranks may be from one device, whose sums run in another order.

    Attributes:
        relative: of losses and norms.
        absolute: of elements of parameters.
        noise: of elements of weights whose gradient is nothing but rounding, see NOISE.
    """

    relative: float
    absolute: float
    noise: float = 0.0

    def of(self, name: str) -> float:
        """What is allowed for a parameter."""
        return max(self.absolute, self.noise) if name.endswith(NOISE) and not name.startswith("adam") else self.absolute


@dataclass(frozen=True)
class Difference:
    """A number of one rank that is not what it should be.

    Attributes:
        name: of the metric or parameter.
        rank: whose.
        size: largest difference of an element, of metrics relative.
        allowed: largest that is allowed.
    """

    name: str
    rank: int
    size: float
    allowed: float

    @property
    def is_too_large(self) -> bool:
        """Whether the rank differs from one device."""
        return not self.size <= self.allowed


@dataclass(frozen=True)
class StepComparison:
    """One step of all ranks beside one device.

    Attributes:
        step: its number, from 0.
        reference: metrics of one device.
        ranks: metrics of each rank.
        metrics: difference of every metric of every rank, and of the norm of the weight that is farthest off.
        parameters: difference of every rank's part of every parameter.
        idle: copies that no step trains, as (rank, parameter): they are not compared.
    """

    step: int
    reference: Mapping[str, float]
    ranks: Sequence[Mapping[str, float]]
    metrics: Sequence[Difference]
    parameters: Sequence[Difference]
    idle: Sequence[tuple[int, str]]

    @property
    def too_large(self) -> list[Difference]:
        """Everything that differs, the worst first."""
        found = [difference for difference in (*self.metrics, *self.parameters) if difference.is_too_large]
        return sorted(found, key=lambda difference: -difference.size / difference.allowed)

    def largest(self, name: str) -> float:
        """Largest difference of a metric over the ranks."""
        return max(difference.size for difference in self.metrics if difference.name == name)

    @property
    def largest_of_parameters(self) -> Difference:
        """The parameter's part that is farthest off, by what is allowed."""
        return max(self.parameters, key=lambda difference: difference.size / difference.allowed)


def cut(whole: np.ndarray, layout: ParameterLayout, rank: int, groups: Mapping[str, tuple[int, ...]]) -> np.ndarray:
    """A rank's part of a parameter.

    Args:
        whole: the parameter on one device.
        layout: how MindSpore cut it.
        rank: whose part.
        groups: ranks of each group of that rank.
    """
    grid = layout.device_matrix
    place = np.unravel_index(rank % int(np.prod(grid)), grid)
    part = whole
    for axis, along in enumerate(layout.tensor_map):
        if along >= 0:
            part = np.split(part, grid[len(grid) - 1 - along], axis)[place[len(grid) - 1 - along]]
    members = groups.get(layout.optimizer_group, ()) if layout.optimizer_group else ()
    return np.split(part, len(members))[members.index(rank)] if members else part


def is_idle(name: str, layout: Layout, rank: int) -> bool:
    """Whether a rank's copy of a parameter is never trained.

    The last stage of a pipeline multiplies with the word table that the first one sends it in every step; what it keeps
    under that name, with moments and accumulator, nobody reads.
    """
    return layout.in_pipeline and name.endswith(WORD_TABLE) and layout.stage_of(rank) > 0


def compare_step(
    step: int,
    reference: StepResult,
    results: Sequence[tuple[Mapping[str, float], np.ndarray]],
    parameters: Sequence[Mapping[str, np.ndarray]],
    layouts: Sequence[Mapping[str, ParameterLayout]],
    groups: Sequence[Mapping[str, tuple[int, ...]]],
    layout: Layout,
    tolerance: Tolerance,
) -> StepComparison:
    """Compare one step.

    Args:
        step: its number.
        reference: of one device.
        results: each rank's metrics and norms of gradients.
        parameters: each rank's parameters after the step.
        layouts: each rank's layouts of parameters.
        groups: each rank's groups.
        layout: of the run.
        tolerance: how far apart they may be.
    """
    metrics, differences, idle = [], [], []
    for rank, (numbers, norms) in enumerate(results):
        for name, number in reference.metrics.items():
            size = _relative(np.array(numbers[name]), np.array(number))
            metrics.append(Difference(name, rank, size, tolerance.relative))
        metrics.append(_worst_norm(norms, reference, rank, tolerance))
        for name, value in parameters[rank].items():
            if is_idle(name, layout, rank):
                idle.append((rank, name))
                continue
            expected = reference.parameters.get(name)
            if expected is not None and name in layouts[rank]:
                expected = cut(expected, layouts[rank][name], rank, groups[rank])
            size = float("inf")
            if expected is not None and value.shape == expected.shape:
                size = _largest(value, expected)
            differences.append(Difference(name, rank, size, tolerance.of(name)))
    return StepComparison(step, reference.metrics, [r[0] for r in results], metrics, differences, idle)


def _worst_norm(norms: np.ndarray, reference: StepResult, rank: int, tolerance: Tolerance) -> Difference:
    """The weight whose gradient's norm is farthest off, relative to the largest norm."""
    scale = float(np.abs(reference.norms).max()) or 1.0
    sizes = [_largest(one, other) / scale for one, other in zip(norms, reference.norms, strict=True)]
    worst = int(np.argmax(sizes))
    return Difference(f"norm of gradient of {reference.weights[worst]}", rank, sizes[worst], tolerance.relative)


def _largest(one: np.ndarray, other: np.ndarray) -> float:
    """Largest difference of two elements; 0 for two infinities alike, infinite for a number and none."""
    if one.size == 0:
        return 0.0
    one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
    with np.errstate(invalid="ignore"):
        size = np.abs(one - other)
    alike = (one == other) | (np.isnan(one) & np.isnan(other))
    return float(np.where(alike, 0.0, np.nan_to_num(size, nan=np.inf, posinf=np.inf)).max())


def _relative(value: np.ndarray, expected: np.ndarray) -> float:
    size, scale = _largest(value, expected), float(np.abs(expected))
    return size / scale if np.isfinite(scale) and scale > 0 else size
