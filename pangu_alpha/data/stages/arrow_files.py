"""Record batches on disk: Arrow files, read without copying them into memory."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa


def write_batch(batch: pa.RecordBatch, path: Path) -> None:
    """One record batch as an Arrow file."""
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, batch.schema) as writer:
        writer.write_batch(batch)


def read_batch(path: Path) -> pa.RecordBatch:
    """The record batch of a file, mapped into memory."""
    with pa.memory_map(str(path)) as file:
        return pa.ipc.open_file(file).get_batch(0)
