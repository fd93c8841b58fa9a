"""Errors planted into the graphs of a compiled run, each of which the emulator finds."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from pangu_alpha.config import Config
from pangu_alpha.errors import UsageError
from pangu_alpha.parallel.layout import Layout, layout_of
from pangu_alpha.rehearsal.emulator.communication import COLLECTIVES, RECEIVE, SEND
from pangu_alpha.rehearsal.mindir import Function, MindIR, Node, TensorType
from pangu_alpha.rehearsal.program import ACCUMULATION, TRAINING_STEP, Program, load_program

Graphs = list[MindIR]
"""The graph of each rank."""


@dataclass(frozen=True)
class Plant:
    """An error to plant.

    Attributes:
        explanation: what is wrong, and where such a thing comes from.
        transform: makes the wrong graphs out of the right ones.
        needs: a layout in which it can be planted, in words; checked by `fits`.
        fits: whether a layout is such a one.
        program: compiled in place of the training step.
        accumulation: compiled in place of what the host accumulates micro batches with.
    """

    explanation: str
    transform: Callable[[Graphs], Graphs] = lambda graphs: graphs
    needs: str = ""
    fits: Callable[[Layout], bool] = lambda layout: layout.devices > 1
    program: str = TRAINING_STEP
    accumulation: str = ACCUMULATION


def plant_named(name: str, config: Config) -> Plant:
    """The plant of that name.

    Raises:
        UsageError: there is none, or the layout of `config` has no place for it.
    """
    if name not in PLANTS:
        raise UsageError(f"there is no planted error {name!r}; allowed: {', '.join(PLANTS)}")
    plant = PLANTS[name]
    if not plant.fits(layout_of(config)):
        raise UsageError(f"{name} needs {plant.needs}; take --config configs/twins/all_five.yaml")
    return plant


def _with_wrong_strategy(program: str, config: Config, target: str, rank: int) -> Program:
    """`program` with output products left whole, while the clip norm counts them as divided."""
    from pangu_alpha.parallel.strategies import Strategies

    original = Strategies.__init__

    def with_mistake(self: Strategies, *arguments: Any, **options: Any) -> None:
        original(self, *arguments, **options)
        d = self.layout.data_parallel
        self.table = {**self.table, "row_matmul": ((d, 1), (1, 1)), "row_weight": ((1, 1),)}

    Strategies.__init__ = with_mistake  # type: ignore[method-assign]
    try:
        wrong = load_program(program, config, target, rank)
    finally:
        Strategies.__init__ = original  # type: ignore[method-assign]
    # Whole values: a rank that makes its part alone would tell at once that MindSpore keeps another one.
    return dataclasses.replace(wrong, fill=partial(_fill_whole, wrong, config))


def _fill_whole(program: Program, config: Config) -> None:
    from mindspore import Tensor

    from pangu_alpha.model.initial_values import initial_value

    for weight in program.cell.gradients.weights:
        value = initial_value(weight.name, tuple(weight.shape), config.model, config.train.seed)
        weight.set_data(Tensor(value, weight.dtype))


wrong_strategy_step = partial(_with_wrong_strategy, TRAINING_STEP)
wrong_strategy_accumulation = partial(_with_wrong_strategy, ACCUMULATION)


def _missing_all_reduce(graphs: Graphs) -> Graphs:
    return [_replace(graph, lambda node: node.instance == "sum_over_ranks", _pass_on) for graph in graphs]


def _mismatched_collective(graphs: Graphs) -> Graphs:
    def wrong(node: Node) -> Node:
        return dataclasses.replace(node, attributes={**node.attributes, "op": "max"})

    return _change_rank(graphs, 1, lambda graph: _replace(graph, _sums, wrong, once=True))


def _receive_without_send(graphs: Graphs) -> Graphs:
    return _change_rank(graphs, 0, lambda graph: _replace(graph, lambda n: n.operator == SEND, _pass_on, once=True))


def _circular_wait(graphs: Graphs) -> Graphs:
    """Ranks 0 and 1 each receive from the other before they send."""
    first, second, *others = graphs
    return [_receive_first(first, 0, 1), _receive_first(second, 1, 0), *others]


def _different_order(graphs: Graphs) -> Graphs:
    return _change_rank(graphs, 1, _swap_collectives)


def _change_rank(graphs: Graphs, rank: int, change: Callable[[MindIR], MindIR]) -> Graphs:
    return [change(graph) if number == rank else graph for number, graph in enumerate(graphs)]


def _replace(
    graph: MindIR, chosen: Callable[[Node], bool], change: Callable[[Node], Node], once: bool = False
) -> MindIR:
    """`graph` with `change` done to the chosen nodes, or to the first of them."""
    changed = False
    functions = []
    for function in (graph.main, *graph.functions.values()):
        nodes = []
        for node in function.nodes:
            if chosen(node) and not (once and changed):
                node, changed = change(node), True
            nodes.append(node)
        functions.append(dataclasses.replace(function, nodes=tuple(nodes)))
    if not changed:
        raise UsageError("the graph has no operator that this error could be planted in; take another layout")
    return _with_functions(graph, functions)


def _with_functions(graph: MindIR, functions: list[Function]) -> MindIR:
    main, *others = functions
    return dataclasses.replace(graph, main=main, functions={function.name: function for function in others})


def _pass_on(node: Node) -> Node:
    """A node that gives what it gets."""
    return dataclasses.replace(node, operator="Depend", inputs=(node.inputs[0], node.inputs[0]), attributes={})


def _sums(node: Node) -> bool:
    return node.operator == "AllReduce" and node.attributes.get("op") == "sum"


def _receive_first(graph: MindIR, rank: int, peer: int) -> MindIR:
    """`graph` with a receive from `peer`, and after it a send to it, before everything else."""
    group = "planted_group"
    attributes = {"group": group, "sr_tag": 0, "group_rank_ids": (min(rank, peer), max(rank, peer))}
    kind = TensorType((1,), "float32", 4)

    def node(operator: str, given: str, output: str, more: dict[str, int]) -> Node:
        scope = f"Default/planted/{operator}-op0"
        return Node(operator, "", "", "planted", {**attributes, **more}, (given,), output, kind, scope, {}, {})

    receive = dataclasses.replace(node(RECEIVE, "", "planted_received", {"src_global_rank": peer}), inputs=())
    send = node(SEND, "planted_received", "planted_sent", {"dst_global_rank": peer})
    main = dataclasses.replace(graph.main, nodes=(receive, send, *graph.main.nodes))
    return dataclasses.replace(graph, main=main)


def _swap_collectives(graph: MindIR) -> MindIR:
    """`graph` with two collectives of one group and one form in the other order, where nothing but order is lost."""
    functions = [graph.main, *graph.functions.values()]
    for place, function in enumerate(functions):
        nodes = _swapped(function.nodes)
        if nodes is not None:
            functions[place] = dataclasses.replace(function, nodes=nodes)
            return _with_functions(graph, functions)
    raise UsageError("the graph has no two collectives that could be swapped; take another layout")


def _swapped(nodes: tuple[Node, ...]) -> tuple[Node, ...] | None:
    places = [place for place, node in enumerate(nodes) if node.operator in COLLECTIVES]
    for first, second in ((a, b) for a in places for b in places if a < b):
        one, other = nodes[first], nodes[second]
        alike = (one.operator, one.type, one.attributes["group"]) == (
            other.operator,
            other.type,
            other.attributes["group"],
        )
        if not alike or one.scope == other.scope:
            continue
        needed = _needed(nodes, first, second)
        if needed is not None:
            moved = {*needed, second}
            rest = [node for place, node in enumerate(nodes) if place >= first and place not in moved]
            return (*nodes[:first], *(nodes[place] for place in sorted(needed)), other, *rest)
    return None


def _form(node: Node) -> tuple[object, ...]:
    return node.operator, node.type, node.attributes["group"]


def _needed(nodes: tuple[Node, ...], first: int, second: int) -> set[int] | None:
    """Nodes after `first` that `second` is made from; None if `first` is one of what it is made from."""
    makers = {node.output: place for place, node in enumerate(nodes[: second + 1])}
    needed: set[int] = set()
    left = [second]
    while left:
        for name in nodes[left.pop()].inputs:
            place = makers.get(name, -1)
            if place == first:
                return None
            if place > first and place not in needed:
                needed.add(place)
                left.append(place)
    return needed


PLANTS: dict[str, Plant] = {
    "wrong_strategy": Plant(
        "output products are cut otherwise than the clip norm believes",
        needs="model_parallel of 2 or more",
        fits=lambda layout: layout.model_parallel > 1,
        program=f"{__name__}:wrong_strategy_step",
        accumulation=f"{__name__}:wrong_strategy_accumulation",
    ),
    "missing_all_reduce": Plant(
        "the square sums of the clip norm are not summed over the ranks, as MindSpore leaves them", _missing_all_reduce
    ),
    "mismatched_collective": Plant("rank 1 takes the maximum where the others add", _mismatched_collective),
    "receive_without_send": Plant(
        "rank 0 never sends the first thing that the next stage waits for",
        _receive_without_send,
        needs="pipeline_stages of 2 or more",
        fits=lambda layout: layout.in_pipeline,
    ),
    "circular_wait": Plant("ranks 0 and 1 each wait for the other's message before they send theirs", _circular_wait),
    "different_order": Plant(
        "rank 1 calls two collectives of one group, alike in shape, in the other order", _different_order
    ),
}
"""Name -> error."""
