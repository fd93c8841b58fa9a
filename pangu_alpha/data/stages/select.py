"""Third stage: the documents of a batch that stay, for training or held out, as Parquet."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pangu_alpha.data.document import with_text
from pangu_alpha.data.held_out import essence, held_out_number, packing_number
from pangu_alpha.data.lines import Lines
from pangu_alpha.data.rule_results import length_histogram
from pangu_alpha.data.stages.arrow_files import read_batch
from pangu_alpha.data.stages.clean import COUNTS, DOCUMENTS, NUMBERS, amounts

FINAL = "documents.parquet"
"""Documents of a batch: the columns of `document.SCHEMA`, and `held_out`."""


@dataclass(frozen=True)
class SelectSettings:
    """What all batches share."""

    paragraphs: int
    """Characters of the shortest paragraph that was compared; 0: none were."""
    held_out_share: float


class Selection(NamedTuple):
    """What is known of one batch."""

    folder: Path
    """Of its clean documents."""
    source: str
    stays: npt.NDArray[np.bool_]
    """Documents [rows]."""
    gone: npt.NDArray[np.bool_]
    """Long paragraphs [paragraphs]."""


def select(settings: SelectSettings, selection: Selection, folder: Path) -> None:
    """FINAL, NUMBERS and COUNTS of one batch."""
    batch = read_batch(selection.folder / DOCUMENTS)
    lost = 0
    if selection.gone.any():
        before = pc.sum(pc.utf8_length(batch["text"])).as_py()
        batch = _without(batch, settings.paragraphs, selection.gone)
        lost = before - pc.sum(pc.utf8_length(batch["text"])).as_py()
    keep = pc.and_(pa.array(selection.stays), pc.greater(pc.binary_length(batch["text"]), 0))
    batch = batch.filter(keep)
    texts = batch["text"].to_pylist()
    numbers = np.array([held_out_number(essence(text)) for text in texts], np.uint64)
    held_out = numbers.astype(np.float64) < settings.held_out_share * 2.0**64
    table = pa.Table.from_batches([batch]).append_column("held_out", pa.array(held_out, pa.bool_()))
    pq.write_table(table, folder / FINAL, compression="zstd")
    np.savez(
        folder / NUMBERS,
        packing=np.array([packing_number(text) for text in texts], np.uint64),
        held_out=held_out,
        characters=np.array([len(text) for text in texts], np.int64),
    )
    counts = {
        "source": selection.source,
        "out": amounts(batch["text"]),
        "lengths_out": length_histogram(batch["text"]),
        "paragraphs": int(selection.gone.sum()),
        "paragraph_characters": lost,
    }
    (folder / COUNTS).write_text(json.dumps(counts), encoding="utf-8")


def _without(batch: pa.RecordBatch, shortest: int, gone: npt.NDArray[np.bool_]) -> pa.RecordBatch:
    lines = Lines.of(batch["text"])
    keep = np.ones(len(lines.lengths), bool)
    keep[np.flatnonzero(lines.lengths >= shortest)[gone]] = False
    text = pc.utf8_trim(pc.replace_substring_regex(lines.joined(keep), r"\n{3,}", "\n\n"), "\n")
    return with_text(batch, text)


def read_texts(folder: Path) -> pa.Array:
    """Texts of a batch's final documents."""
    return pq.read_table(folder / FINAL, columns=["text"])["text"].combine_chunks()
