"""First stage: raw records of one file to clean documents, with what the stages behind need to know of each."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pangu_alpha.data.dedup.minhash import signatures
from pangu_alpha.data.dedup.shingles import shingles_of
from pangu_alpha.data.document import Document, to_batch
from pangu_alpha.data.held_out import essence, held_out_number, identity, packing_number
from pangu_alpha.data.lines import Lines
from pangu_alpha.data.readers import SourceFile
from pangu_alpha.data.readers.records import BrokenRecord, RawRecord, ReaderSettings, documents_of
from pangu_alpha.data.recipe import Duplicates, RuleEntry
from pangu_alpha.data.rule_results import apply_rules, length_histogram
from pangu_alpha.data.stages.arrow_files import write_batch
from pangu_alpha.errors import PanguError

DOCUMENTS, NUMBERS, SIGNATURES, COUNTS = "documents.arrow", "numbers.npz", "signatures.npy", "counts.json"
"""Files of a unit."""


_SENTENCE_ENDS = ("。", "！", "？", "；", "…", "”", "」", "』", "：", ".", "!", "?", ";")


@dataclass(frozen=True)
class CleanSettings:
    """What all batches share."""

    rules: Sequence[RuleEntry]
    readers: Mapping[str, ReaderSettings]
    """By source."""
    duplicates: Duplicates
    samples: int
    strict: bool = False
    """Whether a broken record is an error."""


class RawBatch(NamedTuple):
    """Raw records of one file, one after the other."""

    file: SourceFile
    source: str
    place: str
    """Of the file, below the source's folder."""
    records: list[RawRecord]


def clean(settings: CleanSettings, raw: RawBatch, folder: Path) -> None:
    """Documents, their numbers and counts of one raw batch, as files in `folder`."""
    documents: list[Document] = []
    broken: list[BrokenRecord] = []
    reader = settings.readers[raw.source]
    for record in raw.records:
        for found in documents_of(raw.file, raw.source, raw.place, reader, record):
            if isinstance(found, Document):
                documents.append(found)
            else:
                broken.append(found)
    if broken and settings.strict:
        raise PanguError(f"{broken[0].place}: {broken[0].reason}")
    batch = to_batch(documents)
    kept, results = apply_rules(batch, settings.rules, raw.source, settings.samples)
    write_batch(kept, folder / DOCUMENTS)
    write_numbers(kept["text"], settings.duplicates, folder)
    counts = {
        "source": raw.source,
        "records": len(raw.records),
        "raw_bytes": sum(record.size for record in raw.records),
        "broken": [broken_record._asdict() for broken_record in broken],
        "in": amounts(batch["text"]),
        "out": amounts(kept["text"]),
        "lengths_in": length_histogram(batch["text"]),
        "lengths_out": length_histogram(kept["text"]),
        "rules": [dataclasses.asdict(result) for result in results],
    }
    (folder / COUNTS).write_text(json.dumps(counts), encoding="utf-8")


def amounts(texts: pa.Array) -> dict[str, int]:
    """Documents, characters and bytes of some texts."""
    return {
        "documents": len(texts),
        "characters": int(pc.sum(pc.utf8_length(texts)).as_py() or 0),
        "bytes": int(pc.sum(pc.binary_length(texts)).as_py() or 0),
    }


def write_numbers(texts: pa.Array, duplicates: Duplicates, folder: Path) -> None:
    """NUMBERS and SIGNATURES of some texts.

    | array | type and shape | what it is |
    |---|---|---|
    | identity | uint64 [rows, 2] | equal for texts that say the same |
    | held_out | uint64 [rows] | decides whether a document is held out |
    | packing | uint64 [rows] | the order in which documents are packed |
    | characters | int64 [rows] | length |
    | quality | float32 [rows] | share of the characters in lines that end as sentences do |
    | paragraphs | uint64 [paragraphs] | identity of each long paragraph |
    | paragraph_rows | int64 [paragraphs] | which document it is in |
    """
    plain = texts.to_pylist()
    essences = [essence(text) for text in plain]
    identities = np.frombuffer(b"".join(map(identity, essences)), np.uint64).reshape(-1, 2)
    paragraphs, rows = _paragraphs(texts, duplicates.paragraphs)
    np.savez(
        folder / NUMBERS,
        identity=identities,
        held_out=np.array([held_out_number(text) for text in essences], np.uint64),
        packing=np.array([packing_number(text) for text in plain], np.uint64),
        characters=np.array([len(text) for text in plain], np.int64),
        quality=np.array([sentence_share(text) for text in plain], np.float32),
        paragraphs=paragraphs,
        paragraph_rows=rows,
    )
    if duplicates.near:
        shingles, starts = shingles_of(
            pa.array(essences, pa.large_string()), duplicates.run, duplicates.unit == "words"
        )
        np.save(folder / SIGNATURES, signatures(shingles, starts, duplicates.permutations))


def sentence_share(text: str) -> float:
    """Share of a text's characters that stand in lines which end as sentences do; 0 of an empty one.

    Menus, lists and titles lower it (the rule of C4, Raffel et al. 2020, section 2.2, as a number).
    """
    lines = text.split("\n")
    total = sum(map(len, lines))
    return sum(len(line) for line in lines if line.rstrip().endswith(_SENTENCE_ENDS)) / total if total else 0.0


def _paragraphs(texts: pa.Array, shortest: int) -> tuple[np.ndarray, np.ndarray]:
    """Identity and row of each paragraph of at least `shortest` characters; none with 0."""
    if not shortest:
        return np.zeros(0, np.uint64), np.zeros(0, np.int64)
    lines = Lines.of(texts)
    long = np.flatnonzero(lines.lengths >= shortest)
    found = [identity(essence(line))[:8] for line in lines.texts.take(pa.array(long)).to_pylist()]
    return np.frombuffer(b"".join(found), np.uint64), lines.parents[long]
