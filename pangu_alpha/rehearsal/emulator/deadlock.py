"""Why no rank can go on, in one line."""

from __future__ import annotations

from collections.abc import Mapping, Set

from pangu_alpha.rehearsal.emulator.communication import RECEIVE, SEND, Call, Network

Message = tuple[str, int, str, int]
"""(Send or Receive, the other's rank, group, tag)."""


def explain_standstill(
    network: Network, stuck: Mapping[int, Call], ended: set[int], messages: Mapping[int, Set[Message]]
) -> str:
    """The rank that waits for what nobody does, or the circle of ranks that wait for each other.

    Args:
        network: with what was issued and has not ended.
        stuck: rank -> what it waits for.
        ended: ranks that have come to their end.
        messages: rank -> all sends and receives of its graph.
    """
    for rank in stuck:
        for call in network.unfinished(rank):
            answer = RECEIVE if call.operator == SEND else SEND
            if not call.is_collective and (answer, rank, call.group, call.tag) not in messages[call.peer]:
                return f"{call} waits for ever: there is no matching {answer} in the graph of rank {call.peer}"
    path: list[tuple[int, str]] = []
    rank = min(stuck)
    while rank not in [number for number, _ in path]:
        first = _first_blocked(network, stuck[rank])
        missing = _missing(network, first)
        gone = [number for number in missing if number in ended]
        behind = "" if first == stuck[rank] else f", behind it {stuck[rank]}"
        path.append((rank, f"{first}{behind}"))
        if gone or not missing:
            who = f"rank {gone[0]} has come to its end without it" if gone else "nothing can answer it"
            return f"{path[-1][1]} waits for ever: {who}"
        rank = missing[0]
    circle = path[[number for number, _ in path].index(rank) :]
    if len(circle) == 1:
        return f"{circle[0][1]} waits for ever: nothing that it issued before can end"
    return "ranks wait for each other in a circle: " + "; then ".join(text for _, text in [*circle, circle[0]])


def _first_blocked(network: Network, call: Call) -> Call:
    """What holds up a call: the first one of its stream that has not ended."""
    before = network.before(call)
    return before[0] if before and not network.buffered else call


def _missing(network: Network, call: Call) -> list[int]:
    """Ranks that have not come to what `call` needs of them."""
    if call.is_collective:
        return [rank for rank in call.ranks if rank != call.rank and not _has_come(network, call, rank)]
    return [call.peer]


def _has_come(network: Network, call: Call, rank: int) -> bool:
    calls = [other for other in network.unfinished(rank) if other.group == call.group]
    if network.buffered:
        return any(other.is_collective for other in calls)
    return bool(calls) and calls[0].is_collective
