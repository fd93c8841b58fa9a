"""Which Chinese encoding some bytes are in."""

from __future__ import annotations

import codecs
import re

_BYTE_ORDER_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
# Lead bytes of the characters that each national standard lists first because they are common.
_COMMON = {"gbk": ("gb2312", 0xB0, 0xD7), "big5": ("big5", 0xA4, 0xC6)}
_LEAST_COMMON_SHARE = 0.7


_STRAY_SHARE = 0.01
"""Broken bytes, as a share of all that are not ASCII, with which a text still counts as UTF-8."""
_WIDE_SHARE = 0.9


def guess_encoding(head: bytes) -> str | None:
    """The encoding of a text from its first bytes, as a value for `data.encoding`; None if nothing fits.

    UTF-8 and UTF-16 are known by their form; GBK and Big5 overlap, and the one whose common characters make up most
    of the text is taken.
    """
    for mark, name in _BYTE_ORDER_MARKS:
        if head.startswith(mark):
            return name
    if _decode(head, "utf-8") is not None:
        return (_wide(head) or "utf-8") if b"\0" in head else "utf-8"
    shares = {name: _common_share(head, name) for name in _COMMON}
    best = max(shares, key=lambda name: shares[name])
    if shares[best] >= _LEAST_COMMON_SHARE:
        return best
    return _wide(head) if b"\0" in head else None


def is_nearly_utf8(head: bytes) -> bool:
    """Whether some bytes are UTF-8 but for a few that are broken."""
    beyond_ascii = len(head) - len(head.decode("ascii", "ignore"))
    broken = head.decode("utf-8", "replace").count("\ufffd") - head.count("\ufffd".encode())
    return beyond_ascii > 0 and broken <= max(1, beyond_ascii * _STRAY_SHARE)


def _wide(head: bytes) -> str | None:
    """UTF-16 without a byte order mark: most of it reads as ASCII, Chinese characters or their punctuation."""
    for name in ("utf-16-le", "utf-16-be"):
        text = _decode(head[: len(head) // 2 * 2], name)
        usual = len(re.findall(r"[\t\n\r -~\u2010-\u203b\u3000-\u303f\u4e00-\u9fff\uff00-\uffef]", text or ""))
        if text and usual >= len(text) * _WIDE_SHARE:
            return name
    return None


def _decode(head: bytes, codec: str) -> str | None:
    try:
        return codecs.getincrementaldecoder(codec)().decode(head)  # the last character may be cut in two
    except UnicodeError:
        return None


def _common_share(head: bytes, name: str) -> float:
    """Share of common characters among the Chinese characters of `head` read as `name`; 0 if it cannot be read so."""
    text = _decode(head, "gb18030" if name == "gbk" else name)
    if text is None:
        return 0.0
    codec, first, last = _COMMON[name]
    chinese = [character for character in text if "\u4e00" <= character <= "\u9fff"]
    common = 0
    for character in chinese:
        encoded = character.encode(codec, "ignore")
        common += bool(encoded) and first <= encoded[0] <= last
    return common / len(chinese) if chinese else 0.0
