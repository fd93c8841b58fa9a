"""What ranks send: operators and bytes of each group, as they were called."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pangu_alpha.rehearsal.emulator.communication import RECEIVE, SEND, Call


@dataclass(frozen=True)
class Traffic:
    """Calls of one operator in one group: how many, and the bytes that the rank put into them (of receives: got)."""

    calls: int
    bytes: int


def traffic_of(calls: Iterable[Call]) -> dict[tuple[str, tuple[int, ...]], Traffic]:
    """(operator, ranks) -> traffic of one rank; the ranks of a send or receive are sender and receiver.

    The same keys and the same bytes as `communication.bytes_by_group` reads from the graph without running it.
    """
    sums: dict[tuple[str, tuple[int, ...]], Traffic] = {}
    for call in calls:
        ranks = call.ranks
        if call.operator == SEND:
            ranks = (call.rank, call.peer)
        elif call.operator == RECEIVE:
            ranks = (call.peer, call.rank)
        before = sums.get((call.operator, ranks), Traffic(0, 0))
        sums[call.operator, ranks] = Traffic(before.calls + 1, before.bytes + call.bytes)
    return sums
