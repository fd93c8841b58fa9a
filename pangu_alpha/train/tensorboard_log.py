"""Scalars for TensorBoard, written as event files without TensorFlow.

MindSpore's own SummaryRecord writes MindInsight's format, which TensorBoard does not read (checked with 2.10), so the
record format comes from the `tensorboard` package itself.  Its EventFileWriter is passed by: it imports TensorFlow
where that happens to be installed, and writes from a thread that a killed run takes with it.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pangu_alpha.files import storage_error


class ScalarLog:
    """One event file; TensorBoard shows all files of a directory as one run.

    Args:
        directory: where event files of the run lie; made if missing.
        resume_step: the run continues after this step; what older files hold of later steps is declared void, so
            that a resumed run shows every step once.

    Raises:
        PanguError: the disk is full, read-only or closed to this user (also from `write`).
    """

    def __init__(self, directory: str | Path, resume_step: int = 0) -> None:
        from tensorboard.compat.proto import event_pb2
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._event_type = event_pb2.Event
        directory = Path(directory)
        try:
            directory.mkdir(parents=True, exist_ok=True)
            # TensorBoard reads the files of a directory in the order of their names.
            number = sum(1 for _ in directory.glob("events.out.tfevents.*"))
            name = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{number:04d}"
            self._path = directory / name
            self._file = self._path.open("xb")
        except OSError as error:
            raise storage_error(error, directory) from error
        self._writer = RecordWriter(self._file)
        self._write_event(file_version="brain.Event:2")
        if resume_step > 0:
            restart = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
            self._write_event(step=resume_step + 1, session_log=restart)

    def _write_event(self, **fields: Any) -> None:
        event = self._event_type(wall_time=time.time(), **fields)
        try:
            self._writer.write(event.SerializeToString())
            self._file.flush()  # a running TensorBoard sees every step, a killed run loses none
        except OSError as error:
            raise storage_error(error, self._path) from error

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Add the `scalars` (tag -> value) of one step."""
        from tensorboard.compat.proto import summary_pb2

        values = [summary_pb2.Summary.Value(tag=tag, simple_value=value) for tag, value in scalars.items()]
        self._write_event(step=step, summary=summary_pb2.Summary(value=values))

    def close(self) -> None:
        """Close the file; safe to call twice."""
        self._file.close()
