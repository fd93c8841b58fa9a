"""Last stage: all documents of a source, in the order of a hash of their text, to samples in MindRecord files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from pangu_alpha.data import packing
from pangu_alpha.data.packing import pack_held_out, pack_training
from pangu_alpha.data.stages.clean import NUMBERS
from pangu_alpha.data.stages.tokens import ids_of

Ids = npt.NDArray[np.int32]
_MAPPED_DOCUMENTS = 2048
"""Documents read before files are mapped anew: a page of a mapped file, once touched, stays with the process."""


class Digest(Protocol):
    """What hashlib's objects are."""

    def update(self, data: bytes, /) -> object:
        """Take in some bytes."""


@dataclass(frozen=True)
class PackedGroup:
    """What became of one group of documents (a source, or all) on one side."""

    files: tuple[Path, ...]
    samples: int
    documents: int
    characters: int
    tokens: int


@dataclass(frozen=True)
class PackedDocuments:
    """Where the documents of one group lie: batches in order, each with its selection and its ids."""

    selected: Sequence[Path]
    tokens: Sequence[Path]

    def order(self, held_out: bool) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Batch and row of each document of one side, as they are packed, int64 [documents] each."""
        batches, rows, keys = [], [], []
        for number, folder in enumerate(self.selected):
            numbers = np.load(folder / NUMBERS)
            own = np.flatnonzero(numbers["held_out"] == held_out)
            batches.append(np.full(len(own), number, np.int64))
            rows.append(own.astype(np.int64))
            keys.append(numbers["packing"][own])
        if not batches:
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        batch, row = np.concatenate(batches), np.concatenate(rows)
        chosen = np.argsort(np.concatenate(keys), kind="stable")
        return batch[chosen], row[chosen]

    def ids(self, held_out: bool) -> Iterator[Ids]:
        """Ids of each document of one side, as they are packed."""
        mapped: dict[int, tuple[Ids, npt.NDArray[np.int64]]] = {}
        for number, (batch, row) in enumerate(zip(*map(np.ndarray.tolist, self.order(held_out)), strict=True)):
            if number % _MAPPED_DOCUMENTS == 0:
                mapped.clear()
            if batch not in mapped:
                mapped[batch] = ids_of(self.tokens[batch])
            ids, ends = mapped[batch]
            yield np.array(ids[ends[row] : ends[row + 1]])

    def count(self, held_out: bool) -> tuple[int, int, int]:
        """Documents, characters and tokens of one side."""
        documents = characters = tokens = 0
        for selected, folder in zip(self.selected, self.tokens, strict=True):
            numbers = np.load(selected / NUMBERS)
            own = numbers["held_out"] == held_out
            documents += int(own.sum())
            characters += int(numbers["characters"][own].sum())
            tokens += int(np.diff(ids_of(folder)[1])[own].sum())
        return documents, characters, tokens


def pack(
    documents: PackedDocuments, held_out: bool, folder: Path, name: str, seq_length: int, tail: str, digest: Digest
) -> PackedGroup:
    """Write the samples of one group and side as NAME_00000.mindrecord … into `folder`.

    Memory holds one file's samples at a time.

    Args:
        documents: of the group.
        held_out: which side of them.
        folder: an existing one.
        name: first part of the files' names.
        seq_length: S; a sample has one token more.
        tail: what becomes of the last, incomplete training sample: drop or pad.
        digest: is fed the shape and the ids of all samples.

    Raises:
        PanguError: the disk is full, or MindSpore cannot write there.
    """
    counted = documents.count(held_out)
    expected = _count_samples(counted[2], held_out, seq_length, tail)
    digest.update(f"{(expected, seq_length + 1)}".encode())
    total = 0
    files: list[Path] = []
    for samples in _samples(documents.ids(held_out), held_out, seq_length, tail):
        files += packing.write_records(samples, folder, name, len(files))
        digest.update(np.ascontiguousarray(samples, "<i4").tobytes())
        total += len(samples)
    assert total == expected
    return PackedGroup(tuple(files), total, *counted)


def _count_samples(tokens: int, held_out: bool, seq_length: int, tail: str) -> int:
    if held_out:
        return -(-tokens // seq_length)
    whole, rest = divmod(tokens, seq_length + 1)
    return whole + (tail == "pad" and rest > 1)


def _samples(documents: Iterator[Ids], held_out: bool, seq_length: int, tail: str) -> Iterator[Ids]:
    """Samples of a stream of documents, int32 [samples, S + 1] a file."""
    step = packing.SAMPLES_OF_A_FILE * (seq_length if held_out else seq_length + 1)
    held: list[Ids] = []
    size = 0
    last: Ids | None = None  # of a held-out stream: the token that the next sample begins with
    for ids in documents:
        held.append(ids)
        size += len(ids)
        if size >= step:
            stream = np.concatenate(held)
            while len(stream) >= step:
                part, stream = stream[:step], stream[step:]
                yield _cut(part, held_out, seq_length, "drop", last)
                last = part[-1:]
            held, size = [stream], len(stream)
    rest = np.concatenate(held) if held else np.zeros(0, np.int32)
    samples = _cut(rest, held_out, seq_length, tail, last)
    if len(samples):
        yield samples


def _cut(ids: Ids, held_out: bool, seq_length: int, tail: str, last: Ids | None) -> Ids:
    if not held_out:
        return pack_training(ids, seq_length, tail)
    samples = pack_held_out(ids, seq_length)
    if last is not None and len(samples):
        samples[0, 0] = last[0]
    return samples
