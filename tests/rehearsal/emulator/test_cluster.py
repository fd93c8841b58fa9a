from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from pangu_alpha.errors import PanguError
from pangu_alpha.rehearsal.emulator.cluster import Cluster, Deadlock
from pangu_alpha.rehearsal.emulator.communication import Mismatch
from pangu_alpha.rehearsal.emulator.interpreter import Rank
from pangu_alpha.rehearsal.emulator.kernels import use_cpu_kernels
from pangu_alpha.rehearsal.mindir import Function
from tests.rehearsal.emulator.hand_built import (
    OTHER_PAIR,
    all_reduce,
    call,
    cluster,
    depend,
    graph,
    node,
    receive,
    run,
    send,
)


def test_a_product_cut_over_two_ranks():
    generator = np.random.default_rng(1)
    x, into = generator.normal(size=(3, 4)).astype(np.float32), generator.normal(size=(4, 6)).astype(np.float32)
    back = generator.normal(size=(6, 2)).astype(np.float32)
    nodes = [
        node("MatMul", ["x", "into", "no", "no"], "inner"),
        node("ReLU", ["inner"], "active"),
        node("MatMul", ["active", "back", "no", "no"], "part"),
        all_reduce("part", "whole"),
    ]
    graphs = [
        graph(nodes, "whole", parameters={"into": into[:, part], "back": back[part]}, constants={"no": False})
        for part in (slice(0, 3), slice(3, 6))
    ]
    for result in run(graphs, x):
        np.testing.assert_allclose(result.asnumpy(), np.maximum(x @ into, 0) @ back, rtol=1e-5)


def test_what_is_loaded_before_a_write_keeps_its_value():
    nodes = [
        node("Load", ["weight", "monad"], "old"),
        node("AssignAdd", ["weight", "x", "monad"], "written", side_effect_mem=True),
        node("UpdateState", ["monad", "written"], "after"),
        node("Load", ["weight", "after"], "new"),
        node("Mul", ["old", "new"], "product"),
    ]
    rank = cluster([graph(nodes, "product", parameters={"weight": np.array([1, 2], np.float32)})])
    (product,) = rank.run("step", [np.array([10, 20], np.float32)])
    assert product.asnumpy().tolist() == [11, 44]
    assert rank.ranks[0].parameters["weight"].asnumpy().tolist() == [11, 22]
    (product,) = rank.run("step", [np.array([10, 20], np.float32)])
    assert product.asnumpy().tolist() == [11 * 21, 22 * 42], "parameters last from one step to the next"


def test_a_write_through_a_loaded_value():
    nodes = [
        node("Load", ["weight", "monad"], "loaded"),
        node("Assign", ["loaded", "x", "monad"], "written", side_effect_mem=True),
        node("Assign", ["x", "weight", "monad"], "temporary", side_effect_mem=True),
        depend("weight", "written", "result"),
    ]
    (result,) = run([graph(nodes, "result", parameters={"weight": np.zeros(2, np.float32)})], [3, 4])
    assert result.asnumpy().tolist() == [3, 4]


@pytest.mark.parametrize(("flag", "expected"), [(True, [4, 6]), (False, [1, 2])])
def test_branches_and_closures(flag, expected):
    add = Function("add", ("a", "b"), (node("Add", ["a", "b"], "sum"),), "sum")
    keep = Function("keep", ("c",), (), "c")
    nodes = [
        node("Partial", ["add", "x"], "with_x"),
        node("Switch", ["flag", "with_x", "keep"], "chosen"),
        node("MakeTuple", ["chosen", "x"], "pair"),
        node("TupleGetItem", ["pair", "zero"], "again"),
        call("again", ["y" if flag else "x"], "result"),
    ]
    program = graph(
        nodes, "result", inputs=("x", "y"), constants={"flag": np.array(flag), "zero": 0}, functions=[add, keep]
    )
    (result,) = run([program], [1, 2], [3, 4])
    assert result.asnumpy().tolist() == expected


