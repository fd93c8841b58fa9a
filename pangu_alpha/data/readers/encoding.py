"""Which Chinese encoding some bytes are in."""

from __future__ import annotations

import codecs

_BYTE_ORDER_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
# Lead bytes of the characters that each national standard lists first because they are common.
_COMMON = {"gbk": ("gb2312", 0xB0, 0xD7), "big5": ("big5", 0xA4, 0xC6)}
_LEAST_COMMON_SHARE = 0.7


def guess_encoding(head: bytes) -> str | None:
    """The encoding of a text from its first bytes, as a value for `data.encoding`; None if nothing fits.

    UTF-8 and UTF-16 are known by their form; GBK and Big5 overlap, and the one whose common characters make up most
    of the text is taken.
    """
    for mark, name in _BYTE_ORDER_MARKS:
        if head.startswith(mark):
            return name
    if _decode(head, "utf-8") is not None:
        return "utf-8"
    shares = {name: _common_share(head, name) for name in _COMMON}
    best = max(shares, key=lambda name: shares[name])
    return best if shares[best] >= _LEAST_COMMON_SHARE else None


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
