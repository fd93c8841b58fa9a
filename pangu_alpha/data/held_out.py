"""Which documents are held out, which come twice, and in which order they are packed: all by a hash of their text.

A document's place in its file decides nothing, so the split survives added, removed and reordered files, and the same
text is always on the same side.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable

_NOT_A_WORD = re.compile(r"\W+")


def essence(text: str) -> str:
    """What makes a text the same as another: its letters and digits, whatever their width and case.

    Spaces and punctuation do not count, unless the text is nothing else.
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    return _NOT_A_WORD.sub("", folded) or text


def _number(text: str, purpose: bytes) -> int:
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8, person=purpose).digest()
    return int.from_bytes(digest, "big")


def is_held_out(text: str, share: float) -> bool:
    """Whether a document is kept from training: of many documents, `share` of them are.

    A document held out at one share is held out at every larger one.
    """
    return held_out_number(essence(text)) < share * 2.0**64


def held_out_number(essence_of_text: str) -> int:
    """A number in [0, 2^64) that decides whether a document is held out."""
    return _number(essence_of_text, b"held out")


def packing_number(text: str) -> int:
    """Documents sorted by this number lie in an order that mixes sources and does not hang on where they were read."""
    return _number(text, b"packing")


def packing_key(text: str) -> tuple[int, str]:
    """`packing_number`, and the text for the rare case of equal ones."""
    return packing_number(text), text


def identity(essence_of_text: str) -> bytes:
    """16 bytes that two texts share if they say the same."""
    return hashlib.blake2b(essence_of_text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def first_occurrences(texts: Iterable[str]) -> list[bool]:
    """For each text, whether none of the earlier ones is the same up to width, case, spaces and punctuation."""
    seen: set[bytes] = set()
    result = []
    for text in texts:
        digest = identity(essence(text))
        result.append(digest not in seen)
        seen.add(digest)
    return result
