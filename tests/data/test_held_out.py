from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pangu_alpha.data.held_out import essence, first_occurrences, is_held_out, packing_key


@pytest.mark.parametrize("share", [0.02, 0.1, 0.5])
def test_the_share_is_honoured(share: float) -> None:
    count = 20_000
    held_out = sum(is_held_out(f"第{number}篇文章", share) for number in range(count))
    assert abs(held_out / count - share) < 5 * (share * (1 - share) / count) ** 0.5


def test_the_edges_of_the_share() -> None:
    assert not any(is_held_out(str(number), 0.0) for number in range(1000))


@given(st.text(min_size=1), st.floats(0, 0.99))
def test_the_same_text_lands_on_the_same_side(text: str, share: float) -> None:
    side = is_held_out(text, share)
    assert is_held_out(text, share) == side
    assert is_held_out(text, min(0.999, share + 0.01)) or not side
    if essence(text) != text:
        assert is_held_out(f"  {text}\n", share) == side


def test_width_case_spaces_and_punctuation_do_not_matter() -> None:
    assert essence("今天是１月 Ａ日。") == essence("今天,是1月a日")
    assert essence("……") != essence("。") != ""
    assert essence("今天") != essence("明天")


def test_only_the_first_of_the_same_texts_counts() -> None:
    assert first_occurrences(["好书。", "好书", "坏书", " 好 书！", "坏书？"]) == [True, False, True, False, False]


def test_packing_mixes_and_forgets_the_order_of_reading() -> None:
    texts = [f"新闻{number}" for number in range(200)] + [f"评论{number}" for number in range(200)]
    packed = sorted(texts, key=packing_key)
    shuffled = texts.copy()
    random.Random(1).shuffle(shuffled)
    assert sorted(shuffled, key=packing_key) == packed
    news_in_first_half = sum(text.startswith("新闻") for text in packed[:200])
    assert 70 < news_in_first_half < 130


def test_the_sides_never_change() -> None:
    """Frozen: another version of this project holds the same documents out."""
    assert [number for number in range(100) if is_held_out(f"文{number}", 0.05)] == [13, 72, 78]