def test_a_micro_batch_passed_on():
    first = graph([node("Add", ["x", "x"], "double"), send("double", "sent", 1), depend("x", "sent", "end")], "end")
    second = graph([receive("got", 0), node("Add", ["got", "x"], "sum")], "sum")
    results = run([first, second], [1, 2])
    assert results[1].asnumpy().tolist() == [3, 6]


def test_dropout_masks():
    """Equal seeds draw equal masks on all ranks, another one in each execution; seeds 0 leave it to the rank."""
    nodes = [
        node("Dropout", ["x", "keep", "seed", "seed"], "one"),
        node("TupleGetItem", ["one", "zero"], "result"),
    ]
    values = np.ones(1000, np.float32)
    seeded = cluster([graph(nodes, "result", constants={"keep": 0.75, "seed": 5, "zero": 0})] * 2)
    first = [result.asnumpy() for result in seeded.run("step", [values])]
    second = [result.asnumpy() for result in seeded.run("step", [values])]
    np.testing.assert_array_equal(first[0], first[1])
    assert set(np.unique(first[0])) == {np.float32(0), np.float32(1 / 0.75)}
    assert 0.7 < (first[0] > 0).mean() < 0.8
    assert (first[0] != second[0]).any()
    own = [
        result.asnumpy()
        for result in run([graph(nodes, "result", constants={"keep": 0.75, "seed": 0, "zero": 0})] * 2, values)
    ]
    assert (own[0] != own[1]).any()


def test_overflow_flags():
    nodes = [
        node("FloatStatus", ["x"], "status"),
        node("MakeTuple", ["x"], "all"),
        node("AllFinite", ["all"], "not_finite"),
        node("MakeTuple", ["status", "not_finite"], "result"),
    ]
    for value, bad in ((1.0, False), (np.inf, True), (np.nan, True)):
        ((status, not_finite),) = run([graph(nodes, "result")], [0.0, value])
        assert (bool(status.asnumpy()), bool(not_finite.asnumpy())) == (bad, bad)


def test_an_operator_without_kernel_is_named():
    with pytest.raises(PanguError, match=r"rank 0: no CPU kernel does NoSuchThing of \[\(2,\)\] \(Default/result\)"):
        run([graph([node("NoSuchThing", ["x"], "result")], "result")], [1, 2])


def test_a_writer_that_is_not_known():
    with pytest.raises(PanguError, match="does not know where ApplyFtrl writes to"):
        run([graph([node("ApplyFtrl", ["x"], "result", side_effect_mem=True)], "result")], [1, 2])


# -- standing still ---------------------------------------------------------------------------------------------------


def _head_on(rank: int, peer: int):
    """Send, wait until it is done, then receive."""
    nodes = [
        send("x", "sent", peer, group="2-pair"),
        depend("x", "sent", "after"),
        receive("got", peer, given=["after"]),
    ]
    return graph(nodes, "got")


def test_sends_that_only_buffers_let_pass():
    both = cluster([_head_on(0, 1), _head_on(1, 0)])
    results = both.run("step", [np.array([1, 2], np.float32)])
    assert [result.asnumpy().tolist() for result in results] == [[1, 2], [1, 2]]
    (line,) = both.device_deadlocks
    assert "with rendezvous sends, ranks wait for each other in a circle: rank 0 at Send to rank 1" in line
    assert "; then rank 1 at Send to rank 0" in line


def test_calls_that_stand_in_each_others_way_in_one_stream():
    first = graph([send("x", "a", 1, tag=1), send("x", "b", 1, tag=2), depend("x", "b", "end")], "end")
    second = graph([receive("two", 0, tag=2), receive("one", 0, tag=1), node("Add", ["one", "two"], "sum")], "sum")
    both = cluster([first, second])
    both.run("step", [np.array([1, 2], np.float32)])
    assert len(both.device_deadlocks) == 1


def test_two_groups_are_two_streams():
    first = graph([send("x", "a", 1, tag=1), send("x", "b", 1, group=OTHER_PAIR), depend("x", "b", "end")], "end")
    second = graph(
        [receive("two", 0, group=OTHER_PAIR), receive("one", 0, tag=1), node("Add", ["one", "two"], "sum")], "sum"
    )
    both = cluster([first, second])
    both.run("step", [np.array([1, 2], np.float32)])
    assert both.device_deadlocks == []


