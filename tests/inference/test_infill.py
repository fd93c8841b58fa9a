"""Filled masks: what is fed and asked, which candidates come out, and how lengths are ranked."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from pangu_alpha.data.tokenizer import END_OF_TEXT, Tokenizer
from pangu_alpha.errors import UsageError
from pangu_alpha.inference.generator import NEVER_WRITTEN
from pangu_alpha.inference.infill import infill, parse_lengths
from pangu_alpha.inference.language_model import PanguAlpha


def log_softmax(row: np.ndarray) -> np.ndarray:
    row = row.astype(np.float64)
    return row - np.logaddexp.reduce(row)


def masked(model: PanguAlpha, text: str, repeat: int = 1) -> list[int | None]:
    first, *others = (model.tokenizer.encode(part) for part in text.split("[MASK]"))
    return list(itertools.chain(first, *([None] * repeat + part for part in others)))


def sequence_log_probability(model: PanguAlpha, ids: list[int | None], fill: tuple[int, ...]) -> tuple[float, float]:
    """log P(right | left), log P(fill | left, right), each by one forward over a whole order of entry.

    The orders are left, right; and right, left, fill.  Written from the definition, through `logits` alone.
    """
    holes = [position for position, token in enumerate(ids) if token is None]
    left = list(range(holes[0]))
    right = [position for position, token in enumerate(ids) if token is not None and position > holes[0]]
    value = {**dict(enumerate(ids)), **dict(zip(holes, fill, strict=True))}

    def score(order: list[int], first: int, banned: list[int]) -> float:
        tokens = [value[position] for position in order]
        logits = model.logits([tokens[:-1]], [order[:-1]], [[max(position - 1, 0) for position in order[1:]]])[0]
        logits[:, banned] = -np.inf
        return float(sum(log_softmax(logits[n - 1])[tokens[n]] for n in range(first, len(order))))

    never = [*NEVER_WRITTEN, END_OF_TEXT, *range(model.tokenizer.vocab_size, model.config.model.vocab_size)]
    return score(left + right, len(left), []), score(right + left + holes, len(left) + len(right), never)


def allowed(model: PanguAlpha) -> list[int]:
    return [i for i in range(model.tokenizer.vocab_size) if i not in (*NEVER_WRITTEN, END_OF_TEXT)]


@pytest.mark.parametrize("use_cache", [True, False])
def test_one_mask_is_exact(model: PanguAlpha, use_cache: bool) -> None:
    text = "今天是[MASK]好天气,我们去公园"
    ids = masked(model, text)
    scores = {token: sequence_log_probability(model, ids, (token,))[1] for token in allowed(model)}
    written = [token for token in scores if model.tokenizer.decode([token])]
    best = sorted(written, key=lambda token: -scores[token])[:5]
    found = model.infill(text, use_cache=use_cache)
    assert [filling.tokens for filling in found] == [(token,) for token in best]
    np.testing.assert_allclose([f.log_probability for f in found], [scores[t] for t in best], atol=1e-4)
    assert sum(np.exp(list(scores.values()))) == pytest.approx(1.0, abs=1e-4)
    assert found[0].text == f"今天是{model.tokenizer.decode(best[:1])}好天气,我们去公园"
    assert all(f.log_score == f.log_probability for f in found)


def test_the_right_side_is_used(model: PanguAlpha) -> None:
    fills = {model.infill(f"今天是[MASK]{right}")[0].log_probability for right in ("好天气", "学校", "", "。")}
    assert len(fills) == 4


def test_several_masks_are_filled_one_after_the_other(model: PanguAlpha) -> None:
    text = "今天[MASK]一个[MASK]天气"
    ids = masked(model, text)
    # All pairs, computed without the beam: each first token with each second one.
    found = infill(model.decoder(), model.tokenizer, text, number=3, width=len(allowed(model)) ** 2)
    for filling in found:
        assert filling.log_probability == pytest.approx(
            sequence_log_probability(model, ids, filling.tokens)[1], abs=1e-4
        )
        assert filling.text == f"今天{filling.fills[0]}一个{filling.fills[1]}天气"
        assert len(filling.fills) == filling.length == 2
    generator = np.random.default_rng(2)
    for _ in range(20):  # nothing that was not returned is better
        pair = tuple(int(token) for token in generator.choice(allowed(model), 2))
        assert sequence_log_probability(model, ids, pair)[1] <= found[0].log_probability + 1e-4


def test_masks_that_stand_together_are_one_fill(model: PanguAlpha) -> None:
    found = model.infill("今天是[MASK][MASK]天气", number=2)
    assert all(len(f.fills) == 1 and f.length == 2 for f in found)
    assert found[0].text == f"今天是{model.tokenizer.decode(found[0].tokens)}天气"


def test_a_mask_at_the_end_is_the_next_token(model: PanguAlpha) -> None:
    ids = model.tokenizer.encode("今天是")
    row = model.logits([ids])[0, -1]
    best = max((t for t in allowed(model) if model.tokenizer.decode([t])), key=lambda token: row[token])
    assert model.infill("今天是[MASK]")[0].tokens == (best,)


def test_lengths_are_ranked_by_bayes(model: PanguAlpha) -> None:
    text = "今天是[MASK]天气好"
    lengths = (1, 2, 3)
    found = model.infill(text, lengths, number=60)
    assert {filling.length for filling in found} == set(lengths)
    evidence = {n: sequence_log_probability(model, masked(model, text, n), (10,) * n)[0] for n in lengths}
    total = np.logaddexp.reduce(list(evidence.values()))
    for filling in found[::7]:
        _, fill = sequence_log_probability(model, masked(model, text, filling.length), filling.tokens)
        assert filling.log_probability == pytest.approx(fill, abs=2e-4)
        assert filling.length_log_probability == pytest.approx(evidence[filling.length] - total, abs=2e-4)
    scores = [filling.log_score for filling in found]
    assert scores == sorted(scores, reverse=True)
    by_length = {filling.length: np.exp(filling.length_log_probability) for filling in found}
    assert sum(by_length.values()) == pytest.approx(1.0)


def test_length_and_fill_probabilities_sum_to_one(model: PanguAlpha) -> None:
    everything = infill(model.decoder(), model.tokenizer, "今天是[MASK]天气", (1, 2), 10**6, 10**6)
    count, border = len(allowed(model)), model.tokenizer.encode("☃")[0]
    assert model.tokenizer.piece(border) == "▁"
    assert len(everything) == count + count**2 - 2  # all but the fills that hold no text
    total = sum(filling.probability for filling in everything)
    for length in (1, 2):
        same = next(filling for filling in everything if filling.length == length)
        _, fill = sequence_log_probability(model, masked(model, "今天是[MASK]天气", length), (border,) * length)
        total += np.exp(same.length_log_probability + fill)
    assert total == pytest.approx(1.0, abs=1e-5)


def test_a_long_text_keeps_what_is_around_the_mask(model: PanguAlpha, caplog: pytest.LogCaptureFixture) -> None:
    long = "今天是好天气," * 8
    found = model.infill(f"{long}[MASK]{long}", number=1)
    assert "nearest are used" in caplog.text
    assert found[0].text == long + found[0].fills[0] + long
    left, right = model.tokenizer.encode(long), model.tokenizer.encode(long)
    kept = [*left[-16:], None, *right[:15]]
    _, expected = sequence_log_probability(model, kept, found[0].tokens)
    assert found[0].log_probability == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("text", "lengths", "words"),
    [
        ("今天天气", (1,), "no [MASK]"),
        ("[MASK]天气", (1,), "begins with"),
        ("今天[MASK]天气", (0,), "at least 1"),
        ("今天[MASK]天气", (), "at least 1"),
        ("今[MASK]天[MASK]气", (1, 2), "one [MASK] only"),
        ("今[MASK]天[MASK]气", (2,), "one token"),
        ("今天[MASK]" + "天气好的时候," * 9 + "[MASK]", (1,), "bring them closer"),
    ],
)
def test_what_cannot_be_filled_is_one_line(model: PanguAlpha, text: str, lengths, words: str) -> None:
    with pytest.raises(UsageError) as error:
        model.infill(text, lengths)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_parse_lengths() -> None:
    assert parse_lengths("3") == (3,)
    assert parse_lengths("1..4") == (1, 2, 3, 4)
    for text in ("", "0", "4..1", "1-4", "1..40", "a"):
        with pytest.raises(UsageError, match=r"1\.\.4"):
            parse_lengths(text)


def test_without_query_layer_infilling_is_refused(tmp_path, tokenizer: Tokenizer, tiny) -> None:
    tiny.save(tmp_path / "plain", tiny.config(tokenizer, query_layer=False), tokenizer)
    with pytest.raises(UsageError, match="query layer"):
        PanguAlpha.load(tmp_path / "plain").infill("今天[MASK]天气")


def test_the_probability_of_each_length_is_told(model: PanguAlpha, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "pangu_alpha")
    text = "今天的[MASK]天气很好"
    found = model.infill(text, (1, 2, 2), number=60)
    assert len({(filling.length, filling.tokens) for filling in found}) == len(found)  # 2 is tried once
    evidence = [sequence_log_probability(model, masked(model, text, n), (10,) * n)[0] for n in (1, 2)]
    first = np.exp(evidence[0] - np.logaddexp(*evidence))
    shares = f"1: {first:.1%}, 2: {1 - first:.1%}"
    assert f"probability of each length, given both sides: {shares}" in caplog.text
    assert "all the same" not in caplog.text


def test_where_nothing_tells_the_length_that_is_said(model: PanguAlpha, caplog: pytest.LogCaptureFixture) -> None:
    # With one token in view attention has one weight, 1, whatever position is asked for.
    caplog.set_level("INFO", "pangu_alpha")
    words = map(model.tokenizer.decode, ([token] for token in allowed(model)))
    left, right = [word for word in words if word and len(model.tokenizer.encode(word)) == 1][:2]
    model.infill(f"{left}[MASK]{right}", (1, 2))
    assert "1: 50.0%, 2: 50.0% (all the same: with one known token on a side" in caplog.text
