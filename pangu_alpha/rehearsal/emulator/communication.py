"""Collectives, sends and receives among the emulated ranks, in the order in which devices would do them.

As on devices, each rank has one stream a group: its calls there start in the order in which they were issued, and one
starts when the one before has ended.  A collective ends when all ranks of its group have come to it; a send ends when
its receiver has come to the matching receive (rendezvous).  With `buffered` a send needs no receiver, and sends and
receives don't hold up what comes after them in the stream: what still stands still then has no partner at all.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pangu_alpha.errors import PanguError
from pangu_alpha.rehearsal.emulator.reduction import exchange
from pangu_alpha.rehearsal.emulator.values import Future

SEND, RECEIVE = "Send", "Receive"
COLLECTIVES = frozenset(("AllReduce", "AllGather", "ReduceScatter", "AlltoAll", "AllToAll"))
COMMUNICATION = COLLECTIVES | {SEND, RECEIVE}


class Mismatch(PanguError):
    """Two ranks came to different communication operators where both must call the same."""


@dataclass(frozen=True, slots=True)
class Call:
    """One communication operator that one rank has come to.

    Attributes:
        rank: whose.
        number: how many calls the rank made before in this step.
        operator: one of COMMUNICATION.
        group: name of the group.
        ranks: its ranks, in the group's order.
        shape: of what it gives to the others; of a receive, of what it gets.
        dtype: element type.
        bytes: of it.
        scope: where in the cells the operator stands.
        instance: who inserted it.
        reduction: sum, max, min or prod.
        peer: of a send or receive, the other's rank.
        tag: of a send or receive, what must agree.
        axes: of an all-to-all, the axis that is cut and the one that is joined.
    """

    rank: int
    number: int
    operator: str
    group: str
    ranks: tuple[int, ...]
    shape: tuple[int, ...]
    dtype: str
    bytes: int
    scope: str
    instance: str
    reduction: str = ""
    peer: int = -1
    tag: int = 0
    axes: tuple[int, int] = (0, 0)

    @property
    def is_collective(self) -> bool:
        """Whether all ranks of the group take part."""
        return self.operator in COLLECTIVES

    @property
    def contract(self) -> tuple[object, ...]:
        """What all ranks of a collective must agree on."""
        return self.operator, self.reduction, self.shape, self.dtype, self.axes

    def __str__(self) -> str:
        if self.is_collective:
            detail = f" {self.reduction}" if self.reduction else ""
        else:
            detail = f" {'to' if self.operator == SEND else 'from'} rank {self.peer} with tag {self.tag}"
        return f"rank {self.rank} at {self.operator}{detail} {self.dtype}{list(self.shape)} ({self.scope})"


class _Pending:
    __slots__ = ("call", "data", "future")

    def __init__(self, call: Call, data: np.ndarray | None, future: Future) -> None:
        self.call, self.data, self.future = call, data, future


def _send_off(pending: _Pending) -> None:
    """Let a buffered send end; what it sent waits in its stream."""
    if pending.call.operator == SEND and not pending.future.done:
        pending.future.complete(pending.data)


class Network:
    """The streams of all ranks.

    Args:
        scopes: (group, rank) -> scopes of the rank's collectives there.  With them it is noticed where ranks call the
            same collectives in another order, even if their shapes fit.

    Attributes:
        buffered: whether sends need no receiver, see the module.
    """

    def __init__(self, scopes: Mapping[tuple[str, int], frozenset[str]] | None = None) -> None:
        self.buffered = False
        self._scopes = scopes or {}
        self._streams: dict[tuple[str, int], deque[_Pending]] = {}

    def issue(self, call: Call, data: np.ndarray | None) -> Future:
        """Put a call into its stream.  `data`: what it gives, None for a receive.

        Raises:
            Mismatch: it met another one that does not fit.
        """
        future = Future(call)
        pending = _Pending(call, data, future)
        self._stream(call.group, call.rank).append(pending)
        self._advance(call)
        if self.buffered:
            _send_off(pending)
        return future

    def relax(self) -> bool:
        """Buffer sends from now on; whether something that stood still goes on."""
        self.buffered = True
        waiting = [pending for stream in self._streams.values() for pending in stream]
        for pending in waiting:
            self._advance(pending.call)
            _send_off(pending)
        return any(pending.future.done for pending in waiting)

    def unfinished(self, rank: int) -> list[Call]:
        """Calls of a rank that have not ended, in the order of issue."""
        calls = [p.call for (_, who), stream in self._streams.items() if who == rank for p in stream]
        return sorted(calls, key=lambda call: call.number)

    def before(self, call: Call) -> list[Call]:
        """Calls in the same stream that must end before `call` can start."""
        queue = [pending.call for pending in self._stream(call.group, call.rank)]
        return queue[: queue.index(call)] if call in queue else []

    def _stream(self, group: str, rank: int) -> deque[_Pending]:
        return self._streams.setdefault((group, rank), deque())

    def _advance(self, call: Call) -> None:
        """Do whatever can be done in the streams of a group."""
        while self._meet(call.group, call.ranks) or self._pass(call.group, call.ranks):
            pass

    def _candidates(self, group: str, rank: int) -> list[_Pending]:
        """Calls of a rank that may start: the first, or if buffered the first collective and all sends, receives."""
        stream = self._stream(group, rank)
        if not self.buffered:
            return [stream[0]] if stream else []
        collective = next((pending for pending in stream if pending.call.is_collective), None)
        return [p for p in stream if p is collective or not p.call.is_collective]

    def _meet(self, group: str, ranks: Sequence[int]) -> bool:
        """Do the next collective if all ranks have come to it."""
        heads = []
        for rank in ranks:
            head = next((p for p in self._candidates(group, rank) if p.call.is_collective), None)
            if head is None:
                return False
            heads.append(head)
        self._check_agreement([head.call for head in heads])
        inputs = [head.data for head in heads if head.data is not None]
        for head, result in zip(heads, exchange(heads[0].call, inputs), strict=True):
            self._stream(group, head.call.rank).remove(head)
            head.future.complete(result)
        return True

    def _check_agreement(self, calls: list[Call]) -> None:
        first = calls[0]
        for other in calls[1:]:
            if other.contract != first.contract:
                raise Mismatch(
                    f"collectives do not match in group {first.group} (ranks {list(first.ranks)}): {first}, but {other}"
                )
            if other.scope != first.scope and self._both_have(first, other):
                raise Mismatch(
                    f"ranks call the collectives of group {first.group} (ranks {list(first.ranks)}) in another order, "
                    f"and would mix up what fits by its shape: {first}, but {other}"
                )

    def _both_have(self, one: Call, other: Call) -> bool:
        """Whether each of two calls stands in the graphs of both ranks."""
        return one.scope in self._scopes.get((one.group, other.rank), ()) and other.scope in self._scopes.get(
            (one.group, one.rank), ()
        )

    def _pass(self, group: str, ranks: Sequence[int]) -> bool:
        """Do one send whose receiver has come to the matching receive."""
        for rank in ranks:
            for sender in self._candidates(group, rank):
                if sender.call.operator != SEND:
                    continue
                for receiver in self._candidates(group, sender.call.peer):
                    if self._fits(sender.call, receiver.call):
                        self._stream(group, rank).remove(sender)
                        self._stream(group, sender.call.peer).remove(receiver)
                        sender.future.complete(sender.data)
                        receiver.future.complete(sender.data)
                        return True
        return False

    def _fits(self, send: Call, receive: Call) -> bool:
        if receive.operator != RECEIVE or receive.peer != send.rank or receive.tag != send.tag:
            return False
        if (send.shape, send.dtype) != (receive.shape, receive.dtype):
            raise Mismatch(f"what is sent is not what is received: {send}, but {receive}")
        return True
