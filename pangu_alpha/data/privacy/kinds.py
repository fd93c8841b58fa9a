"""One entry for each kind of personal data: how it looks, what confirms it, and what stands in its place."""

from __future__ import annotations

import datetime
import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass

_ORDER_WORDS = re.compile(
    r"(订单|单号|编号|运单|流水|序列|条码|型号|货号|批号|ISBN|书号|发票|工单|学号|期号|代码|第)[^，。；\s]{0,6}[ \u3000]?$"
)
_VERSION_WORDS = re.compile(r"([vV]|版本|版本号|Version|version|[Rr]elease|第|章节|节|内核|固件)\s*[:：]?\s*$")
_ADDRESS_WORDS = re.compile(r"(?i)(ip|地址|主机|服务器|网关)[^，。；\n]{0,8}$")
_IDENTITY_WORDS = re.compile(r"(身份证|证件)[^，。；]{0,6}$")
_LIKE_IDENTITY = re.compile(r"[1-9]\d{5}(19|20)\d{2}(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])\d{4}")
_PROVINCES = frozenset(
    "11 12 13 14 15 21 22 23 31 32 33 34 35 36 37 41 42 43 44 45 46 50 51 52 53 54 61 62 63 64 65 71 81 82 83".split()
)
_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
_FILE_ENDINGS = frozenset("png jpg jpeg gif svg webp bmp css js html htm php txt pdf zip gz".split())


@dataclass(frozen=True)
class Kind:
    """One kind of personal data."""

    name: str
    """Name in recipes and reports."""
    mask: str
    """What stands in its place."""
    pattern: str
    """Regular expression; a group named as the kind is what is masked."""
    confirm: Callable[[str, str], bool]
    """Takes what was found and the 24 characters before it: whether it is what it looks like."""


def check_identity_number(number: str) -> bool:
    """Whether 18 characters are a resident identity number: region, date of birth, check digit (GB 11643-1999)."""
    if number[:2] not in _PROVINCES:
        return False
    try:
        born = datetime.date(int(number[6:10]), int(number[10:12]), int(number[12:14]))
    except ValueError:
        return False
    if not 1900 <= born.year <= datetime.date.max.year or born.year > 2100:
        return False
    total = sum(int(digit) * weight for digit, weight in zip(number[:17], _WEIGHTS, strict=True))
    return "10X98765432"[total % 11] == number[17].upper()


