"""What a compiled rank's graph tells: parameters, communication, redistributions, what has no strategy, memory."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pangu_alpha.parallel.layout import Layout, layout_of
from pangu_alpha.parallel.strategies import PlannedRedistribution, planned_redistributions
from pangu_alpha.rehearsal.calls import Calls, bytes_of
from pangu_alpha.rehearsal.communication import OPERATORS, Communication, read_communication
from pangu_alpha.rehearsal.compile import CompiledRank
from pangu_alpha.rehearsal.memory import Memory, ParameterSlice, read_memory, read_parameters
from pangu_alpha.rehearsal.mindir import CALL, read_mindir

_CUTTING = frozenset(("StridedSlice", "StridedSliceGrad"))
"""Local operators of a redistribution; Split, Concat and Reshape only come with its communication."""
_BOOKKEEPING = frozenset((CALL, "Load", "Depend", "UpdateState", "MakeTuple", "TupleGetItem", "Partial", "Reshape"))


@dataclass(frozen=True)
class Redistribution:
    """Where MindSpore moves or cuts a tensor because two operators divide it differently.

    Attributes:
        scope: where it stands in the cells.
        operator: AllGather, StridedSlice …
        times: how often a step runs it.
        bytes: of what it gives, each time.
        reason: why the strategies ask for it; "" where they do not.
    """

    scope: str
    operator: str
    times: int
    bytes: int
    reason: str

    @property
    def planned(self) -> bool:
        """Whether the strategies ask for it."""
        return bool(self.reason)


@dataclass(frozen=True)
class WithoutStrategy:
    """An operator that has no strategy of ours, and the one that MindSpore made up: the batch over all of a stage."""

    scope: str
    operator: str
    strategy: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class RankReadOut:
    """Everything that is read of one compiled rank.

    Attributes:
        rank: the rank.
        stage: its pipeline stage.
        target: ascend or gpu.
        parameters: with their slices.
        communication: every communication operator.
        redistributions: planned and not.
        without_strategy: operators that were left without one.
        recomputed: operator -> runs a step in which it is computed again.
        operators: operator -> runs a step, without what only moves values about.
        strategies: scope name of each operator, of all stages -> its strategy.
        memory: of the device.
        seconds: that compiling took.
        processor_seconds: that it computed.
        peak_bytes: that compiling took.
    """

    rank: int
    stage: int
    target: str
    parameters: tuple[ParameterSlice, ...]
    communication: tuple[Communication, ...]
    redistributions: tuple[Redistribution, ...]
    without_strategy: tuple[WithoutStrategy, ...]
    recomputed: Mapping[str, int]
    operators: Mapping[str, int]
    strategies: Mapping[str, Sequence[Any]]
    memory: Memory
    seconds: float
    processor_seconds: float
    peak_bytes: int

    @property
    def unplanned(self) -> tuple[Redistribution, ...]:
        """Redistributions that no strategy asks for."""
        return tuple(item for item in self.redistributions if not item.planned)


def read_rank(compiled: CompiledRank, accumulation: CompiledRank | None = None) -> RankReadOut:
    """Read a compiled rank's files.

    Args:
        compiled: its step.
        accumulation: outside a pipeline, what it runs for all micro batches but the last, if there are several.
    """
    step = _read(compiled)
    if accumulation is None:
        return step
    return _with_accumulation(step, _read(accumulation), compiled.request.config.train.micro_batches - 1)


def _with_accumulation(step: RankReadOut, other: RankReadOut, times: int) -> RankReadOut:
    """The read-out of a step that runs `other` for `times` micro batches first."""

    def more(first: Mapping[str, int], second: Mapping[str, int]) -> dict[str, int]:
        names = dict.fromkeys((*first, *second))
        return {name: first.get(name, 0) + times * second.get(name, 0) for name in names}

    known = {item.scope for item in step.without_strategy}
    most = max((step.memory, other.memory), key=lambda memory: memory.activations)
    return replace(
        step,
        communication=(*step.communication, *(replace(item, times=times * item.times) for item in other.communication)),
        redistributions=(
            *step.redistributions,
            *(replace(item, times=times * item.times) for item in other.redistributions),
        ),
        without_strategy=(
            *step.without_strategy,
            *(item for item in other.without_strategy if item.scope not in known),
        ),
        recomputed=more(step.recomputed, other.recomputed),
        operators=more(step.operators, other.operators),
        memory=replace(step.memory, activations=most.activations, peak_scope=most.peak_scope),
        seconds=step.seconds + other.seconds,
        processor_seconds=step.processor_seconds + other.processor_seconds,
        peak_bytes=max(step.peak_bytes, other.peak_bytes),
    )


def _read(compiled: CompiledRank) -> RankReadOut:
    config = compiled.request.config
    layout = layout_of(config)
    calls = Calls(read_mindir(compiled.graph))
    stage = layout.stage_of(compiled.rank)
    last = layout.in_pipeline and stage == layout.pipeline_stages - 1
    parameters = read_parameters(calls, compiled.layouts, compiled.groups, last)
    target = compiled.request.target
    return RankReadOut(
        rank=compiled.rank,
        stage=stage,
        target=target,
        parameters=tuple(parameters),
        communication=tuple(read_communication(calls, compiled.groups, compiled.rank)),
        redistributions=tuple(read_redistributions(calls, planned_redistributions(layout))),
        without_strategy=tuple(read_without_strategy(calls, compiled.strategies, layout)),
        recomputed=read_operators(calls, only_again=True),
        operators=read_operators(calls),
        strategies=compiled.strategies,
        memory=read_memory(calls, parameters, target, config.cluster.device_memory_gib),
        seconds=compiled.seconds,
        processor_seconds=compiled.processor_seconds,
        peak_bytes=compiled.peak_bytes,
    )


def read_redistributions(calls: Calls, planned: Sequence[PlannedRedistribution]) -> list[Redistribution]:
    """All redistributions, by the name that MindSpore gives what it inserts for them.

    An operator that the framework itself replaces (Dropout) has such a name, too, and is none.
    """
    result = []
    for _, node, times in calls.nodes():
        if "redistribution_op_" not in node.instance or node.operator not in OPERATORS | _CUTTING:
            continue
        plans = (plan for plan in planned if plan.communicates or node.operator in _CUTTING)
        reason = next((plan.reason for plan in plans if re.search(plan.scope, node.scope)), "")
        result.append(Redistribution(node.scope, node.operator, times, bytes_of(node.type), reason))
    return result


def read_without_strategy(
    calls: Calls, strategies: Mapping[str, Sequence[Any]], layout: Layout
) -> list[WithoutStrategy]:
    """Operators without a strategy of ours: MindSpore marks those for which it made one up (`gen_strategy`).

    One that cuts nothing, as of scalars, is left out; so is everything on one device.
    """
    if layout.devices == 1:
        return []
    result = []
    for _, node, _ in calls.nodes():
        if "gen_strategy" not in node.attributes or node.scope.startswith("Gradients/"):
            continue
        strategy = tuple(tuple(parts) for parts in strategies.get(node.scope, ()) if isinstance(parts, list))
        if any(strategy):
            result.append(WithoutStrategy(node.scope, node.operator, strategy))
    return result


def read_operators(calls: Calls, only_again: bool = False) -> dict[str, int]:
    """Operator -> how often a step runs it, most frequent first; or only the runs in which it is computed again."""
    counts: Counter[str] = Counter()
    for _, node, times in calls.nodes():
        if node.operator not in _BOOKKEEPING and (not only_again or "duplicated" in node.marks):
            counts[node.operator] += times
    return dict(counts.most_common())
