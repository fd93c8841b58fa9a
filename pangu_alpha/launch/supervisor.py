"""Runs the processes of one node: logs, the first failure, signals, and no process left behind."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO

from pangu_alpha.checkpoint.run_directory import RunLock
from pangu_alpha.errors import PanguError
from pangu_alpha.launch.mpirun import first_failed_rank
from pangu_alpha.launch.node_link import NodeLink
from pangu_alpha.launch.plan import ProcessPlan

logger = logging.getLogger(__name__)

LINES_SHOWN = 20
"""Last lines of the log of the first process that failed."""
_POLL_SECONDS = 0.2
_PR_SET_PDEATHSIG = 1


@dataclass
class _Running:
    plan: ProcessPlan
    process: subprocess.Popen[bytes]
    log: Path


class Supervisor:
    """Starts processes and sees them to their end.

    Args:
        log_directory: where <name>.log of each goes; logs of an earlier launch are kept as <name>.log.old.
        grace_seconds: how long processes have to end by themselves, once one of them failed.
    """

    def __init__(self, log_directory: Path, grace_seconds: float = 5.0) -> None:
        self.log_directory, self.grace_seconds = log_directory, grace_seconds
        self._running: list[_Running] = []
        self._signals: list[int] = []

    def run(self, plans: Sequence[ProcessPlan], link: NodeLink | None = None) -> None:
        """Run all processes to their end; SIGTERM and SIGINT are passed on, and then they have all the time they need.

        Args:
            plans: the processes.
            link: the line to the other nodes, if there are any.

        Raises:
            PanguError: one line with the process that failed first, here or on another node, its end and its log, whose
                last lines are logged.
        """
        with self._taking_signals(), self._lock():
            try:
                for plan in plans:
                    self._running.append(self._start(plan))
                self._watch(link)
            finally:
                self._end_all()
                self._running = []

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        lock = RunLock(self.log_directory)
        try:
            lock.__enter__()
        except PanguError as error:
            raise PanguError(f"{error}".replace("this run another train.output", "another --log-dir")) from None
        try:
            yield
        finally:
            lock.__exit__(None, None, None)

    def _start(self, plan: ProcessPlan) -> _Running:
        log = self.log_directory / f"{plan.name}.log"
        if log.exists():
            log.replace(log.with_name(f"{log.name}.old"))
        file: IO[bytes]
        with log.open("wb") as file:
            try:
                process = subprocess.Popen(
                    plan.command,
                    env={**os.environ, **plan.environment},
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # so that whatever it starts can be ended with it
                    preexec_fn=_end_with_parent,
                )
            except OSError as error:
                raise PanguError(f"{plan.command[0]} cannot be started: {error.strerror}") from None
        return _Running(plan, process, log)

    def _watch(self, link: NodeLink | None) -> None:
        """Until all workers have ended, or one of the processes failed, here or elsewhere."""
        while True:
            # Asked first: ranks here may fail because of it.
            if link is not None and (elsewhere := link.failure()):
                failed, lines = elsewhere
                self._show(f"last lines of its log ({failed.split(':')[0]})", lines)
                raise PanguError(f"{failed}; the processes of this node are stopped")
            ended = [running for running in self._running if running.process.poll() is not None]
            failures = [running for running in ended if running.process.returncode != 0]
            if failures:
                # The scheduler and other workers fail because of the first: a worker's own end says more.
                failures.sort(key=lambda running: (running.plan.rank is None, running.log.stat().st_mtime))
                raise self._failure(failures[0], link)
            workers = [running for running in self._running if running.plan.name != "scheduler"]
            if all(running in ended for running in workers):
                return
            time.sleep(_POLL_SECONDS)

    def _failure(self, running: _Running, link: NodeLink | None) -> PanguError:
        code = running.process.returncode
        end = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        name, log = running.plan.name, running.log
        if name == "mpirun" and (rank := first_failed_rank(log)):
            # Its exit code is the rank's, or 128 and the number of the signal that ended the rank.
            name, log = f"worker_{rank[0]}", rank[1]
            end = f"was ended by {signal.Signals(code - 128).name}" if code > 128 else end
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-LINES_SHOWN:]
        self._show(f"last lines of {log}", lines)
        if link is not None:
            link.tell(f"{name} {end}; its log is {log}", lines)
        return PanguError(f"{name} {end}; the others are stopped; its log is {log}")

    @staticmethod
    def _show(title: str, lines: Sequence[str]) -> None:
        logger.error("%s:\n%s", title, "\n".join(f"  {line}" for line in lines))

    def _end_all(self) -> None:
        """SIGTERM to all that run, and SIGKILL to those that are still there after the grace."""
        self._send(signal.SIGTERM)
        deadline = time.monotonic() + self.grace_seconds
        while time.monotonic() < deadline and any(running.process.poll() is None for running in self._running):
            time.sleep(_POLL_SECONDS / 2)
        for running in self._running:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(running.process.pid, signal.SIGKILL)  # also what a process that has ended left behind
            running.process.wait()

    def _send(self, number: int) -> None:
        for running in self._running:
            if running.process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(running.process.pid, number)

    @contextlib.contextmanager
    def _taking_signals(self) -> Iterator[None]:
        def pass_on(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
            name = signal.Signals(number).name
            if self._signals:
                raise KeyboardInterrupt  # the second one ends everything now
            self._signals.append(number)
            logger.info("%s is passed on; every rank ends with a checkpoint", name)
            for running in self._running:
                if running.plan.name != "scheduler" and running.process.poll() is None:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(running.process.pid, signal.SIGTERM)

        previous = {number: signal.signal(number, pass_on) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    @property
    def was_stopped(self) -> bool:
        """Whether a signal asked for the end."""
        return bool(self._signals)


def _end_with_parent() -> None:
    """In the new process: be ended when the launcher dies, however it dies (Linux)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
