"""Files as streams of bytes or lines, compressed or not, with one line for whatever is wrong with them."""

from __future__ import annotations

import bz2
import codecs
import contextlib
import gzip
import io
import lzma
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from pangu_alpha.data.readers.encoding import CODECS, guess_encoding, is_possible, likely_encodings
from pangu_alpha.errors import PanguError, UsageError
from pangu_alpha.files import storage_error

HEAD_BYTES = 1 << 18
"""Bytes looked at to guess an encoding."""

LONGEST_LINE = 1 << 26
"""Characters; no file fills the memory with one line."""
_ZSTANDARD_WINDOW = 1 << 31
"""Bytes that a .zst file may look back, as `zstd --long=31` makes it; memory is taken only where a file asks for it."""


class _ZstandardReader(io.RawIOBase):
    """Bytes of a .zst file of one or more frames; a file cut short is an error, which the library's reader hides."""

    def __init__(self, file: BinaryIO) -> None:
        import zstandard

        self._file, self._library = file, zstandard
        self._frame = zstandard.ZstdDecompressor(max_window_size=_ZSTANDARD_WINDOW).decompressobj()
        self._ready = b""
        self._inside_frame = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        while not self._ready:
            compressed = self._frame.unused_data if self._frame.eof else b""
            if self._frame.eof:
                self._frame = self._library.ZstdDecompressor(max_window_size=_ZSTANDARD_WINDOW).decompressobj()
                self._inside_frame = False
            compressed = compressed or self._file.read(1 << 16)
            if not compressed:
                if self._inside_frame:
                    raise EOFError("the last frame ends early")
                return 0
            self._inside_frame = True
            self._ready = self._frame.decompress(compressed)
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count


@contextlib.contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn what goes wrong while `path` is read into one line.

    Raises:
        PanguError: the file is missing, closed to this user, damaged or cut short.
    """
    import zstandard

    damaged: Exception
    try:
        yield
        return
    except (gzip.BadGzipFile, zlib.error, lzma.LZMAError, EOFError, zstandard.ZstdError) as error:
        damaged = error
    except OSError as error:
        if error.errno is not None:
            raise storage_error(error, path, "read") from error
        damaged = error  # what the system did not say is about the content: bz2 says so that it has none to unpack
    raise PanguError(f"{path} is damaged or cut short ({damaged}); fetch or compress it again") from damaged


@contextlib.contextmanager
def open_bytes(path: Path) -> Iterator[BinaryIO]:
    """Open a file for reading bytes, decompressing .gz, .zst, .bz2 and .xz."""
    with contextlib.ExitStack() as stack:
        file: BinaryIO = stack.enter_context(path.open("rb"))
        suffix = path.suffix.lower()
        if suffix == ".gz":
            file = stack.enter_context(gzip.GzipFile(fileobj=file))  # type: ignore[assignment]
        elif suffix == ".zst":
            file = stack.enter_context(io.BufferedReader(_ZstandardReader(file), 1 << 16))  # type: ignore[type-var]
        elif suffix == ".bz2":
            file = stack.enter_context(bz2.BZ2File(file))  # type: ignore[assignment]
        elif suffix == ".xz":
            file = stack.enter_context(lzma.LZMAFile(file))  # type: ignore[assignment]
        yield file


def codec_name(encoding: str) -> str:
    """Python's name of the codec to read `data.encoding` with.

    Raises:
        UsageError: there is no such codec of text.
    """
    if encoding == "auto":
        return "utf-8-sig"
    try:
        name = codecs.lookup(encoding).name
        " ".encode(encoding)  # refused where the codec is none of text, such as hex
    except (LookupError, ValueError):
        raise UsageError(
            f"data.encoding is {encoding!r}; allowed: auto, or a codec that Python knows, for example gbk, big5, utf-16"
        ) from None
    return {**CODECS, "gb2312": CODECS["gbk"], "utf-8": "utf-8-sig"}.get(name, name)


def read_lines(path: Path, encoding: str, lenient: bool = False) -> Iterator[str]:
    """Lines of a text file, without their ends; one of more than `LONGEST_LINE` characters comes in parts.

    Args:
        path: the file, possibly compressed.
        encoding: `data.encoding`.
        lenient: whether bytes that cannot be decoded become U+FFFD instead of an error.

    Raises:
        PanguError: the file cannot be read, is damaged, or is in another encoding, which is named.
    """
    codec, errors = codec_name(encoding), "replace" if lenient else "strict"
    with readable(path):
        try:
            with open_bytes(path) as file, io.TextIOWrapper(file, codec, errors) as lines:
                while line := lines.readline(LONGEST_LINE):
                    yield line.rstrip("\n")
        except UnicodeError as error:
            raise _wrong_encoding(path, encoding, codec) from error


def _wrong_encoding(path: Path, encoding: str, codec: str) -> PanguError:
    with open_bytes(path) as file:
        head = file.read(HEAD_BYTES)
    guess = guess_encoding(head)
    tried = "UTF-8" if encoding == "auto" else f"{encoding} (data.encoding)"
    if guess == "utf-8" and codec != "utf-8-sig":
        return PanguError(f"{path} is not {tried}; it looks like UTF-8: leave data.encoding at auto")
    if guess is not None and codec_name(guess) != codec:
        others = [name for name in likely_encodings(head) if name != guess and codec_name(name) != codec][:1]
        names = " or ".join(name.upper() for name in (guess, *others))
        mend = "".join(f"; if that reads wrong, data.encoding={name}" for name in others)
        return PanguError(
            f"{path} is not {tried}; it looks like {names}: add data.encoding={guess} to convert it{mend}"
        )
    if b"\0" in head:
        return PanguError(f"{path} is not {tried}; it holds zero bytes, so it may not be text at all: leave it out")
    if codec != "gb18030" and is_possible(head, "gb18030"):
        return PanguError(
            f"{path} is not {tried}; of the Chinese encodings only GB18030 could hold it: try data.encoding=gb18030"
        )
    return PanguError(
        f"{path} is not {tried}: line {_first_bad_line(path, codec)} cannot be decoded; "
        f"mend that line, or name the encoding with data.encoding=…"
    )


def _first_bad_line(path: Path, codec: str) -> int:
    with open_bytes(path) as file:
        number = 0
        for number, line in enumerate(file, 1):
            try:
                line.decode(codec)
            except UnicodeError:
                return number
    return number