def check_card_number(digits: str) -> bool:
    """Whether digits fulfil the check of payment cards (Luhn, ISO/IEC 7812-1)."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (1 + place % 2)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def _mobile(found: str, before: str) -> bool:
    return _ORDER_WORDS.search(before) is None


def _identity(found: str, before: str) -> bool:
    return check_identity_number(found)


def _card(found: str, before: str) -> bool:
    digits = re.sub(r"[ -]", "", found)
    if _LIKE_IDENTITY.fullmatch(found) or _IDENTITY_WORDS.search(before):
        return False  # an identity number with a mistake
    return 16 <= len(digits) <= 19 and check_card_number(digits) and _ORDER_WORDS.search(before) is None


def _plate(found: str, before: str) -> bool:
    rest = re.sub(r"[·•\s-]", "", found)[2:]
    letters = sum(character.isalpha() for character in rest)
    if len(rest) == 6:  # new energy: a letter first or last (GA 36-2018)
        return letters <= 2 and (rest[0] in "ABCDEFGHJK" or rest[-1] in "ABCDEFGHJK")
    return letters <= 2


def _always(found: str, before: str) -> bool:
    return True


def _mail(found: str, before: str) -> bool:
    return found.rpartition(".")[2].lower() not in _FILE_ENDINGS


def _address(found: str, before: str) -> bool:
    try:
        address = ipaddress.ip_address(found)
    except ValueError:
        return False
    if not address.is_global or address.is_multicast:
        return False
    if address.version == 4:
        if _VERSION_WORDS.search(before):
            return False
        # 12.1.3.2 numbers a section more often than a machine.
        return max(address.packed) >= 32 or _ADDRESS_WORDS.search(before) is not None
    return True


_DIGIT_BEFORE = r"(?<![0-9A-Za-z])(?<![0-9]\.)(?<![0-9]-)"
_DIGIT_AFTER = r"(?![0-9A-Za-z])(?!\.[0-9])(?!-[0-9])"

KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind(
            "email", "〔邮箱〕",
            r"(?P<email>(?<![A-Za-z0-9._%+-])[A-Za-z0-9][A-Za-z0-9._%+-]{0,63}@(?:[A-Za-z0-9-]{1,63}\.){1,4}[A-Za-z]{2,10}(?![A-Za-z0-9@-]))",
            _mail,
        ),
        Kind(
            "identity_number", "〔身份证号〕",
            rf"(?P<identity_number>{_DIGIT_BEFORE}[1-9]\d{{5}}(?:19|20)\d{{2}}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])\d{{3}}[\dXx]{_DIGIT_AFTER})",
            _identity,
        ),
        Kind(
            "bank_card", "〔银行卡号〕",
            rf"(?P<bank_card>{_DIGIT_BEFORE}(?:62|4\d|5[1-5]|35|37)\d{{2}}(?:[ -]?\d{{4}}){{3}}(?:[ -]?\d{{1,3}})?{_DIGIT_AFTER})",
            _card,
        ),
        Kind(
            "mobile", "〔手机号〕",
            rf"(?P<mobile>(?:{_DIGIT_BEFORE}|(?<=86)|(?<=86-)|(?<=86 ))1(?:3\d|4[5-9]|5[0-35-9]|6[2567]|7[0-8]|8\d|9[0-35-9])(?:\d{{8}}|[- ]\d{{4}}[- ]\d{{4}}){_DIGIT_AFTER})",
            _mobile,
        ),
        Kind(
            "landline", "〔电话号码〕",
            rf"(?P<landline>{_DIGIT_BEFORE}(?:0(?:10|2[0-57-9]|[3-9]\d{{2}})[- ]|[（(]0(?:10|2[0-57-9]|[3-9]\d{{2}})[)）][- ]?)[2-8]\d{{6,7}}(?:(?:-|转)\d{{1,4}})?(?![0-9A-Za-z])(?!\.[0-9]))",
            _mobile,
        ),
        Kind(
            "plate", "〔车牌号〕",
            r"(?P<plate>[京津沪渝冀豫云辽黑湘皖鲁新苏浙赣鄂桂甘晋蒙陕吉闽贵粤青藏川宁琼][A-HJ-NP-Z][·• -]?[A-HJ-NP-Z0-9]{5,6}(?![A-Za-z0-9]))",
            _plate,
        ),
        Kind(
            "qq", "〔QQ号〕",
            r"(?:QQ|qq|Qq|扣扣|企鹅号)(?:号码|号|群|交流群)?\s{0,2}(?:[:：是为]\s{0,2}){0,2}(?P<qq>[1-9]\d{4,10}(?![0-9A-Za-z.]))",
            _always,
        ),
        Kind(
            "wechat", "〔微信号〕",
            r"(?:微信|威信|薇信|WeChat|wechat|weixin|VX|vx|V信)(?:号码|号|ID|id)?\s{0,2}(?:[:：是为]\s{0,2}){1,2}(?P<wechat>[A-Za-z][A-Za-z0-9_-]{5,19}(?![A-Za-z0-9_.-]))",
            _always,
        ),
        Kind(
            "passport", "〔护照号〕",
            r"护照(?:号码|号)?\s{0,2}(?:[:：是为]\s{0,2}){0,2}(?P<passport>(?:[EGDSPH]\d{8}|E[A-HJ-NP-Z]\d{7}|1[45]\d{7})(?![A-Za-z0-9]))",
            _always,
        ),
        Kind(
            "ip_address", "〔IP地址〕",
            r"(?P<ip_address>(?<![0-9A-Za-z.:])(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)(?![0-9A-Za-z])(?!\.[0-9])"
            r"|(?<![0-9A-Za-z:.])(?:[0-9A-Fa-f]{1,4}:){2,7}(?::?[0-9A-Fa-f]{1,4}){1,7}(?![0-9A-Za-z:]))",
            _address,
        ),
    )
}  # fmt: skip
"""By name.  Where several begin at one place, the first that is confirmed counts."""
