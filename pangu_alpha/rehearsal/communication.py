"""The communication of one rank in one step: operators, groups, bytes, and what each is for.

Bytes are those that the rank puts into an operator (its input; for a Receive what arrives), times how often a step
runs it.  What travels over links depends on the algorithm: over n ranks a ring moves 2 (n - 1) / n times that for an
AllReduce, n - 1 times that for an AllGather, (n - 1) / n times that for a ReduceScatter.

What an operator is for is told by the instance name that MindSpore's parallel passes give it (2.10: `forward_op_…`
a sum that a strategy asks for, `gradforward_op_…` its backward one, `grad_mirror_…` the sum of a weight's gradient,
`parallel_optimizer_allgather…` and `redistribution_op_…`), and by what it takes its input from.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod

from pangu_alpha.rehearsal.calls import Calls, bytes_of
from pangu_alpha.rehearsal.mindir import Function, Node, TensorType

OPERATORS = frozenset(
    [
        "AllReduce",
        "AllGather",
        "ReduceScatter",
        "Send",
        "Receive",
        "Broadcast",
        "AlltoAll",
        "AllToAll",
        "AlltoAllV",
        "AllToAllv",
        "NeighborExchange",
        "NeighborExchangeV2",
        "Reduce",
        "CollectiveScatter",
        "CollectiveGather",
        "Barrier",
        "AllGatherV",
        "ReduceScatterV",
    ]
)
"""Operators in which several ranks take part."""

PRODUCT = "sum of a matrix product's parts"
PRODUCT_BACKWARD = "sum of the gradient's parts, back through the layers"
TABLE = "rows of the divided word table"
LOSS = "softmax and loss over divided logits"
WEIGHT_GRADIENT = "sum of weights' gradients"
GATHER_WEIGHTS = "weights gathered from optimizer shards"
SCATTER_GRADIENTS = "gradients summed into optimizer shards"
NORM = "norm of all gradients, overflow, loss"
ACTIVATIONS = "activations to the next stage"
ACTIVATION_GRADIENTS = "their gradients, back to the stage before"
TIED_TABLE = "tied word table between first and last stage"
REDISTRIBUTION = "redistribution between two strategies"
OTHER = "other"
PURPOSES = (
    PRODUCT, PRODUCT_BACKWARD, TABLE, LOSS, WEIGHT_GRADIENT, GATHER_WEIGHTS, SCATTER_GRADIENTS, NORM, ACTIVATIONS,
    ACTIVATION_GRADIENTS, TIED_TABLE, REDISTRIBUTION, OTHER,
)  # fmt: skip
"""What communication may be for, in the order in which it is shown."""


@dataclass(frozen=True)
class Communication:
    """One communication operator of a rank's graph.

    Attributes:
        operator: AllReduce, Send …
        purpose: one of PURPOSES.
        group: name of the group.
        ranks: who takes part; for Send and Receive sender and receiver.
        times: how often a step runs it.
        bytes: that this rank puts into it, each time.
        parameter: whose gradient or slices it moves, "" for activations.
        fusion: number of the group of operators that travel together; 0: alone.
        scope: where it stands in the cells.
        instance: the name that tells who inserted it.
    """

    operator: str
    purpose: str
    group: str
    ranks: tuple[int, ...]
    times: int
    bytes: int
    parameter: str
    fusion: int
    scope: str
    instance: str

    @property
    def bytes_a_step(self) -> int:
        """Bytes of all runs of a step."""
        return self.times * self.bytes


@dataclass(frozen=True)
class CommunicationSum:
    """Operators of one kind, purpose and group together: how many there are, runs and bytes a step."""

    purpose: str
    operator: str
    ranks: tuple[int, ...]
    operators: int
    times: int
    bytes: int


def read_communication(calls: Calls, groups: Mapping[str, tuple[int, ...]], rank: int) -> list[Communication]:
    """All communication of a rank's graph, in the graph's order.

    Args:
        calls: of the rank's graph.
        groups: of `CompiledRank`.
        rank: the rank.
    """
    found = [
        _communication(function, node, times, calls, groups, rank)
        for function, node, times in calls.nodes()
        if node.operator in OPERATORS
    ]
    # An operator over this rank alone moves nothing.
    return [item for item in found if len(item.ranks) > 1]


def sum_communication(items: Iterable[Communication]) -> list[CommunicationSum]:
    """Communication summed by purpose, operator and group, in the order of PURPOSES."""
    sums: dict[tuple[str, str, tuple[int, ...]], list[Communication]] = {}
    for item in items:
        sums.setdefault((item.purpose, item.operator, item.ranks), []).append(item)
    rows = [
        CommunicationSum(*key, len(same), sum(item.times for item in same), sum(item.bytes_a_step for item in same))
        for key, same in sums.items()
    ]
    return sorted(rows, key=lambda row: (PURPOSES.index(row.purpose), row.operator, row.ranks))


def bytes_by_group(items: Iterable[Communication]) -> dict[tuple[str, tuple[int, ...]], int]:
    """(operator, ranks) -> bytes a step that the rank puts in."""
    sums: dict[tuple[str, tuple[int, ...]], int] = {}
    for item in items:
        key = (item.operator, item.ranks)
        sums[key] = sums.get(key, 0) + item.bytes_a_step
    return sums


def _communication(
    function: Function, node: Node, times: int, calls: Calls, groups: Mapping[str, tuple[int, ...]], rank: int
) -> Communication:
    group = str(node.attributes.get("group", ""))
    ranks = groups.get(group, ())
    size = bytes_of(node.type)
    if node.operator == "Send":
        ranks = (rank, int(node.attributes["dst_global_rank"]))
    elif node.operator == "Receive":
        ranks = (int(node.attributes["src_global_rank"]), rank)
    elif node.operator == "AllGather":
        size //= max(1, len(ranks))
    elif node.operator == "ReduceScatter":
        size *= max(1, len(ranks))
    fusion = node.attributes.get("fusion")
    parameter = str(node.origin.get("mirror_user_id", ""))
    purpose = purpose_of(function, node, calls)
    return Communication(
        node.operator,
        purpose,
        group,
        ranks,
        times,
        size,
        parameter,
        fusion if isinstance(fusion, int) else 0,
        node.scope,
        node.instance or node.operator,
    )


def purpose_of(function: Function, node: Node, calls: Calls) -> str:
    """What a communication operator is for: one of PURPOSES."""
    instance, backward = node.instance, node.scope.startswith("Gradients/")
    if node.operator in ("Send", "Receive"):
        if "pipeline_param" in node.origin:
            return TIED_TABLE
        return ACTIVATION_GRADIENTS if backward else ACTIVATIONS
    if "redistribution_op_" in instance:
        return REDISTRIBUTION
    if "parallel_optimizer_allgather" in instance:
        return SCATTER_GRADIENTS if backward else GATHER_WEIGHTS
    if instance.startswith("grad_mirror_"):
        return WEIGHT_GRADIENT
    cells = node.scope.split("/")
    if any(cell.endswith("-Embedding") for cell in cells):
        return TABLE
    # The scope alone does not tell: equal backward sums of the layers get the scope of the loss, the first of them.
    if any(cell.endswith("-Loss") for cell in cells) and not (backward and _has_columns(node)):
        return LOSS
    if instance.startswith("PARALLEL_GLOBALNORM") or instance == "sum_over_ranks":
        return NORM
    if backward:
        return PRODUCT_BACKWARD
    source = calls.makers(function).get(node.inputs[0]) if node.inputs else None
    if source is not None and source.operator in ("MatMul", "BatchMatMul"):
        return PRODUCT
    return OTHER


def _has_columns(node: Node) -> bool:
    """Whether a node gives a hidden state, [tokens, width], and not one number a token or in all."""
    return isinstance(node.type, TensorType) and prod(node.type.shape[1:]) > 1
