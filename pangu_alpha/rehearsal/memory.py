"""What one rank's device must hold: parameters by kind, and an estimate of what the step's tensors take at most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pangu_alpha.rehearsal.calls import Calls
from pangu_alpha.rehearsal.compile import ParameterLayout
from pangu_alpha.rehearsal.liveness import peak_of_step

WEIGHT, MOMENT, GRADIENT, STATE = "weight", "moment", "gradient", "state"
KINDS = (WEIGHT, MOMENT, GRADIENT, STATE)
"""Kinds of parameters: weights, the optimizer's moments, accumulated gradients, counters and scales."""

METHOD = (
    "Activations are an estimate: the rank's graph is walked in the compiler's order, operators of the backward pass "
    "running as soon as they can; each tensor lives from the operator that makes it to the last that reads it, views "
    "and in-place updates taking nothing; a micro batch keeps "
    "between its forward and backward pass what the backward function is given. Workspace of kernels, buffers of "
    "collectives and fragments are not counted, savings of fused kernels not deducted."
)
"""How the activations of a `Memory` are found, for reports."""

_PREFIXES = {
    "adam_m.": MOMENT,
    "adam_v.": MOMENT,
    "moment1.": MOMENT,
    "moment2.": MOMENT,
    "moments.": MOMENT,
    "accum.": MOMENT,
    "stat.": MOMENT,
    "accu_grads.": GRADIENT,
}


@dataclass(frozen=True)
class ParameterSlice:
    """One rank's part of a parameter.

    Attributes:
        name: of the parameter.
        kind: one of KINDS.
        weight: name of the weight that it belongs to; its own, of a weight.
        full_shape: of the whole.
        slice_shape: of this rank's part.
        bytes: of this rank's part.
        optimizer_shards: ranks that divide what model parallelism leaves of it.
        idle: whether it is the last stage's copy of the tied word table (or belongs to it), which is never read: that
            stage gets the table from the first one in every step.
    """

    name: str
    kind: str
    weight: str
    full_shape: tuple[int, ...]
    slice_shape: tuple[int, ...]
    bytes: int
    optimizer_shards: int
    idle: bool


@dataclass(frozen=True)
class Memory:
    """Bytes on one rank's device.

    Attributes:
        weights: this rank's slices.
        moments: of the optimizer.
        gradients: accumulated over micro batches.
        state: counters, loss scale.
        inputs: the batch.
        idle: of the above, the copy of the tied word table that is never read.
        activations: the most that all other tensors take at once, see METHOD.
        peak_scope: operator at which that is.
        kept: what each micro batch keeps for its backward pass; 0 outside a pipeline.
        kept_at_once: micro batches for which that is kept at the same time.
        device: what the device has.
    """

    weights: int
    moments: int
    gradients: int
    state: int
    inputs: int
    idle: int
    activations: int
    peak_scope: str
    kept: int
    kept_at_once: int
    device: int

    @property
    def static(self) -> int:
        """All that stays from step to step."""
        return self.weights + self.moments + self.gradients + self.state

    @property
    def total(self) -> int:
        """Everything at the peak."""
        return self.static + self.inputs + self.activations

    @property
    def fits(self) -> bool:
        """Whether the device has that much."""
        return self.total <= self.device


def read_parameters(
    calls: Calls, layouts: Mapping[str, ParameterLayout], groups: Mapping[str, tuple[int, ...]], last_of_stages: bool
) -> list[ParameterSlice]:
    """All parameters of a rank's graph.

    Args:
        calls: of the graph.
        layouts: of `CompiledRank`.
        groups: of `CompiledRank`.
        last_of_stages: whether the rank is in the last of several pipeline stages.
    """
    result = []
    for stored in calls.graph.parameters.values():
        name, shape = stored.name, stored.type.shape
        layout = layouts.get(name)
        shards = len(groups.get(layout.optimizer_group, ())) or 1 if layout and layout.optimizer_group else 1
        idle = last_of_stages and name.endswith("word_table")
        full = layout.full_shape if layout else shape
        kind, weight = _kind(name, shape)
        result.append(ParameterSlice(name, kind, weight, full, shape, stored.type.bytes, shards, idle))
    return result


def read_memory(calls: Calls, parameters: Sequence[ParameterSlice], target: str, device_gib: float) -> Memory:
    """The memory of a rank.

    Args:
        calls: of its graph.
        parameters: of `read_parameters`.
        target: ascend or gpu.
        device_gib: what one device has.
    """
    peak = peak_of_step(calls, bit_masks=target == "ascend")

    def total(kind: str) -> int:
        return sum(item.bytes for item in parameters if item.kind == kind)

    return Memory(
        weights=total(WEIGHT),
        moments=total(MOMENT),
        gradients=total(GRADIENT),
        state=total(STATE),
        inputs=sum(kind.bytes for kind in calls.graph.inputs.values()),
        idle=sum(item.bytes for item in parameters if item.idle),
        activations=peak.bytes,
        peak_scope=peak.scope,
        kept=peak.kept_bytes,
        kept_at_once=peak.kept_at_once,
        device=round(device_gib * 2**30),
    )


def _kind(name: str, shape: tuple[int, ...]) -> tuple[str, str]:
    """Kind of a parameter, and the weight that it belongs to."""
    for prefix, kind in _PREFIXES.items():
        if name.startswith(prefix):
            return kind, name.removeprefix(prefix)
    return STATE if shape in ((), (1,)) else WEIGHT, name
