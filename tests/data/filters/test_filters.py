"""Filters: repetition against a plain count, and words of a list."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pangu_alpha.data.document import Document, to_batch
from pangu_alpha.data.filters.repetition import _DUPLICATES, _MOST_FREQUENT, Repetition
from pangu_alpha.data.filters.sensitive_words import SensitiveWords
from pangu_alpha.errors import UsageError


def batch_of(*texts: str):
    return to_batch([Document("甲", text, f"甲/a#{number:09d}") for number, text in enumerate(texts)])


def worst_quotient(text: str, scale: float) -> float:
    """The same as the rule, counted one by one."""
    lines = [line for line in text.split("\n") if line]
    again = sum(line in lines[:number] for number, line in enumerate(lines))
    worst = again / max(1, len(lines)) / 0.287
    plain = "".join(character for character in text if character > " " and character not in "\u3000\xa0")
    for size, threshold in _MOST_FREQUENT.items():
        grams = Counter(plain[place : place + size] for place in range(len(plain) - size + 1))
        top = max(grams.values(), default=0)
        if top > 1:
            worst = max(worst, top * size / len(plain) / threshold)
    for size, threshold in _DUPLICATES.items():
        seen, covered = set(), set()
        for place in range(len(plain) - size + 1):
            gram = plain[place : place + size]
            if gram in seen:
                covered.update(range(place, place + size))
            seen.add(gram)
        worst = max(worst, len(covered) / max(1, len(plain)) / (threshold * scale))
    return worst


@given(st.lists(st.text("甲乙丙 \n", max_size=60).filter(bool), min_size=1, max_size=4))
def test_repetition_is_what_counting_finds(texts: list[str]) -> None:
    values = Repetition(scale=1.5).apply(batch_of(*texts)).values.to_pylist()
    for text, value in zip(texts, values, strict=True):
        expected = worst_quotient(text, 1.5)
        # Once it is clear which side of the threshold a text is on, lower quotients need not be found.
        assert (value > 1) == (expected > 1)
        assert value <= expected + 1e-9


def test_a_document_that_repeats_itself_is_dropped() -> None:
    fine = "去年秋天，老城区的居民在河边种下了一千多棵柳树，并且约定每户照看十棵。今年春天，柳树发了芽。"
    outcome = Repetition().apply(batch_of(fine, "好评好评好评好评好评好评好评", "同一行\n同一行\n同一行"))
    assert outcome.kept["text"].to_pylist() == [fine]
    assert outcome.dropped["threshold"].to_pylist() == [1.0, 1.0]


def test_words_of_a_list(tmp_path: Path) -> None:
    words = tmp_path / "words.txt"
    words.write_text("赌场\n毒品\n\n赌\n", encoding="utf-8")
    rule = SensitiveWords(str(words))
    outcome = rule.apply(batch_of("赌场和毒品", "赌赌赌", "赌赌赌赌", "没有"))
    assert outcome.values.to_pylist() == [3, 3, 4, 0]  # 赌场 holds 赌, too
    assert outcome.dropped["text"].to_pylist() == ["赌赌赌赌"]
    empty = tmp_path / "empty.txt"
    empty.write_text("\n", encoding="utf-8")
    with pytest.raises(UsageError, match="holds no word; give one a line"):
        SensitiveWords(str(empty))
