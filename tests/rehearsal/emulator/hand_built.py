"""Graphs written by hand, and ranks that run them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pangu_alpha.rehearsal.emulator.cluster import Cluster
from pangu_alpha.rehearsal.emulator.interpreter import Rank
from pangu_alpha.rehearsal.emulator.kernels import use_cpu_kernels
from pangu_alpha.rehearsal.mindir import CALL, MONAD, Function, MindIR, Node, StoredParameter, TensorType, Type

FLOATS = TensorType((2,), "float32", 8)
PAIR, OTHER_PAIR = "2-pair", "2-other"
GROUPS = {PAIR: (0, 1), OTHER_PAIR: (0, 1), "4-all": (0, 1, 2, 3), "3-ring": (0, 1, 2)}


def node(
    operator: str,
    inputs: Sequence[str],
    output: str,
    scope: str = "",
    kind: Type = FLOATS,
    instance: str = "",
    **attributes: Any,
) -> Node:
    return Node(
        operator, "", operator, instance, attributes, tuple(inputs), output, kind, scope or f"Default/{output}", {}, {}
    )


def call(callee: str, inputs: Sequence[str], output: str) -> Node:
    return Node(CALL, callee, "", "", {}, tuple(inputs), output, None, f"Default/{output}", {}, {})


def all_reduce(given: str, output: str, group: str = PAIR, op: str = "sum", **more: Any) -> Node:
    return node("AllReduce", [given], output, group=group, op=op, **more)


def send(given: str, output: str, to: int, tag: int = 0, group: str = PAIR) -> Node:
    return node("Send", [given], output, group=group, sr_tag=tag, dst_global_rank=to)


def receive(output: str, source: int, tag: int = 0, group: str = PAIR, given: Sequence[str] = (), **more: Any) -> Node:
    return node("Receive", given, output, group=group, sr_tag=tag, src_global_rank=source, **more)


def depend(value: str, on: str, output: str) -> Node:
    return node("Depend", [value, on], output)


def graph(
    nodes: Sequence[Node],
    result: str,
    inputs: Sequence[str] = ("x",),
    parameters: Mapping[str, np.ndarray] | None = None,
    constants: Mapping[str, Any] | None = None,
    functions: Sequence[Function] = (),
) -> MindIR:
    stored = {
        name: StoredParameter(name, TensorType(value.shape, str(value.dtype), value.nbytes), value)
        for name, value in (parameters or {}).items()
    }
    return MindIR(
        Function("main", tuple(inputs), tuple(nodes), result),
        {function.name: function for function in functions},
        stored,
        dict.fromkeys(inputs, FLOATS),
        {"monad": MONAD, **(constants or {})},
    )


def cluster(graphs: Sequence[MindIR]) -> Cluster:
    use_cpu_kernels()
    return Cluster([Rank(number, {"step": item}, GROUPS) for number, item in enumerate(graphs)])


def run(graphs: Sequence[MindIR], *arguments: Any) -> list[Any]:
    """Results of all ranks."""
    return cluster(graphs).run("step", [np.asarray(argument, np.float32) for argument in arguments])
