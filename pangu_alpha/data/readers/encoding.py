"""Which encoding of Chinese, or of its neighbours, some bytes are in."""

from __future__ import annotations

import codecs
import re
from collections import Counter

_BYTE_ORDER_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
CODECS = {"gbk": "gb18030", "big5": "big5hkscs", "euc_jp": "euc_jp", "shift_jis": "cp932", "euc_kr": "cp949"}
"""Encodings that no form tells apart, and the codec that reads the most of each: files that say GBK often use what only
GB 18030 holds, and files that say Big5 the characters of Hong Kong."""
_FREQUENT = frozenset(
    "的一是不了在人有我他这个们中来上大为和国地到以说时要就出会可也你对生能而子那得于着下自之年过发后作里用道行所然家种事成"
    "方多经么去法学如都同现当没动面起看定天分还进好小部其些主样理心她本前开但因只从想实日军者意无力它与长把机十民第公此已工"
    "使情明性知全三又关点正业外将两高间由问很最重并物手应战向头文体政美相见被利什二等产或新己制身果加西月话合回特代内信表化"
    "老给世位次度门任常先海通教儿原东声提立及比员解水名真论处走义各入几口认条平系气题活更别打女变四神总何电数安少报才结反受"
    "這個們來為國說時會對於後裡發過還無與長機動種經麼學現當沒進樣實軍從開關點業將兩間問體見產話給門東聲員論處義條係氣題變電"
)
"""More than half of the characters of running Chinese text are among these few hundred."""
_FREQUENT_KOREAN = frozenset("이다는에의가을를은한하고지로자기사도대인서리그시어나아들일게수정부해있과")
_MARKS = frozenset("，。、；：？！“”‘’（）《》「」『』【】…—·　")
_NO_TEXT = 0.35
"""Mean weight below which a reading is taken for noise."""
_TIE = 0.05
"""Difference of mean weights below which neither reading is the better one."""
_STRAY_SHARE = 0.01
"""Broken bytes, as a share of all that are not ASCII, with which a text still counts as UTF-8."""
_WIDE_SHARE = 0.9


def guess_encoding(head: bytes) -> str | None:
    """The encoding of a text from its first bytes, as a value for `data.encoding`; None if nothing fits.

    UTF-8 and UTF-16 are known by their form, the others by what the bytes read like in each.
    """
    for mark, name in _BYTE_ORDER_MARKS:
        if head.startswith(mark):
            return name
    wide = _wide(head) if b"\0" in head else None
    if wide or _decode(head, "utf-8") is not None:
        return wide or "utf-8"
    return next(iter(likely_encodings(head)), None)


def is_possible(head: bytes, encoding: str) -> bool:
    """Whether some bytes can be read in an encoding at all."""
    return _decode(head, encoding) is not None


def likely_encodings(head: bytes) -> list[str]:
    """The East Asian encodings in which some bytes read like text, the best first; only those as good as it."""
    scores = {name: _score(head, name) for name in CODECS}
    best = max(scores.values())
    names = sorted(scores, key=lambda name: -scores[name])
    return [name for name in names if scores[name] >= max(_NO_TEXT, best - _TIE)]


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


def _score(head: bytes, name: str) -> float:
    """How much the characters beyond ASCII look like running text when `head` is read as `name`, at most 1."""
    text = _decode(head, CODECS[name])
    counts = Counter(character for character in text or "" if character > "\x7f")
    total = sum(counts.values())
    return sum(_weight(character, name) * count for character, count in counts.items()) / total if total else 0.0


def _weight(character: str, name: str) -> float:
    """1 for what is frequent in the languages of an encoding, less for what is rare, below 0 for what no text has."""
    if character in _MARKS:
        return 1.0
    if "\u3041" <= character <= "\u30fe":
        return 0.9 if name in ("euc_jp", "shift_jis") else -0.5
    if "\uac00" <= character <= "\ud7a3":
        return 1.0 if character in _FREQUENT_KOREAN else 0.4
    if "\u4e00" <= character <= "\u9fff":
        if character in _FREQUENT:
            return 1.0
        return 0.5 if _is_common(character) else 0.2
    return 0.0 if "\uff01" <= character <= "\uff5e" or (character.isalpha() and character < "\u0250") else -0.5


def _is_common(character: str) -> bool:
    """Whether the first level of GB 2312 or of Big5 has it."""
    for codec, first, last in (("gb2312", 0xB0, 0xD7), ("big5", 0xA4, 0xC6)):
        encoded = character.encode(codec, "ignore")
        if encoded and first <= encoded[0] <= last:
            return True
    return False
