"""Personal data made up, and things that look like it, for measuring the detector; it shares no code with it."""

from __future__ import annotations

import random
import string

_FILLER = [
    "请注意，",
    "据介绍，",
    "客户说：",
    "记录显示",
    "昨天收到的材料里写着",
    "大家知道，",
    "后来得知，",
    "登记表上是",
]
_AFTER = ["，请尽快处理。", "，谢谢。", "。", "，已经核对过。", "；其余不变。", "\n"]


def _digits(draw: random.Random, count: int) -> str:
    return "".join(draw.choice(string.digits) for _ in range(count))


def _identity(draw: random.Random, valid: bool = True) -> str:
    region = draw.choice(["110105", "310104", "440305", "510107", "330106", "420111"])
    number = (
        f"{region}{draw.randrange(1940, 2010)}{draw.randrange(1, 13):02d}{draw.randrange(1, 29):02d}{_digits(draw, 3)}"
    )
    # ISO 7064 MOD 11-2, computed from the right: sum of a_i * 2^(i-1) must leave 1.
    for check in "0123456789X":
        values = [10 if digit == "X" else int(digit) for digit in number + check]
        fits = sum(value * pow(2, 17 - place, 11) for place, value in enumerate(values)) % 11 == 1
        if fits == valid:
            return number + check
    raise AssertionError


def _luhn(body: str) -> str:
    for check in string.digits:
        total = 0
        for place, digit in enumerate(map(int, reversed(body + check))):
            total += digit if place % 2 == 0 else sum(map(int, str(2 * digit)))
        if total % 10 == 0:
            return body + check
    raise AssertionError


def true_one(draw: random.Random) -> tuple[str, str, str]:
    """Kind, text around it with {} in its place, and the piece of personal data."""
    kind = draw.choice(
        [
            "mobile",
            "landline",
            "identity_number",
            "bank_card",
            "plate",
            "qq",
            "wechat",
            "passport",
            "email",
            "ip_address",
        ]
    )
    if kind == "mobile":
        number = draw.choice(["138", "159", "186", "177", "199", "135"]) + _digits(draw, 8)
        written = draw.choice(
            [number, f"{number[:3]}-{number[3:7]}-{number[7:]}", f"{number[:3]} {number[3:7]} {number[7:]}"]
        )
        return kind, draw.choice(["电话{}", "手机：{}", "联系人王先生 {}", "请拨打{}", "+86 {}"]), written
    if kind == "landline":
        written = f"{draw.choice(['010', '021', '0755', '0571'])}-{draw.randrange(2, 9)}{_digits(draw, 7)}"
        return kind, draw.choice(["座机{}", "办公室电话：{}", "传真 {}"]), written
    if kind == "identity_number":
        return kind, draw.choice(["身份证号{}", "证件号码：{}", "本人{}", "身份证 {}"]), _identity(draw)
    if kind == "bank_card":
        card = _luhn("62" + _digits(draw, draw.choice([13, 16])))
        written = draw.choice([card, " ".join(card[place : place + 4] for place in range(0, len(card), 4))])
        return kind, draw.choice(["卡号{}", "请汇到{}", "银行账户：{}"]), written
    if kind == "plate":
        letters = draw.choice("ABCDEFG") + _digits(draw, 4) if draw.random() < 0.5 else _digits(draw, 5)
        return (
            kind,
            draw.choice(["车牌{}", "一辆{}的轿车", "停着{}"]),
            f"{draw.choice('京沪粤浙川')}{draw.choice('ABCDEF')}{draw.choice(['', '·'])}{letters}",
        )
    if kind == "qq":
        return (
            kind,
            draw.choice(["QQ{}", "QQ：{}", "qq号: {}", "QQ群{}"]),
            str(draw.randrange(1, 9)) + _digits(draw, draw.randrange(5, 10)),
        )
    if kind == "wechat":
        name = draw.choice(string.ascii_lowercase) + "".join(
            draw.choice(string.ascii_lowercase + string.digits + "_") for _ in range(8)
        )
        return kind, draw.choice(["微信：{}", "微信号:{}", "VX: {}", "WeChat：{}"]), name
    if kind == "passport":
        return kind, draw.choice(["护照{}", "护照号：{}", "护照号码 {}"]), draw.choice("EGDS") + _digits(draw, 8)
    if kind == "email":
        name = "".join(draw.choice(string.ascii_lowercase) for _ in range(6))
        return (
            kind,
            draw.choice(["邮箱{}", "请寄 {} 索取", "（{}）"]),
            f"{name}{draw.randrange(99)}@{draw.choice(['qq.com', '163.com', 'mail.bj.cn'])}",
        )
    address = (
        f"{draw.choice([114, 58, 123, 202, 218])}.{draw.randrange(256)}.{draw.randrange(256)}.{draw.randrange(1, 255)}"
    )
    return kind, draw.choice(["来自{}的访问", "IP：{}", "服务器 {} 上"]), address


