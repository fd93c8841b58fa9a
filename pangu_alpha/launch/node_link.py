"""The launchers of all nodes hear of the first rank that failed on any of them, within a second.

Without it a node learns of a failure elsewhere only when a communication times out: 30 seconds with MindSpore's
scheduler, up to half an hour with a rank table.  The first node's launcher listens beside the scheduler's port; the
others call it and keep the line open.  A message is one line of JSON.  Where no line can be had (a firewall, a port in
use) training goes on without, after a warning.
"""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import threading
import time
from types import TracebackType
from typing import Any

logger = logging.getLogger(__name__)

CALL_SECONDS = 600.0
"""How long a node tries to reach the first one, as workers try to reach the scheduler (msrun's default)."""
_RETRY_SECONDS = 0.5
_LONGEST_MESSAGE = 1 << 16


class NodeLink:
    """The line between the launchers of a job; a context manager, open while the node's processes run.

    Args:
        master: address of the first node.
        port: where its launcher listens.
        node_rank: number of this node; the first, 0, listens.
        nodes: how many there are.
        job: what all nodes of one job have in common and other jobs have not; strangers are turned away.
        attempt: which start of the job this is; nodes meet only in the same one.
    """

    def __init__(self, master: str, port: int, node_rank: int, nodes: int, job: str, attempt: int = 0) -> None:
        self.address, self.node_rank, self.nodes = (master, port), node_rank, nodes
        self._greeting = {"job": job, "attempt": attempt}
        self._failure: dict[str, Any] | None = None
        self._lines: list[socket.socket] = []
        self._listener: socket.socket | None = None
        self._closing = threading.Event()
        self._guard = threading.Lock()

    def __enter__(self) -> NodeLink:
        if self.nodes > 1:
            work = self._listen() if self.node_rank == 0 else self._call
            if work is not None:
                threading.Thread(target=work, name="node link", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Say good-bye, so that nobody takes this node's leaving for a failure."""
        self._closing.set()
        with self._guard:
            for line in self._lines:
                _send(line, {"done": self.node_rank})
                with contextlib.suppress(OSError):
                    line.shutdown(socket.SHUT_WR)
            if self._listener is not None:
                # Closing alone leaves the port taken while another thread waits on it.
                with contextlib.suppress(OSError):
                    self._listener.shutdown(socket.SHUT_RDWR)
                self._listener.close()

    def failure(self) -> tuple[str, list[str]] | None:
        """What failed on another node, as one line, and the last lines of its log; None while nothing has."""
        if self._failure is None:
            return None
        return str(self._failure.get("failed")), [str(line) for line in self._failure.get("log", [])]

    def tell(self, failed: str, log: list[str]) -> None:
        """Tell the other nodes that something failed on this one.

        Args:
            failed: what, and how it ended.
            log: last lines of its log.
        """
        self._pass_on({"failed": f"node {self.node_rank}: {failed}", "log": [line[:1000] for line in log]}, None)

    def _pass_on(self, message: dict[str, Any], source: socket.socket | None) -> None:
        with self._guard:
            lines = [line for line in self._lines if line is not source]
        for line in lines:
            _send(line, message)

    # -- the first node --------------------------------------------------------------------------------------------

    def _listen(self) -> Any:
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(self.address)
        except OSError as error:
            listener.close()
            self._without(error)
            return None
        listener.listen(self.nodes)
        self._listener = listener
        return self._accept

    def _accept(self) -> None:
        assert self._listener is not None
        while not self._closing.is_set():
            try:
                line, _ = self._listener.accept()
            except OSError:
                return  # closed
            threading.Thread(target=self._welcome, args=(line,), daemon=True).start()

    def _welcome(self, line: socket.socket) -> None:
        with line, line.makefile("rb") as reader:
            greeting = _receive(reader)
            if greeting is None or {name: greeting.get(name) for name in self._greeting} != self._greeting:
                return
            with self._guard:
                if self._closing.is_set():
                    return
                self._lines.append(line)
            _send(line, {"welcome": True})
            self._follow(line, reader, f"node {greeting.get('node')}: its launcher is gone")

    # -- the other nodes -------------------------------------------------------------------------------------------

    def _call(self) -> None:
        deadline = time.monotonic() + CALL_SECONDS
        while not self._closing.is_set():
            try:
                line = socket.create_connection(self.address, timeout=10)
            except OSError as error:
                if time.monotonic() > deadline:
                    self._without(error)
                    return
                self._closing.wait(_RETRY_SECONDS)
                continue
            with line, line.makefile("rb") as reader:
                _send(line, self._greeting | {"node": self.node_rank})
                try:
                    welcome = _receive(reader)
                except OSError:
                    welcome = None
                if welcome is not None:
                    line.settimeout(None)
                    with self._guard:
                        self._lines.append(line)
                    self._follow(line, reader, "node 0: its launcher is gone")
                    return
            self._closing.wait(_RETRY_SECONDS)  # another job's, or the start before this one, still about to end

    # -- both ------------------------------------------------------------------------------------------------------

    def _follow(self, line: socket.socket, reader: Any, gone: str) -> None:
        """Read what the other side says until it leaves."""
        while True:
            try:
                message = _receive(reader)
            except OSError:
                message = None
            if self._closing.is_set():
                return
            if message is None:
                message = {"failed": gone}
            if "failed" in message:
                with self._guard:
                    first = self._failure is None
                    if first:
                        self._failure = message
                if first and self.node_rank == 0:
                    self._pass_on(message, line)
            if "failed" in message or "done" in message:
                return

    def _without(self, error: OSError) -> None:
        host, port = self.address
        logger.warning(
            "no line between the nodes' launchers at %s port %d (%s): what fails on another node is seen only when "
            "MindSpore's communication times out; open the port, or choose another --port, to hear of it at once",
            host, port, error.strerror or error,
        )  # fmt: skip


def _send(line: socket.socket, message: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):  # who has left needs to hear nothing
        line.sendall(json.dumps(message).encode() + b"\n")


def _receive(reader: Any) -> dict[str, Any] | None:
    """The next message; None when the other side has left or does not speak as launchers do."""
    text = reader.readline(_LONGEST_MESSAGE)
    if not text.endswith(b"\n"):
        return None
    try:
        message = json.loads(text)
    except ValueError:
        return None
    return message if isinstance(message, dict) else None