def test_a_circle_of_three():
    graphs = [
        graph(
            [receive("got", (rank - 1) % 3, group="3-ring"), send("got", "sent", (rank + 1) % 3, group="3-ring"),
             depend("x", "sent", "end")],
            "end",
        )
        for rank in range(3)
    ]  # fmt: skip
    with pytest.raises(Deadlock, match="in a circle: rank 0 at Receive from rank 2.*; then rank 2.*; then rank 1"):
        run(graphs, [1, 2])


def test_a_receive_that_nobody_sends():
    second = graph([receive("got", 0, tag=5), node("Add", ["got", "x"], "sum")], "sum")
    with pytest.raises(
        Deadlock,
        match=r"^rank 1 at Receive from rank 0 with tag 5 float32\[2\] \(Default/got\) waits for ever: there is no "
        "matching Send in the graph of rank 0$",
    ):
        run([graph([], "x"), second], [1, 2])


def test_a_collective_that_one_rank_leaves_out():
    with pytest.raises(Deadlock, match="rank 0 at AllReduce sum .* waits for ever: rank 1 has come to its end without"):
        run([graph([all_reduce("x", "sum")], "sum"), graph([], "x")], [1, 2])


def test_a_call_whose_result_nobody_needs():
    with pytest.raises(Deadlock, match="rank 0 at AllReduce .* has no partner: all ranks have come to their end"):
        run([graph([all_reduce("x", "sum")], "x"), graph([], "x")], [1, 2])


def test_collectives_of_two_groups_crossed():
    """Each rank waits in the group that the other has not come to."""

    def crossed(first: str, second: str):
        return graph([all_reduce("x", "one", first), all_reduce("one", "two", second)], "two")

    with pytest.raises(Deadlock, match="in a circle: rank 0 at AllReduce.*; then rank 1 at AllReduce"):
        run([crossed("2-pair", OTHER_PAIR), crossed(OTHER_PAIR, "2-pair")], [1, 2])


def test_collectives_in_another_order():
    def ordered(*names: str):
        nodes = [all_reduce("x", name) for name in names]
        return graph([*nodes, node("Sub", ["first", "second"], "difference")], "difference")

    with pytest.raises(Mismatch, match=r"in another order.*Default/first\), but rank 1 .*Default/second"):
        run([ordered("first", "second"), ordered("second", "first")], [1, 2])


# -- programs ---------------------------------------------------------------------------------------------------------


def test_programs_share_their_parameters():
    add = graph([node("AssignAdd", ["p", "x", "monad"], "y", side_effect_mem=True)], "y", parameters={"p": np.zeros(2)})
    read = graph([node("Load", ["p", "monad"], "y")], "y", parameters={"p": np.ones(2)})
    use_cpu_kernels()
    both = Cluster([Rank(0, {"add": add, "read": read}, {})])
    both.run("add", [np.array([1.0, 2.0])])
    both.run("add", [np.array([1.0, 2.0])])
    (result,) = both.run("read", [np.zeros(2)])
    assert result.asnumpy().tolist() == [2, 4]


def test_programs_that_cut_a_parameter_differently():
    programs = {
        "one": graph([], "p", parameters={"p": np.zeros(2)}),
        "two": graph([], "p", parameters={"p": np.zeros(4)}),
    }
    with pytest.raises(PanguError, match=r"rank 3: programs cut parameter p differently: \(2,\), and \(4,\) in two"):
        Rank(3, programs, {})


def test_a_graph_without_data():
    bare = graph([], "p", parameters={"p": np.zeros(2)})
    parameter = dataclasses.replace(bare.parameters["p"], data=None)
    with pytest.raises(PanguError, match="rank 0: parameter p has no data; compile with mode export"):
        Rank(0, {"step": dataclasses.replace(bare, parameters={"p": parameter})}, {})
