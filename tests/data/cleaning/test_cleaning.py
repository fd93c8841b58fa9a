"""Cleaning rules: what each changes and drops, and that batches, order and odd texts change nothing of it."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pangu_alpha.data.document import SCHEMA, Document, to_batch
from pangu_alpha.data.rule import Outcome, Rule
from pangu_alpha.data.rules import RULES, build_rule
from pangu_alpha.errors import UsageError

SENTENCE = "去年秋天，老城区的居民在河边种下了一千多棵柳树，并且约定每户照看十棵。"
ALL = [name for name in RULES if name != "sensitive_words"]


def apply(rule: str, *texts: str, title: str = "", **given) -> Outcome:
    documents = [Document("网页", text, f"网页/a#{number:09d}", "", title) for number, text in enumerate(texts)]
    return build_rule(rule, given, "here").apply(to_batch(documents))


def kept(outcome: Outcome) -> list[str]:
    return outcome.kept["text"].to_pylist()


CHARACTERS = st.sampled_from(
    "字文的，。！？ \n\t１Ａａ　\u200b\ue000\x00\x1b[mé锟斤拷國體|>•首页登录0123456789-@.:QQ微信京A\ufffd😀"
)
TEXTS = st.one_of(st.text(max_size=200), st.text(CHARACTERS, max_size=200))


@pytest.mark.parametrize("name", ALL)
@given(
    texts=st.lists(TEXTS.filter(lambda text: not any("\ud800" <= c <= "\udfff" for c in text)), max_size=6),
    cut=st.integers(0, 6),
)
@settings(max_examples=60)
def test_any_text_is_taken_and_batches_do_not_matter(name: str, texts: list[str], cut: int) -> None:
    rule = build_rule(name, {}, "here")
    documents = [Document("甲", text, f"甲/a#{number:09d}") for number, text in enumerate(texts) if text]
    whole = rule.apply(to_batch(documents))
    assert isinstance(rule, Rule) and whole.kept.schema == SCHEMA and len(whole.values) == len(documents)
    assert whole.kept.num_rows + whole.dropped.num_rows == len(documents)
    assert all(whole.kept["text"].to_pylist())  # what is left of nothing is dropped
    parts = [rule.apply(to_batch(part)) for part in (documents[:cut], documents[cut:])]
    for field in ("kept", "dropped", "removed"):
        assert pa.concat_batches([getattr(part, field) for part in parts]).equals(getattr(whole, field)), field
    assert pa.concat_arrays([part.values for part in parts]).to_pylist() == pytest.approx(whole.values.to_pylist())


LINES = st.lists(
    st.sampled_from(
        ["首页", "1.1 甲", "1.2. 乙", "上一页: 目录", "当前位置：首页 > 新闻", SENTENCE, "短行", "包括：",
         "a | b | c", "", " ", "登录 注册", "加微信：abcdef，包邮", "13800138000", "Ａ１", "é\x80",
         "\x80", "\ufffd", "國體", "★★", "———————", "附录 甲"]
    ),
    min_size=1,
    max_size=12,
).map("\n".join)  # fmt: skip


@pytest.mark.parametrize("name", ALL)
@given(texts=st.lists(LINES.filter(bool), max_size=5))
@settings(max_examples=60)
def test_what_stands_in_other_documents_does_not_matter(name: str, texts: list[str]) -> None:
    rule = build_rule(name, {}, "here")
    documents = [Document("甲", text, f"甲/a#{number:09d}") for number, text in enumerate(texts)]
    whole = rule.apply(to_batch(documents))
    alone = [rule.apply(to_batch([document])) for document in documents]
    for field in ("kept", "dropped", "removed"):
        rows = [row for part in alone for row in getattr(part, field).to_pylist()]
        assert rows == getattr(whole, field).to_pylist(), field


@pytest.mark.parametrize(
    "name", ["normalise", "traditional_to_simplified", "special_symbols", "repeated_paragraphs", "personal_data"]
)
@given(text=TEXTS.filter(lambda text: bool(text) and not any("\ud800" <= c <= "\udfff" for c in text)))
@settings(max_examples=60)
def test_twice_is_once(name: str, text: str) -> None:
    rule = build_rule(name, {}, "here")
    once = rule.apply(to_batch([Document("甲", text, "甲/a#0")]))
    assert rule.apply(once.kept).kept["text"].to_pylist() == once.kept["text"].to_pylist()


def test_normalise() -> None:
    outcome = apply("normalise", " ＡＢ１２　你好\u200b  \t世界 \r\n\r\n\r\n\n 完\ue000。 ", "\u200b\x01")
    assert kept(outcome) == ["AB12 你好 世界\n\n完。"]
    assert outcome.dropped["id"].to_pylist() == ["网页/a#000000001"]
    assert kept(apply("normalise", "ＡＢ", width=False)) == ["ＡＢ"]


def test_a_traditional_page_is_converted_by_phrases_and_never_dropped() -> None:
    outcome = apply("traditional_to_simplified", "乾燥的頭髮，乾坤一發。", "这里没有。")
    assert kept(outcome) == ["干燥的头发，乾坤一发。", "这里没有。"]
    assert outcome.dropped.num_rows == 0 and outcome.values[0].as_py() > 0.3 and outcome.values[1].as_py() == 0


@pytest.mark.parametrize(
    "garbled",
    [
        "锟斤拷锟斤拷锟斤拷你好",
        SENTENCE.encode().decode("latin-1"),
        SENTENCE.encode().decode("gbk", "replace"),
        "\ufffd" * 5 + "你好世界",
    ],
)
def test_text_in_a_wrong_encoding_is_dropped(garbled: str) -> None:
    outcome = apply("mojibake", garbled, SENTENCE)
    assert kept(outcome) == [SENTENCE]
    assert outcome.dropped["rule"].to_pylist() == ["mojibake"]
    assert outcome.dropped["value"][0].as_py() > outcome.dropped["threshold"][0].as_py() == 0.05


def test_menus_go_and_headings_stay() -> None:
    page = [
        "首页",
        "新闻",
        "国内",
        "财经",
        "体育",
        "当前位置：首页 > 新闻",
        "柳树成行",
        SENTENCE,
        "上一页",
        "版权所有 © 2020 某网",
        "关于我们 | 联系我们 | 广告服务",
    ]
    outcome = apply("navigation", "\n".join(page))
    assert kept(outcome) == [f"柳树成行\n{SENTENCE}"]
    assert outcome.removed["piece"].to_pylist() == [*page[:6], *page[8:]]


def test_poems_are_no_menus() -> None:
    poem = "白日依山尽，\n黄河入海流。\n欲穷千里目，\n更上一层楼。"
    assert kept(apply("navigation", poem)) == [poem]


def test_advertisements() -> None:
    advertisement = "加微信：meili_2020，免费领取试用装，热销中"
    outcome = apply("advertisements", "\n".join([SENTENCE, advertisement, SENTENCE, SENTENCE]), advertisement, SENTENCE)
    assert kept(outcome) == ["\n".join([SENTENCE] * 3), SENTENCE]
    assert outcome.removed["piece"].to_pylist() == [advertisement]
    assert outcome.dropped.to_pylist()[0] | {"text": ""} == {
        "id": "网页/a#000000001", "source": "网页", "rule": "advertisements", "value": 1.0, "threshold": 0.3, "text": ""
    }  # fmt: skip


def test_special_symbols() -> None:
    outcome = apply(
        "special_symbols", f"★☆ {SENTENCE}\n━━━━━━━━\n• {SENTENCE}", "★★★★☆☆☆☆好", "\x1b[1;32m绿\x1b[0m色的字"
    )
    assert kept(outcome) == [f"{SENTENCE}\n\n{SENTENCE}", "绿色的字"]
    assert outcome.dropped["rule"].to_pylist() == ["special_symbols"]


def test_pages_of_a_title() -> None:
    outcome = apply("title_only", "柳树成行", f"柳树成行\n{SENTENCE}", "柳树成行\n第二行也短", title="柳树成行")
    assert kept(outcome) == [f"柳树成行\n{SENTENCE}"]


def test_shares_and_lengths_at_their_thresholds() -> None:
    assert kept(apply("chinese_share", "字字字abcd", "字字字abc", "字字字 ab", least=0.5)) == ["字字字abc", "字字字 ab"]
    assert kept(apply("length", "字" * 149, "字" * 150)) == ["字" * 150]


def test_repeated_paragraphs() -> None:
    outcome = apply("repeated_paragraphs", f"{SENTENCE}\n是\n{SENTENCE}\n是", f"{SENTENCE}")
    assert kept(outcome) == [f"{SENTENCE}\n是\n是", SENTENCE]
    assert outcome.removed["piece"].to_pylist() == [SENTENCE]


@pytest.mark.parametrize(
    ("name", "given_settings", "complaint"),
    [
        ("chinese_shar", {}, "there is no rule 'chinese_shar'; nearest: chinese_share; allowed: traditional"),
        ("chinese_share", {"lest": 1}, "rule chinese_share has no setting 'lest'; allowed: least, and sources"),
        ("chinese_share", {"least": 1.5}, "chinese_share.least is 1.5; it must lie in"),
        ("chinese_share", {"least": "much"}, "chinese_share.least is 'much'; allowed: a number"),
        ("length", {"least": True}, "length.least is True; allowed: a whole number"),
        ("personal_data", {"kinds": ["phone"]}, "personal_data.kinds is 'phone'; allowed: email, identity"),
        ("sensitive_words", {}, "sensitive_words.words is ''; name a file"),
        ("sensitive_words", {"words": "/no/such"}, "sensitive_words.words: /no/such cannot be read"),
    ],
)  # fmt: skip
def test_settings_that_cannot_be(name: str, given_settings: dict, complaint: str) -> None:
    with pytest.raises(UsageError) as caught:
        build_rule(name, given_settings, "recipe.yaml:7")
    line = str(caught.value)
    assert complaint in line and "\n" not in line
