"""Differences between two compilations."""

from __future__ import annotations

from types import SimpleNamespace

from pangu_alpha.rehearsal.differences import (
    OperatorDifference,
    StrategyDifference,
    operator_differences,
    strategy_differences,
)


def test_operators_that_run_another_number_of_times():
    first = SimpleNamespace(operators={"MatMul": 4, "FloatStatus": 2, "GeLU": 7})
    second = SimpleNamespace(operators={"MatMul": 4, "IsFinite": 6, "GeLU": 6})
    assert operator_differences(first, second) == [
        OperatorDifference("IsFinite", 0, 6),
        OperatorDifference("FloatStatus", 2, 0),
        OperatorDifference("GeLU", 7, 6),
    ]


def test_strategies_of_equal_places_are_one_row():
    first = {f"recompute_Default/blocks-CellList/{n}-Block/norm/LayerNorm-op{n}": [[2, 1], [1]] for n in range(3)}
    second = {name: [[4, 1], [1]] for name in first}
    first["Default/head/MatMul-op0"] = second["Default/head/MatMul-op0"] = [[2, 1], [2, 1]]
    second["Default/loss/Sum-op4"] = [[2, 2], []]
    assert strategy_differences(first, second) == [
        StrategyDifference("blocks-CellList/*-Block/norm/LayerNorm", "((2, 1), (1))", "((4, 1), (1))", 3),
        StrategyDifference("loss/Sum", None, "((2, 2), ())", 1),
    ]
