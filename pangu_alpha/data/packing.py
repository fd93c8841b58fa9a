"""Ids to samples of S + 1, and samples to MindRecord files in the official form (column `input_ids`, int32, [-1])."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pangu_alpha.data.tokenizer import END_OF_TEXT, PAD
from pangu_alpha.errors import PanguError
from pangu_alpha.files import final_name
from pangu_alpha.interrupts import unbroken_import
from pangu_alpha.progress import Progress

Ids = npt.NDArray[np.int32]

SAMPLES_OF_A_FILE = 1 << 16
"""Samples of one MindRecord file, but for the last."""
_SAMPLES_AT_ONCE = 1024
# MindRecord's own sizes (16 MiB header, 32 MiB pages) make a file of ten samples 50 MB long.
_HEADER_BYTES, _PAGE_BYTES = 1 << 20, 1 << 22


def pack_training(ids: Ids, seq_length: int, tail: str) -> Ids:
    """Cut the tokens of all documents into samples that follow one another without overlap, as published.

    Args:
        ids: int32 [n], the documents one after the other, each with its end token.
        seq_length: S; a sample holds S + 1.
        tail: drop leaves out what does not fill a sample; pad fills it up.

    Returns:
        int32 [samples, S + 1].
    """
    length = seq_length + 1
    rest = len(ids) % length
    # One token alone asks for nothing, so it makes no sample.
    if tail == "pad" and rest > 1:
        ids = np.concatenate([ids, np.full(length - rest, PAD, np.int32)])
    return ids[: len(ids) // length * length].reshape(-1, length)


def pack_held_out(ids: Ids, seq_length: int) -> Ids:
    """Cut held-out tokens into samples so that each token is asked for exactly once.

    A sample begins with the last token of the one before, the first with an end token, which asks for the first
    document's first token as any document border does; the last is padded.

    Args:
        ids: int32 [n], the documents one after the other, each with its end token.
        seq_length: S; a sample holds S + 1.

    Returns:
        int32 [samples, S + 1].
    """
    samples = -(-len(ids) // seq_length)
    stream = np.full(samples * seq_length + 1, PAD, np.int32)
    stream[0] = END_OF_TEXT
    stream[1 : len(ids) + 1] = ids
    starts = np.arange(samples)[:, None] * seq_length
    return stream[starts + np.arange(seq_length + 1)]


def bytes_needed(samples: int, length: int) -> int:
    """Upper bound for the size on disk of packed samples, indexes included."""
    files = -(-samples // SAMPLES_OF_A_FILE)
    return samples * (5 * length + 80) + files * (_HEADER_BYTES + 2 * _PAGE_BYTES)


def require_space(directory: Path, needed: int) -> None:
    """Check that a disk has room.

    Raises:
        PanguError: fewer than `needed` bytes are free where `directory` lies.
    """
    free = shutil.disk_usage(directory).free
    if free < needed:
        raise PanguError(
            f"no space for the packed text in {final_name(directory)}: {_megabytes(needed)} are needed, "
            f"{_megabytes(free)} are free"
        )


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.0f} MB" if count >= 1e6 else f"{count / 1e6:.1f} MB"


def write_records(samples: Ids, directory: Path, name: str, first_number: int = 0) -> list[Path]:
    """Write samples as MindRecord files NAME_00000.mindrecord …, each with its index beside it.

    Args:
        samples: int32 [samples, S + 1].
        directory: an existing one, best one that nobody reads yet (`atomic_directory`).
        name: first part of the file names, and of the progress shown.
        first_number: of the first file.

    Returns:
        the files, in order.

    Raises:
        PanguError: the disk is full, or MindSpore cannot write there.
    """
    with unbroken_import():
        from mindspore.mindrecord import FileWriter

    from pangu_alpha.data.dataset import COLUMN, count_records

    require_space(directory, bytes_needed(len(samples), samples.shape[1]))
    files = []
    with Progress(f"packing {name}", len(samples), "samples") as progress:
        for number, start in enumerate(range(0, len(samples), SAMPLES_OF_A_FILE), first_number):
            path = directory / f"{name}_{number:05d}.mindrecord"
            try:
                writer = FileWriter(str(path), shard_num=1)
                writer.set_header_size(_HEADER_BYTES)
                writer.set_page_size(_PAGE_BYTES)
                writer.add_schema({COLUMN: {"type": "int32", "shape": [-1]}}, "token ids of packed documents")
                end = min(start + SAMPLES_OF_A_FILE, len(samples))
                for first in range(start, end, _SAMPLES_AT_ONCE):
                    rows = samples[first : min(first + _SAMPLES_AT_ONCE, end)]
                    writer.write_raw_data([{COLUMN: row} for row in rows])
                    progress.advance(len(rows))
                writer.commit()
            except RuntimeError as error:
                lines = [line for line in str(error).splitlines() if "[ERROR]" in line]
                reason = (lines[0] if lines else str(error)).replace("[ERROR]", "").strip()
                raise PanguError(f"cannot write {final_name(path)}: {reason}") from error
            for written in (path, path.with_name(path.name + ".db")):
                written.chmod(0o644)  # MindSpore closes its files to everybody else
            files.append(path)
    # MindSpore does not notice every failed write; what cannot be read back was not written.
    if files and count_records(tuple(files)) != len(samples):
        raise PanguError(
            f"cannot write {final_name(directory)}: some samples are missing when read back; is the disk full?"
        )
    return files
