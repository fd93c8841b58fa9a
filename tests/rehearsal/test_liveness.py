"""The walk over tensors' lives, on graphs small enough to count by hand."""

from __future__ import annotations

import pytest

from pangu_alpha.rehearsal.calls import Calls
from pangu_alpha.rehearsal.liveness import Peak, peak_of_step
from pangu_alpha.rehearsal.mindir import CALL, Function, MindIR, Node, TensorType

KIB = 1024


def tensor(kib: int) -> TensorType:
    return TensorType((kib * KIB // 4,), "float32", kib * KIB)


def node(output: str, operator: str, inputs: str = "", kind=None, callee: str = "", scope: str = "") -> Node:
    return Node(operator, callee, operator, "", {}, tuple(inputs.split()), output, kind, scope or output, {}, {})


def function(name: str, inputs: str, nodes: list[Node], result: str) -> Function:
    return Function(name, tuple(inputs.split()), tuple(nodes), result)


def peak(main: Function, *others: Function, bit_masks: bool = False) -> Peak:
    constants = {str(number): number for number in range(9)}
    graph = MindIR(main, {other.name: other for other in others}, {}, {}, constants)
    return peak_of_step(Calls(graph), bit_masks)


def test_a_tensor_lives_until_its_last_reader():
    nodes = [
        node("a", "MatMul", "x", tensor(4)),
        node("b", "GeLU", "a", tensor(8)),  # a and b: 12
        node("c", "GeLU", "b", tensor(2)),  # b and c: 10
        node("d", "Add", "c c", tensor(2)),
    ]
    assert peak(function("main", "x", nodes, "d")) == Peak(12 * KIB, 2 * KIB, "b")
    nodes.append(node("e", "Add", "d a", tensor(1)))  # a lives to the end: 4 + 8 + 2 at c
    assert peak(function("main", "x", nodes, "e")) == Peak(14 * KIB, KIB, "c")


def test_what_nobody_reads_is_gone_at_once():
    nodes = [node("a", "GeLU", "x", tensor(4)), node("b", "GeLU", "x", tensor(4))]
    assert peak(function("main", "x", nodes, "b")).bytes == 4 * KIB


def test_views_updates_and_order_take_nothing_but_keep_what_they_show():
    nodes = [
        node("a", "MatMul", "x", tensor(4)),
        node("view", "Reshape", "a", tensor(4)),
        node("big", "GeLU", "x", tensor(8)),
        node("u", "UpdateState", "u0 big"),
        node("updated", "Assign", "p view u", tensor(4)),
        node("after", "Depend", "x big", tensor(4)),  # waits for big, and does not hold it
        node("end", "MakeTuple", "after updated"),
    ]
    assert peak(function("main", "x p u0", nodes, "end")) == Peak(12 * KIB, 0, "big")


def test_parts_of_a_tuple_live_each_for_itself():
    nodes = [
        node("both", "Split", "x", (tensor(4), tensor(8))),
        node("first", "TupleGetItem", "both 0", tensor(4)),
        node("a", "GeLU", "first", tensor(1)),  # 4 + 8 + 1, and the first part is gone
        node("b", "GeLU", "a", tensor(4)),
        node("second", "TupleGetItem", "both 1", tensor(8)),
        node("c", "Add", "second b", tensor(1)),
    ]
    assert peak(function("main", "x", nodes, "c")) == Peak(13 * KIB, KIB, "a")


def test_gradients_of_weights_do_not_wait_until_the_end():
    nodes = [
        node("a", "MatMul", "x w", tensor(8)),
        node("b", "MatMul", "a w", tensor(8)),
        node("db", "GeLUGrad", "b", tensor(8), scope="Gradients/one"),
        node("da", "MatMul", "db w", tensor(8), scope="Gradients/two"),
        node("dx", "MatMul", "da w", tensor(8), scope="Gradients/three"),
        node("end", "ReduceSum", "dx", tensor(0)),
        node("db_w", "MatMul", "a db", tensor(1), scope="Gradients/weight"),  # listed late, though ready after db
        node("da_w", "MatMul", "x da", tensor(1), scope="Gradients/weight"),
        node("all", "MakeTuple", "end db_w da_w"),
    ]
    # In the listed order a, db, da and dx would be there together: 32.
    assert peak(function("main", "x w", nodes, "all")).bytes == 25 * KIB


def micro_batches(order: str, sums: bool = False) -> Peak:
    """A pipeline stage: each forward pass keeps 6 KiB for its backward pass, which takes 16 KiB at most.

    It sends what it gives; or `sums` that up at the end, as the last stage does with the loss.
    """
    forward = function(
        "forward",
        "weight x",
        [
            node("kept", "MatMul", "x weight", tensor(6)),
            node("lost", "GeLU", "kept", tensor(10)),  # the peak of a forward pass: 16
            node("y", "GeLU", "lost", tensor(1)),
            node("closure", "Partial", "backward weight kept"),
            node("result", "MakeTuple", "y closure"),
        ],
        "result",
    )
    backward = function(
        "backward",
        "weight kept dy",
        [
            node("wide", "GeLUGrad", "dy kept", tensor(12)),
            node("dx", "MatMul", "wide weight", tensor(4)),  # the peak of a backward pass: 16
        ],
        "dx",
    )
    nodes = []
    for step in order.split():
        number = step[1:]
        if step[0] == "f":
            nodes += [
                node(f"call{number}", CALL, "weight x", (tensor(1), None), callee="forward"),
                node(f"y{number}", "TupleGetItem", f"call{number} 0", tensor(1)),
                node(f"s{number}", "Send", f"y{number}"),
                node(f"b{number}", "TupleGetItem", f"call{number} 1"),
            ]
        else:
            nodes += [node(f"d{number}", CALL, "x", tensor(4), callee=f"b{number}", scope=f"backward {number}")]
    if sums:
        values = " ".join(item.output for item in nodes if item.output[0] == "y")
        nodes.append(node("sum", "AddN", values, tensor(1)))
    return peak(function("main", "weight x", nodes, nodes[-1].output), forward, backward)


@pytest.mark.parametrize(
    ("order", "kept_at_once", "most"),
    [("f0 b0 f1 b1", 1, 22), ("f0 f1 b0 f2 b1 b2", 2, 28), ("f0 f1 f2 b0 b1 b2", 3, 34)],
)
def test_the_order_of_calls_decides_how_many_micro_batches_are_kept(order, kept_at_once, most):
    found = micro_batches(order)
    assert found.kept_at_once == kept_at_once
    assert found.kept_bytes == 6 * KIB
    assert found.bytes == most * KIB
    assert found.scope.startswith("backward")


def test_what_a_forward_pass_gives_is_not_what_it_keeps():
    assert micro_batches("f0 b0 f1 b1 f2 b2", sums=True).kept_at_once == 1


def test_both_branches_of_a_condition_are_looked_at():
    heavy = function("heavy", "x", [node("h", "GeLU", "x", tensor(9)), node("r", "GeLU", "h", tensor(1))], "r")
    light = function("light", "x", [node("l", "GeLU", "x", tensor(1))], "l")
    nodes = [node("which", "Switch", "condition light heavy"), node("done", CALL, "x", tensor(1), callee="which")]
    assert peak(function("main", "x condition", nodes, "done"), heavy, light).bytes == 10 * KIB


def test_masks_of_one_bit():
    nodes = [node("both", "Dropout", "x", (tensor(32), tensor(32))), node("y", "TupleGetItem", "both 0", tensor(32))]
    main = function("main", "x", nodes, "both")
    assert peak(main).bytes == 64 * KIB
    assert peak(main, bit_masks=True).bytes == 33 * KIB
