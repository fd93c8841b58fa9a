"""Worker processes that are timed in turns, all of them stopped but the one at work.

An idle process may still spin or wake; beside four idle MindSpore processes PyTorch has been seen to take half as long
again.  So whoever is not asked is stopped (SIGSTOP).  Workers end with the process that started them, however it ends:
the kernel kills them (PR_SET_PDEATHSIG), which also ends a stopped process.

A worker prints one line of JSON when it is ready, then answers each line it reads with one line of JSON.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

_PR_SET_PDEATHSIG = 1


class WorkerError(RuntimeError):
    """A worker ended instead of answering; the message has the last line that it wrote."""


def _die_with(parent: int) -> Callable[[], None] | None:
    """What a child runs before its program, so that it is killed when `parent` ends; None where there is no prctl."""
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None).prctl

    def prepare() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it ended before the line above
            os.kill(os.getpid(), signal.SIGKILL)

    return prepare


class Worker:
    """One process; stopped except while it answers.

    Args:
        name: what tables call it.
        command: its program and arguments.
        log: file that gets what it writes to stderr.
        environment: variables set besides those of this process.
    """

    def __init__(
        self, name: str, command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self.name, self.log = name, log
        with log.open("wb") as errors:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True,
                env={**os.environ, **(environment or {})},
                start_new_session=True,  # Ctrl-C reaches this process alone, which then ends the workers
                preexec_fn=_die_with(os.getpid()),
            )  # fmt: skip
        try:
            self.ready: dict[str, Any] = self._read()
        except BaseException:
            self.end()
            raise
        self._signal(signal.SIGSTOP)

    def ask(self, request: str) -> dict[str, Any]:
        """Wake the worker, hand it one line, and give back its answer."""
        self._signal(signal.SIGCONT)
        try:
            assert self.process.stdin is not None
            with contextlib.suppress(BrokenPipeError):  # the missing answer tells more
                self.process.stdin.write(request + "\n")
                self.process.stdin.flush()
            return self._read()
        finally:
            self._signal(signal.SIGSTOP)

    def end(self) -> None:
        """Kill the worker, stopped or not."""
        self.process.kill()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        self.process.wait()

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            code = self.process.wait()
            lines = self.log.read_text(errors="replace").strip().splitlines()
            raise WorkerError(f"{self.name} ended with code {code}: {lines[-1] if lines else 'it wrote nothing'}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _signal(self, number: int) -> None:
        if self.process.poll() is None:
            self.process.send_signal(number)


@contextlib.contextmanager
def ending(workers: list[Worker]) -> Iterator[list[Worker]]:
    """A list whose workers are ended when the block is left, also by SIGTERM."""
    outer = signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        yield workers
    finally:
        for worker in workers:
            worker.end()
        signal.signal(signal.SIGTERM, outer)


def in_turn(workers: Sequence[Worker], number: int) -> list[Worker]:
    """All workers, in the order of the round of that number: every round another one is the first."""
    turn = number % len(workers)
    return [*workers[turn:], *workers[:turn]]


def serve(ready: Mapping[str, Any], answer: Callable[[str], Mapping[str, Any]], output: int) -> None:
    """A worker's side: tell that it is ready, then answer each line of stdin until it ends.

    `output` is the descriptor of the pipe (see `take_output`).
    """
    with os.fdopen(output, "w") as pipe:
        for message in _messages(ready, answer):
            pipe.write(json.dumps(message) + "\n")
            pipe.flush()


def _messages(ready: Mapping[str, Any], answer: Callable[[str], Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    yield ready
    for line in sys.stdin:
        yield answer(line.strip())


def take_output() -> int:
    """The descriptor of a worker's stdout; whatever else prints goes to stderr from here on."""
    output = os.dup(1)
    os.dup2(2, 1)
    return output
