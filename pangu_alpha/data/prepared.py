"""What prepared data consists of, and its manifest."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pangu_alpha.data.mixture import MixturePart
from pangu_alpha.data.sample_files import SampleFiles
from pangu_alpha.files import atomic_write

FORMAT = 1
"""Raised whenever the same text and settings would be prepared into something else."""
MANIFEST = "manifest.json"
VOCABULARY = "tokenizer/vocab.model"

TRAINING, HELD_OUT = "training", "held out"


@dataclass(frozen=True)
class SideCount:
    """How much of one source is on one side."""

    source: str
    """Name in `data.sources`."""
    side: str
    """training or held out."""
    documents: int
    """Documents, exact duplicates left out."""
    characters: int
    """Characters of their text; 0 where only ids are known."""
    tokens: int
    """Tokens, the document ends included."""
    duplicates: int = 0
    """Documents left out because an earlier one has the same text."""


@dataclass(frozen=True)
class Prepared:
    """Prepared data in one directory."""

    directory: Path
    """Where it lies: manifest.json, tokenizer/vocab.model, train/*.mindrecord, valid/*.mindrecord."""
    train: SampleFiles
    """Training samples."""
    valid: SampleFiles
    """Held-out samples; each of their tokens is asked for once."""
    valid_tokens: int
    """Tokens that the held-out samples ask for."""
    valid_characters: int
    """Characters of the text that these tokens spell, each document end counted as one: divide bits by it."""
    counts: tuple[SideCount, ...]
    """By source and side."""
    tokenizer_sha256: str
    """Of the vocabulary."""
    fingerprint: str
    """SHA-256 of everything that training sees of it: vocabulary and samples."""

    @property
    def tokenizer_path(self) -> Path:
        """The vocabulary."""
        return self.directory / VOCABULARY

    @property
    def train_files(self) -> tuple[Path, ...]:
        """MindRecord files of the training side."""
        return self.train.files

    @property
    def valid_files(self) -> tuple[Path, ...]:
        """MindRecord files of the held-out side."""
        return self.valid.files

    @property
    def train_samples(self) -> int:
        """Samples of one epoch."""
        return self.train.samples

    @property
    def valid_samples(self) -> int:
        """Held-out samples."""
        return self.valid.samples

    @property
    def train_tokens(self) -> int:
        """Tokens of the training documents, their ends included; the incomplete last sample is not trained on."""
        return sum(count.tokens for count in self.counts if count.side == TRAINING)

    @property
    def documents(self) -> int:
        """Documents on both sides."""
        return sum(count.documents for count in self.counts)


def save_manifest(
    prepared: Prepared, directory: Path, key: str, parts: dict[str, Any], folders: tuple[str, ...] = (".",)
) -> None:
    """Write the manifest of data that lies in `directory` (the place may still have a temporary name).

    Args:
        prepared: with the paths that the files will have.
        directory: where they lie now.
        key: what the data is named by.
        parts: what the key was made of, for people to read.
        folders: in which every file counts.
    """

    def described(files: SampleFiles) -> dict[str, Any]:
        def name(path: Path) -> str:
            inside = path.is_relative_to(prepared.directory)
            return str(path.relative_to(prepared.directory)) if inside else str(path)

        return {
            "files": [name(path) for path in files.files],
            "samples": files.samples,
            "excluded": name(files.excluded) if files.excluded else None,
            "mixture": [asdict(part) for part in files.mixture],
        }

    sizes = {
        str(path.relative_to(directory)): path.stat().st_size
        for folder in folders
        for path in sorted((directory / folder).rglob("*"))
        if path.is_file()
    }
    manifest = {
        "format": FORMAT,
        "key": key,
        "parts": parts,
        "fingerprint": prepared.fingerprint,
        "tokenizer_sha256": prepared.tokenizer_sha256,
        "train": described(prepared.train),
        "valid": described(prepared.valid),
        "valid_tokens": prepared.valid_tokens,
        "valid_characters": prepared.valid_characters,
        "counts": [asdict(count) for count in prepared.counts],
        "sizes": sizes,
    }
    with atomic_write(directory / MANIFEST, "w") as file:
        json.dump(manifest, file, ensure_ascii=False, indent=1)


def load_prepared(directory: Path, key: str | None = None) -> Prepared | None:
    """Prepared data of a directory; None if it is incomplete, changed, of another format or of another key."""
    try:
        manifest = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))
        if manifest["format"] != FORMAT or key not in (None, manifest["key"]):
            return None
        if any((directory / name).stat().st_size != size for name, size in manifest["sizes"].items()):
            return None

        def files(described: dict[str, Any]) -> SampleFiles:
            # Joining leaves an absolute path, of the user's own MindRecord files, as it is.
            excluded = described["excluded"]
            return SampleFiles(
                tuple(directory / name for name in described["files"]),
                described["samples"],
                directory / excluded if excluded else None,
                tuple(MixturePart(**part) for part in described.get("mixture", ())),
            )

        return Prepared(
            directory,
            files(manifest["train"]),
            files(manifest["valid"]),
            manifest["valid_tokens"],
            manifest["valid_characters"],
            tuple(SideCount(**count) for count in manifest["counts"]),
            manifest["tokenizer_sha256"],
            manifest["fingerprint"],
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
