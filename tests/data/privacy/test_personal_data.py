"""Personal data: how much of it is found, how much that is found is it, and what happens to documents."""

from __future__ import annotations

import random

import pytest

from pangu_alpha.data.document import Document, to_batch
from pangu_alpha.data.privacy.kinds import check_card_number, check_identity_number
from pangu_alpha.data.privacy.personal_data import PersonalData, find_personal_data
from tests.data.privacy.made_up_people import look_alike, sentence, true_one


def measure(count: int) -> tuple[float, float, dict[str, float], list[str]]:
    """Precision, recall, recall by kind, and false findings, on `count` true ones and as many look-alikes."""
    draw = random.Random(20210426)
    found_right = found_wrong = 0
    kinds: dict[str, list[int]] = {}
    wrong = []
    for _ in range(count):
        kind, around, piece = true_one(draw)
        text = sentence(draw, around.format(piece))
        begin = text.index(piece)
        findings = list(find_personal_data(text))
        hit = any((f.kind, f.start, f.stop) == (kind, begin, begin + len(piece)) for f in findings)
        kinds.setdefault(kind, []).append(hit)
        found_right += hit
        found_wrong += len(findings) - hit
        wrong += [text for _ in findings if not hit]
        text = sentence(draw, look_alike(draw))
        mistakes = list(find_personal_data(text))
        found_wrong += len(mistakes)
        wrong += [f"{text} -> {mistake}" for mistake in mistakes]
    precision = found_right / (found_right + found_wrong)
    return precision, found_right / count, {kind: sum(hits) / len(hits) for kind, hits in kinds.items()}, wrong


def test_precision_and_recall_among_look_alikes() -> None:
    precision, recall, kinds, wrong = measure(4000)
    print(f"precision {precision:.4f}, recall {recall:.4f}, by kind {kinds}")
    assert precision >= 0.98, wrong[:10]
    assert recall >= 0.95, kinds
    assert min(kinds.values()) >= 0.9, kinds


def test_check_digits() -> None:
    assert check_identity_number("11010519491231002X") and not check_identity_number("110105194912310021")
    assert not check_identity_number("990105194912310028") and not check_identity_number("11010519491331002X")
    assert check_card_number("4111111111111111") and not check_card_number("4111111111111112")


def test_masking_and_dropping() -> None:
    texts = ["电话13812345678，邮箱li@163.com。", "没有。"]
    batch = to_batch([Document("甲", text, f"甲/a#{number}") for number, text in enumerate(texts)])
    outcome = PersonalData().apply(batch)
    assert outcome.kept["text"].to_pylist() == ["电话〔手机号〕，邮箱〔邮箱〕。", "没有。"]
    assert outcome.removed["piece"].to_pylist() == ["mobile: 13812345678", "email: li@163.com"]
    assert outcome.values.to_pylist() == [2, 0]
    assert PersonalData(kinds=("email",)).apply(batch).values.to_pylist() == [1, 0]
    dropped = PersonalData(action="drop", most=1).apply(batch)
    assert dropped.kept["text"].to_pylist() == ["没有。"] and dropped.dropped["value"].to_pylist() == [2]


@pytest.mark.parametrize(
    "text", ["订单号13812345678", "12.1.1.1. RAID", "版本8.8.4.4", "地址192.168.1.1", "logo@2x.png", "微信支付"]
)
def test_what_is_none(text: str) -> None:
    assert not list(find_personal_data(text))
