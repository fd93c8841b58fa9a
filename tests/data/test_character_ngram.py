"""The 3-gram model against a slow computation with dictionaries and loops, written from the formulas alone."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable

import numpy as np
import pytest

from pangu_alpha.data.character_ngram import UNSEEN_CHARACTER, CharacterTrigram

START, END, UNSEEN = "<start>", "<end>", "<unseen>"


class SlowTrigram:
    def __init__(self, texts: list[str]) -> None:
        self.alphabet = {END, UNSEEN} | {character for text in texts for character in text}
        self.three: Counter[tuple[str, str, str]] = Counter()
        at_start: Counter[str] = Counter()
        for text in texts:
            symbols = [START, *text, END]
            at_start[symbols[1]] += 1
            for place in range(2, len(symbols)):
                self.three[symbols[place - 2], symbols[place - 1], symbols[place]] += 1
        before_pair = defaultdict(set)
        for a, b, c in self.three:
            before_pair[b, c].add(a)
        self.two = Counter({pair: len(before) for pair, before in before_pair.items()})
        for character, count in at_start.items():
            self.two[START, character] = count
        before_single = defaultdict(set)
        for b, c in self.two:
            before_single[c].add(b)
        self.one = Counter({c: len(before) for c, before in before_single.items()})
        self.discounts = [self.estimate(table.values()) for table in (self.one, self.two, self.three)]

    @staticmethod
    def estimate(values: Iterable[int]) -> list[float]:
        n = Counter(values)
        if not (n[1] and n[2] and n[3]):
            return [0.0, 0.5, 0.5, 0.5]
        y = n[1] / (n[1] + 2 * n[2])
        raw = [1 - 2 * y * n[2] / n[1], 2 - 3 * y * n[3] / n[2], 3 - 4 * y * n[4] / n[3]]
        return [0.0] + [min(max(value, 0.05), number - 0.05) for number, value in enumerate(raw, 1)]

    def smooth(self, table: dict, discounts: list[float], count: int, lower: float) -> float:
        total = sum(table.values())
        if not total:
            return lower
        kept = sum(discounts[min(value, 3)] for value in table.values())
        return (count - discounts[min(count, 3)]) / total + kept / total * lower

    def probability(self, context: list[str], character: str) -> float:
        """p(character | the last two of START and context)."""
        single = self.smooth(self.one, self.discounts[0], self.one.get(character, 0), 1 / len(self.alphabet))
        b = context[-1]
        after_b = {c: count for (first, c), count in self.two.items() if first == b}
        pair = self.smooth(after_b, self.discounts[1], after_b.get(character, 0), single)
        if b == START:
            return pair
        a = context[-2]
        after_ab = {c: count for (first, second, c), count in self.three.items() if (first, second) == (a, b)}
        return self.smooth(after_ab, self.discounts[2], after_ab.get(character, 0), pair)

    def bits(self, texts: list[str]) -> float:
        total = 0.0
        for text in texts:
            symbols = [START] + [c if c in self.alphabet else UNSEEN for c in text] + [END]
            for place in range(1, len(symbols)):
                total -= math.log2(self.probability(symbols[:place], symbols[place]))
        return total


def some_texts(count: int, seed: int) -> list[str]:
    """Texts with the uneven frequencies of a language, of all small lengths."""
    rng = np.random.default_rng(seed)
    characters = list("的一是在不了有和人这中大为上个国我以要他时来用们生到作地于出")
    weights = 1 / np.arange(1, len(characters) + 1)
    texts = []
    for _ in range(count):
        texts.append("".join(rng.choice(characters, rng.integers(0, 25), p=weights / weights.sum())))
    return texts


@pytest.fixture(scope="module")
def training() -> list[str]:
    return [*some_texts(150, 1), "", "的", "一是"]


def test_it_agrees_with_the_slow_computation(training: list[str]) -> None:
    held_out = [*some_texts(20, 2), "", "囧", "囧囧的", "的囧一是", "\n"]
    assert CharacterTrigram(training).bits(held_out) == pytest.approx(SlowTrigram(training).bits(held_out), rel=1e-12)
    single = ["的一是"]
    assert CharacterTrigram(single).bits(held_out) == pytest.approx(SlowTrigram(single).bits(held_out), rel=1e-12)


@pytest.mark.parametrize("context", ["", "的", "的一", "一是在", "囧", "的囧", "囧的"])
def test_probabilities_sum_to_one(training: list[str], context: str) -> None:
    fast, slow = CharacterTrigram(training).distribution(context), SlowTrigram(training)
    assert sum(fast.values()) == pytest.approx(1.0, abs=1e-12)
    assert min(fast.values()) > 0
    for character, share in fast.items():
        symbols = [START] + [c if c in slow.alphabet else UNSEEN for c in context]
        name = {"": END, UNSEEN_CHARACTER: UNSEEN}.get(character, character)
        assert share == pytest.approx(slow.probability(symbols, name), rel=1e-12)


def test_it_learns() -> None:
    texts = ["今天天气很好。"] * 50 + ["明天天气不好。"] * 50
    model = CharacterTrigram(texts)
    assert model.bits(["今天天气很好。"]) < 5
    assert model.bits(["好很气天天今。"]) > 20
    # Documents are told apart: two ends cost more than one text.
    assert model.bits(["今天天气很好。", "明天天气不好。"]) == pytest.approx(
        model.bits(["今天天气很好。"]) + model.bits(["明天天气不好。"])
    )


def test_small_texts() -> None:
    held_out = ["的", "", "一"]
    for texts in (["的"], [""], ["", "的"]):
        assert CharacterTrigram(texts).bits(held_out) == pytest.approx(SlowTrigram(texts).bits(held_out))
    with pytest.raises(ValueError, match="at least one"):
        CharacterTrigram([])
