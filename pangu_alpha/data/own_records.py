"""MindRecord files of the official preprocessing as they are: checked, and some of their samples held out.

They hold ids already, `input_ids` of S + 1 each, so nothing is tokenized or packed.  Samples are held out by a hash of
their ids; those are copied to a file of their own, and the training side passes over them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pangu_alpha.data.dataset import count_records, read_records
from pangu_alpha.data.packing import require_space, write_records
from pangu_alpha.data.sample_files import SampleFiles
from pangu_alpha.data.tokenizer import END_OF_TEXT, PAD
from pangu_alpha.errors import PanguError
from pangu_alpha.progress import Progress

Ids = npt.NDArray[np.int32]


@dataclass(frozen=True)
class OwnRecords:
    """What was found in a user's MindRecord files."""

    train: SampleFiles
    """The files themselves, without the samples held out."""
    valid: SampleFiles
    """Copies of the samples held out."""
    held_out: Ids
    """Those samples, int32 [samples, S + 1]."""
    documents: tuple[int, int]
    """End tokens on the training side and on the held-out side."""
    tokens: tuple[int, int]
    """Tokens on both sides, without padding."""


def _is_held_out(ids: Ids, share: float) -> bool:
    digest = hashlib.blake2b(ids.astype("<i4").tobytes(), digest_size=8, person=b"held out").digest()
    return int.from_bytes(digest, "big") < share * 2.0**64


def read_own_records(
    files: tuple[Path, ...], directory: Path, seq_length: int, vocab_size: int, held_out_share: float
) -> OwnRecords:
    """Check MindRecord files and hold some of their samples out.

    Args:
        files: in the order in which they are given.
        directory: an existing one that gets excluded.npy and valid/*.mindrecord.
        seq_length: S; each record must hold S + 1 ids.
        vocab_size: pieces of the vocabulary; each id must lie below it.
        held_out_share: of the samples.

    Raises:
        PanguError: a file is damaged, or its records do not fit the model.
    """
    rows: list[int] = []
    samples: list[Ids] = []
    documents, tokens = np.zeros(2, np.int64), np.zeros(2, np.int64)
    row = 0
    with Progress("reading MindRecord", count_records(files), "samples") as progress:
        for path in files:
            for batch in read_records((path,), 1):
                ids = batch[0].astype(np.int32)
                _check(ids, path, row, seq_length, vocab_size)
                side = int(_is_held_out(ids, held_out_share))
                if side:
                    rows.append(row)
                    samples.append(ids)
                documents[side] += int((ids == END_OF_TEXT).sum())
                tokens[side] += int((ids != PAD).sum())
                row += 1
                progress.advance()
    excluded = directory / "excluded.npy"
    np.save(excluded, np.array(rows, np.int64))
    held_out = np.stack(samples) if samples else np.zeros((0, seq_length + 1), np.int32)
    written: list[Path] = []
    if samples:
        (directory / "valid").mkdir()
        require_space(directory, held_out.nbytes)
        written = write_records(held_out, directory / "valid", "valid")
    return OwnRecords(
        SampleFiles(files, row - len(rows), excluded),
        SampleFiles(tuple(written), len(rows)),
        held_out,
        (int(documents[0]), int(documents[1])),
        (int(tokens[0]), int(tokens[1])),
    )


def _check(ids: Ids, path: Path, row: int, seq_length: int, vocab_size: int) -> None:
    if ids.ndim != 1 or len(ids) != seq_length + 1:
        length = len(ids.reshape(-1))
        raise PanguError(
            f"{path} holds samples of {length} ids, but model.seq_length {seq_length} needs "
            f"{seq_length + 1}; set model.seq_length={length - 1}, or pack the text anew"
        )
    smallest, largest = int(ids.min()), int(ids.max())
    if smallest < 0 or largest >= vocab_size:
        raise PanguError(
            f"{path} holds the id {smallest if smallest < 0 else largest} (sample {row}), but "
            f"the vocabulary has {vocab_size} pieces; it was made with another one: see tokenizer.kind"
        )
