"""How often one step runs each function of a graph, found by following closures to where they are called.

The main function calls a forward function for every micro batch; what it gives back holds a closure over the backward
function, which the main function calls later.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import cached_property

from pangu_alpha.rehearsal.mindir import CALL, Function, MindIR, Node, TensorType, Type


class Calls:
    """The functions of `graph` and how they call each other."""

    def __init__(self, graph: MindIR) -> None:
        self.graph = graph
        self._makers: dict[str, dict[str, Node]] = {}

    def functions(self) -> tuple[Function, ...]:
        """All of them, the main one first."""
        return (self.graph.main, *self.graph.functions.values())

    def makers(self, function: Function) -> dict[str, Node]:
        """Value -> the node of `function` that makes it."""
        if function.name not in self._makers:
            self._makers[function.name] = {node.output: node for node in function.nodes}
        return self._makers[function.name]

    @cached_property
    def counts(self) -> Counter[str]:
        """Function -> how often one step runs it; both branches of a condition count."""
        counts: Counter[str] = Counter()
        to_count = [(self.graph.main, 1)]
        while to_count:
            function, times = to_count.pop()
            counts[function.name] += times
            for node in function.nodes:
                if node.operator == CALL:
                    to_count += [(callee, times) for callee in self.callees(function, node)]
        return counts

    def nodes(self) -> Iterator[tuple[Function, Node, int]]:
        """Every operator with its function and the number of times that one step runs it."""
        for function in self.functions():
            times = self.counts[function.name]
            for node in function.nodes:
                yield function, node, times

    def callees(self, function: Function, node: Node) -> list[Function]:
        """The functions that a CALL may run: one, or the branches of a condition."""
        if node.callee in self.graph.functions:
            return [self.graph.functions[node.callee]]
        return [self.graph.functions[name] for name in self._closures(function, node.callee, ())]

    def _closures(self, function: Function, value: str, path: tuple[int, ...]) -> tuple[str, ...]:
        """Functions that the part `path` of a value may hold."""
        if value in self.graph.functions:
            return (value,)
        node = self.makers(function).get(value)
        if node is None:
            return ()
        match node.operator:
            case "Partial":
                return self._closures(function, node.inputs[0], path)
            case "Depend" | "Load":
                return self._closures(function, node.inputs[0], path)
            case "TupleGetItem":
                return self._closures(function, node.inputs[0], (self.index(node), *path))
            case "MakeTuple":
                return self._closures(function, node.inputs[path[0]], path[1:]) if path else ()
            case "Switch":
                return tuple(name for value in node.inputs[1:3] for name in self._closures(function, value, path))
            case "call":
                found = self.callees(function, node)
                return tuple(name for inner in found for name in self._closures(inner, inner.result, path))
        return ()

    def index(self, node: Node) -> int:
        """Which part a TupleGetItem takes."""
        return int(self.graph.constants[node.inputs[1]])


def part_of(kind: Type, index: int) -> Type:
    """Part `index` of a tuple's type."""
    return kind[index] if isinstance(kind, tuple) and index < len(kind) else None


def tensors_of(kind: Type) -> Iterator[TensorType]:
    """All tensors of a value."""
    if isinstance(kind, TensorType):
        yield kind
    elif isinstance(kind, tuple):
        for part in kind:
            yield from tensors_of(part)


def bytes_of(kind: Type) -> int:
    """Bytes of all tensors of a value."""
    return sum(tensor.bytes for tensor in tensors_of(kind))
