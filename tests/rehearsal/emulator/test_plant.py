"""Each planted error, on a small graph written by hand; on real graphs see test_emulation.py."""

from __future__ import annotations

import numpy as np
import pytest

from pangu_alpha.config import Config
from pangu_alpha.config_parallel import ParallelConfig
from pangu_alpha.errors import PanguError, UsageError
from pangu_alpha.rehearsal.emulator.cluster import Deadlock
from pangu_alpha.rehearsal.emulator.communication import Mismatch
from pangu_alpha.rehearsal.emulator.plant import PLANTS, plant_named
from tests.rehearsal.emulator.hand_built import all_reduce, graph, node, receive, run, send


def _graphs():
    """Rank 0 gives the sum of two squares to rank 1, both norms are summed over the ranks."""
    first = [send("x", "sent", 1, tag=3, group="2-other"), node("Square", ["x"], "value")]
    second = [receive("got", 0, tag=3, group="2-other"), node("Square", ["got"], "value")]
    rest = [
        all_reduce("value", "one"),
        node("Add", ["value", "value"], "double"),
        all_reduce("double", "two"),
        node("Sub", ["two", "one"], "difference"),
        all_reduce("difference", "norm", instance="sum_over_ranks"),
    ]
    return [graph([*nodes, *rest], "norm") for nodes in (first, second)]


def test_without_an_error():
    for result in run(_graphs(), [1, 2]):
        assert result.asnumpy().tolist() == [4, 16]


def test_missing_all_reduce():
    for result in run(PLANTS["missing_all_reduce"].transform(_graphs()), [1, 2]):
        assert result.asnumpy().tolist() == [2, 8]


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("mismatched_collective", Mismatch, r"rank 0 at AllReduce sum .*/one\), but rank 1 at AllReduce max .*/one\)"),
        ("receive_without_send", Deadlock, r"rank 1 at Receive from rank 0 .*/got\) waits for ever: there is no match"),
        ("circular_wait", Deadlock, r"in a circle: rank 0 at Receive from rank 1 .*; then rank 1 at Receive from rank"),
        ("different_order", Mismatch, r"in another order.*: rank 0 at .*/one\), but rank 1 at AllReduce .*/two\)"),
    ],
)
def test_what_stands_still(name, error, words):
    graphs = PLANTS[name].transform(_graphs())
    with pytest.raises(error, match=words):
        run(graphs, np.array([1, 2]))


def test_right_graphs_are_left_as_they_are():
    graphs = _graphs()
    before = [item.main.nodes for item in graphs]
    for plant in PLANTS.values():
        plant.transform(graphs)
    assert [item.main.nodes for item in graphs] == before


def test_where_there_is_nothing_to_plant_in():
    with pytest.raises(PanguError, match="no operator that this error could be planted in"):
        PLANTS["missing_all_reduce"].transform([graph([], "x")])


def test_names():
    two = Config(parallel=ParallelConfig(data_parallel=2))
    with pytest.raises(UsageError, match="there is no planted error 'weeds'; allowed: wrong_strategy, missing_all"):
        plant_named("weeds", two)
    with pytest.raises(UsageError, match="receive_without_send needs pipeline_stages of 2 or more"):
        plant_named("receive_without_send", two)
    with pytest.raises(UsageError, match="wrong_strategy needs model_parallel of 2 or more"):
        plant_named("wrong_strategy", two)
    assert plant_named("circular_wait", two) is PLANTS["circular_wait"]
