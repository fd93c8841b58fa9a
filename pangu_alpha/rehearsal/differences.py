"""Where two compiled graphs of one rank differ: Ascend's and the GPU's, or our strategies and MindSpore's search."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pangu_alpha.rehearsal.graph import RankReadOut


@dataclass(frozen=True)
class OperatorDifference:
    """An operator that two graphs run a different number of times in one step."""

    operator: str
    first: int
    second: int


@dataclass(frozen=True)
class StrategyDifference:
    """An operator, in `count` places of the model, that two compilations divide differently.

    Attributes:
        place: scope name; numbers of blocks and of operators as a star.
        first: strategy in the first, None where it has no such operator.
        second: strategy in the second.
        count: how many such places there are.
    """

    place: str
    first: str | None
    second: str | None
    count: int


def operator_differences(first: RankReadOut, second: RankReadOut) -> list[OperatorDifference]:
    """Operators whose runs a step differ, largest difference first."""
    names = sorted({*first.operators, *second.operators})
    rows = [OperatorDifference(name, first.operators.get(name, 0), second.operators.get(name, 0)) for name in names]
    return sorted((row for row in rows if row.first != row.second), key=lambda row: -abs(row.first - row.second))


def strategy_differences(
    first: Mapping[str, Sequence[Any]], second: Mapping[str, Sequence[Any]]
) -> list[StrategyDifference]:
    """Places whose strategies differ, equal ones of several blocks as one; those with most places first.

    Args:
        first: scope name -> strategy, of `CompiledRank.strategies`.
        second: likewise.
    """
    counts: dict[tuple[str, str | None, str | None], int] = {}
    for scope in sorted({*first, *second}):
        ours, theirs = _text(first.get(scope)), _text(second.get(scope))
        if ours != theirs:
            key = (_place(scope), ours, theirs)
            counts[key] = counts.get(key, 0) + 1
    rows = [StrategyDifference(*key, count) for key, count in counts.items()]
    return sorted(rows, key=lambda row: (-row.count, row.place))


def _place(scope: str) -> str:
    """A scope without its pass and with its numbers as stars."""
    place = re.sub(r"^(recompute_)?Default/", "", scope)
    place = re.sub(r"/\d+-", "/*-", place)
    return re.sub(r"-op\d+$", "", place)


def _text(strategy: Sequence[Any] | None) -> str | None:
    """A strategy as strategies.py writes it."""
    if strategy is None:
        return None
    return "(" + ", ".join("(" + ", ".join(map(str, parts)) + ")" for parts in strategy) + ")"
