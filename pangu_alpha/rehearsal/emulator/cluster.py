"""All ranks of a run side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pangu_alpha.errors import PanguError
from pangu_alpha.rehearsal.emulator.communication import Network
from pangu_alpha.rehearsal.emulator.deadlock import explain_standstill
from pangu_alpha.rehearsal.emulator.interpreter import Execution, Rank
from pangu_alpha.rehearsal.emulator.values import Future


class Deadlock(PanguError):
    """Ranks wait for each other, or for what nobody sends."""


class Cluster:
    """The ranks of one run, in one process.

    Attributes:
        ranks: in order.
        device_deadlocks: one line for each program that only ran on since sends were buffered: devices would stand.
    """

    def __init__(self, ranks: Sequence[Rank]) -> None:
        self.ranks = list(ranks)
        self.device_deadlocks: list[str] = []

    def run(self, program: str, arguments: Sequence[np.ndarray]) -> list[Any]:
        """Run a program on all ranks with the same arguments, see `run_each`."""
        return self.run_each(program, [arguments] * len(self.ranks))

    def run_each(self, program: str, arguments: Sequence[Sequence[np.ndarray]]) -> list[Any]:
        """Run a program on all ranks; the result of each.

        Args:
            program: its name.
            arguments: of each rank, in order.

        Raises:
            Deadlock: no rank can go on, also with buffered sends.
            Mismatch: ranks came to communication operators that do not fit.
        """
        network = Network({key: scopes for rank in self.ranks for key, scopes in rank.scopes(program).items()})
        running = {
            rank.number: rank.start(program, given, network) for rank, given in zip(self.ranks, arguments, strict=True)
        }
        waiting: dict[int, Future] = {}
        results: dict[int, Any] = {}
        while running:
            if self._go_on(running, waiting, results):
                continue
            stuck = {number: future.call for number, future in waiting.items()}
            messages = {rank.number: rank.messages(program) for rank in self.ranks}
            reason = explain_standstill(network, stuck, set(results), messages)
            if network.buffered or not network.relax():
                raise Deadlock(reason)
            self.device_deadlocks.append(f"{program}: with rendezvous sends, {reason}")
        # A buffered send has ended; but what nobody fetched is a mistake, too.
        left = [call for rank in self.ranks for call in network.unfinished(rank.number)]
        if left:
            raise Deadlock(
                f"{left[0]} has no partner: all ranks have come to their end, and {len(left)} calls were never answered"
            )
        return [results[rank.number] for rank in self.ranks]

    def _go_on(self, running: dict[int, Execution], waiting: dict[int, Future], results: dict[int, Any]) -> bool:
        """Let each rank run as far as it can; whether any could."""
        moved = False
        for number in list(running):
            if number in waiting and not waiting[number].done:
                continue
            moved = True
            try:
                waiting[number] = next(running[number])
            except StopIteration as end:
                results[number] = end.value
                waiting.pop(number, None)
                del running[number]
        return moved