def look_alike(draw: random.Random) -> str:
    """Something that is no personal data and looks like it."""
    kinds = [
        lambda: f"订单号{draw.choice(['13', '15', '18'])}{_digits(draw, 9)}",
        lambda: f"订单编号：{_digits(draw, 18)}",
        lambda: f"运单号 {draw.choice(['138', '159'])}{_digits(draw, 8)}",
        lambda: f"ISBN 978-7-{_digits(draw, 3)}-{_digits(draw, 5)}-{draw.randrange(10)}",
        lambda: f"ISBN：9787{_digits(draw, 9)}",
        lambda: (
            f"{draw.randrange(1990, 2025)}-{draw.randrange(1, 13):02d}-{draw.randrange(1, 29):02d} {draw.randrange(24):02d}:{draw.randrange(60):02d}:{draw.randrange(60):02d}"
        ),
        lambda: f"{draw.randrange(1990, 2025)}{draw.randrange(1, 13):02d}{draw.randrange(1, 29):02d}{_digits(draw, 6)}",
        lambda: f"第{_digits(draw, 11)}次",
        lambda: f"圆周率3.14159265358979{_digits(draw, 4)}",
        lambda: f"价格{_digits(draw, 5)}.{_digits(draw, 2)}元",
        lambda: f"版本{draw.randrange(9)}.{draw.randrange(20)}.{draw.randrange(99)}.{draw.randrange(255)}",
        lambda: f"内网192.168.{draw.randrange(256)}.{draw.randrange(1, 255)}",
        lambda: f"第{draw.randrange(1, 20)}.{draw.randrange(1, 9)}.{draw.randrange(1, 9)}.{draw.randrange(1, 9)}节",
        lambda: f"证件号{_identity(draw, valid=False)}",
        lambda: f"统一社会信用代码91{_digits(draw, 6)}MA{_digits(draw, 7)}X",
        lambda: f"型号E{_digits(draw, 8)}",
        lambda: f"人口{_digits(draw, 10)}人",
        lambda: f"logo_{_digits(draw, 3)}@2x.png",
        lambda: f"比例{_digits(draw, 3)}:{_digits(draw, 3)}:{_digits(draw, 2)}",
        lambda: f"京{_digits(draw, 2)}号线",
        lambda: "微信支付和QQ音乐都更新了",
        lambda: f"邮编{draw.randrange(1, 9)}{_digits(draw, 5)}",
        lambda: f"条码69{_digits(draw, 11)}",
        lambda: f"坐标116.{_digits(draw, 6)},39.{_digits(draw, 6)}",
        lambda: f"流水号{_digits(draw, 16)}",
    ]
    return draw.choice(kinds)()


def sentence(draw: random.Random, piece: str) -> str:
    """The piece inside some text."""
    return draw.choice(_FILLER) + piece + draw.choice(_AFTER)
