"""Bodies of HTTP answers as archives keep them: sent in pieces (chunked), and compressed.

Many archives unpack bodies and keep the headers that say otherwise, so the bytes decide and not the header alone.
"""

from __future__ import annotations

import io
import re
import zlib

from pangu_alpha.errors import PanguError

_PIECE = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(;[^\r\n]*)?\r?\n")
_GZIP = b"\x1f\x8b"


def unpack(content: bytes, transfer: str, encoding: str, most: int) -> bytes:
    """The body as its author wrote it.

    Args:
        content: bytes as sent.
        transfer: the header Transfer-Encoding.
        encoding: the header Content-Encoding.
        most: bytes that are unpacked; a longer body is cut.

    Raises:
        PanguError: the compressed body is damaged.
    """
    if "chunked" in transfer.lower():
        content = _joined(content)
    for name in reversed([word.strip() for word in encoding.lower().split(",") if word.strip()]):
        try:
            if name in ("gzip", "x-gzip") and content.startswith(_GZIP):
                content = zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(content, most)
            elif name == "deflate":
                content = _inflated(content, most)
            elif name == "br" and b"<" not in content[:1024]:
                from fastwarc.stream_io import BrotliReader

                content = BrotliReader(io.BytesIO(content)).read(most)
        except (zlib.error, OSError, EOFError) as error:
            raise PanguError(f"its {name} content is damaged ({error})") from error
    return content


def _inflated(content: bytes, most: int) -> bytes:
    # Servers send deflate with and without the header of zlib.
    for window in (zlib.MAX_WBITS, -zlib.MAX_WBITS):
        try:
            return zlib.decompressobj(window).decompress(content, most)
        except zlib.error:
            continue
    return content


def _joined(content: bytes) -> bytes:
    """Pieces put together; the content itself if it is not in pieces."""
    found: list[bytes] = []
    place = 0
    while (head := _PIECE.match(content, place)) is not None:
        size = int(head[1], 16)
        if size == 0:
            return b"".join(found)
        found.append(content[head.end() : head.end() + size])
        place = head.end() + size
        place += 2 if content[place : place + 2] == b"\r\n" else 1
    return b"".join(found) if found else content
