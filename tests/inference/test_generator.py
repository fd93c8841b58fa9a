"""Generated tokens, the positions behind them, and the text that streams out."""

from __future__ import annotations

import numpy as np
import pytest

from pangu_alpha.data.tokenizer import END_OF_TEXT, Tokenizer
from pangu_alpha.errors import UsageError
from pangu_alpha.inference.generator import (
    NEVER_WRITTEN,
    GenerationOptions,
    TextStream,
    TokenStream,
    allowed_log_probabilities,
    kept_of_prompt,
)
from pangu_alpha.inference.language_model import PanguAlpha
from pangu_alpha.inference.sampling import Sampling

GREEDY = Sampling(0.0)


class ScriptedDecoder:
    """Wants the tokens of a script, one after the other, and writes down what it was fed."""

    def __init__(self, script: list[int], capacity: int = 8, vocab_size: int = 200) -> None:
        self.script, self.capacity, self.vocab_size = script, capacity, vocab_size
        self.length = 0
        self.calls: list[tuple[list[int], list[int], int]] = []
        self.asked = 0

    def feed(self, tokens, positions, query_position):
        self.calls.append((list(tokens), list(positions), query_position))
        self.length += len(tokens)
        assert self.length <= self.capacity
        logits = np.zeros(self.vocab_size, np.float32)
        logits[self.script[self.asked % len(self.script)]] = 50.0
        self.asked += 1
        return logits

    def rewind(self, length):
        assert length <= self.length
        self.length = length


def run(decoder, prompt, **options) -> TokenStream:
    stream = TokenStream(decoder, prompt, 200, GenerationOptions(sampling=GREEDY, **options))
    list(stream)
    return stream


def test_every_token_has_its_own_position_and_asks_with_it() -> None:
    decoder = ScriptedDecoder([50, 51, 52, 53])
    stream = run(decoder, [20, 21, 22], max_new_tokens=4)
    assert stream.tokens == [50, 51, 52, 53]
    assert decoder.calls == [([20, 21, 22], [0, 1, 2], 2), ([50], [3], 3), ([51], [4], 4), ([52], [5], 5)]
    assert stream.finish_reason == "length"


def test_the_end_token_ends_and_is_not_given() -> None:
    stream = run(ScriptedDecoder([50, END_OF_TEXT, 51]), [20], max_new_tokens=6)
    assert (stream.tokens, stream.finish_reason) == ([50], "stop")


def test_a_full_cache_keeps_its_last_half_at_positions_from_zero() -> None:
    decoder = ScriptedDecoder([50, 51, 52, 53, 54, 55, 56], capacity=8)
    stream = run(decoder, [20, 21, 22, 23, 24, 25], max_new_tokens=5)
    assert stream.tokens == [50, 51, 52, 53, 54]
    # Eight fit: six of the prompt and two new ones.  The third new one is asked for by the last of the eight.
    assert decoder.calls[1:3] == [([50], [6], 6), ([51], [7], 7)]
    assert decoder.calls[3] == ([25, 50, 51, 52], [0, 1, 2, 3], 3)
    assert decoder.calls[4] == ([53], [4], 4)


def test_a_long_prompt_keeps_its_end(caplog: pytest.LogCaptureFixture) -> None:
    decoder = ScriptedDecoder([50], capacity=8)
    run(decoder, list(range(20, 32)), max_new_tokens=3)
    assert decoder.calls[0] == ([27, 28, 29, 30, 31], [0, 1, 2, 3, 4], 4)
    assert "12 tokens; the last 5 are used" in caplog.text


@pytest.mark.parametrize(("length", "new", "kept"), [(8, 100, 8), (9, 1, 7), (9, 3, 5), (9, 100, 4), (3, 100, 3)])
def test_kept_of_prompt(length: int, new: int, kept: int) -> None:
    assert kept_of_prompt(length, 8, new) == kept


def test_an_empty_prompt_asks_as_training_does_at_a_border() -> None:
    decoder = ScriptedDecoder([50, 51, 52])
    stream = run(decoder, [], max_new_tokens=3)
    assert stream.tokens == [50, 51, 52]
    # The end token of another document asks at its own position; the new document then begins at position 0.
    assert decoder.calls == [([END_OF_TEXT], [0], 0), ([50], [0], 0), ([51], [1], 1)]


def test_control_tokens_and_padding_rows_are_never_written() -> None:
    logits = np.zeros(12, np.float32)
    logits[list(NEVER_WRITTEN)] = 80.0
    logits[11] = 90.0
    allowed = allowed_log_probabilities(logits, vocab_size=11)
    assert np.flatnonzero(np.isfinite(allowed)).tolist() == [3, 4, 9, 10]
    assert np.exp(allowed).sum() == pytest.approx(1.0)


@pytest.mark.parametrize("options", [{"max_new_tokens": 0}, {"stop": ("",)}])
def test_impossible_options_are_refused(options) -> None:
    with pytest.raises(UsageError):
        GenerationOptions(**options)


def stream_of(tokenizer: Tokenizer, text: str, stop: tuple[str, ...], limit: int = 50) -> TextStream:
    script = [*tokenizer.encode(text), END_OF_TEXT]
    decoder = ScriptedDecoder(script, capacity=64)
    options = GenerationOptions(limit, GREEDY, 0, stop)
    return TextStream(TokenStream(decoder, [20], 200, options), tokenizer, stop)


@pytest.mark.parametrize(
    ("stop", "expected"),
    [
        ((), "今天是一个好天气"),
        (("好",), "今天是一个"),
        (("个好天",), "今天是一"),
        (("没有",), "今天是一个好天气"),
        (("天气啊",), "今天是一个好天气"),  # begins like the text's end, and the text ends
        (("天气", "一个"), "今天是"),
        (("今",), ""),
    ],
)
def test_stop_texts(tokenizer: Tokenizer, stop: tuple[str, ...], expected: str) -> None:
    stream = stream_of(tokenizer, "今天是一个好天气", stop)
    pieces = list(stream)
    assert "".join(pieces) == expected
    assert all(pieces)
    assert stream.finish_reason == "stop"


def test_a_stop_text_across_pieces_never_shows(tokenizer: Tokenizer) -> None:
    shown = ""
    for piece in stream_of(tokenizer, "北京是一个大城市", ("一个大",)):
        shown += piece
        assert "一" not in shown
    assert shown == "北京是"


def test_text_cut_by_length_is_whole(tokenizer: Tokenizer) -> None:
    stream = stream_of(tokenizer, "今天是一个好天气", ("好天气呀",), limit=3)
    text = "".join(stream)
    assert text == tokenizer.decode(stream.tokens)
    assert stream.finish_reason == "length"
    assert len(stream.log_probabilities) == len(stream.tokens) == 3


def greedy_by_full_forward(model: PanguAlpha, ids: list[int], count: int) -> list[int]:
    """Nothing of the generator: the whole text through `logits` for every token."""
    ids, written = list(ids), []
    for _ in range(count):
        row = model.logits([ids])[0, -1].copy()
        row[[0, 1, 2, 5, 6, 7, 8]] = -np.inf
        row[model.tokenizer.vocab_size :] = -np.inf
        token = int(row.argmax())
        if token == END_OF_TEXT:
            break
        written.append(token)
        ids.append(token)
    return written


def test_cached_greedy_text_is_that_of_repeated_full_forwards(model: PanguAlpha) -> None:
    prompts = ["今天", "中国的首都是", "天气好的时候,"]
    lengths = []
    for prompt in prompts:
        ids = model.tokenizer.encode(prompt)
        expected = greedy_by_full_forward(model, ids, 32 - len(ids))
        stream = model.stream(prompt, max_new_tokens=32 - len(ids), temperature=0)
        list(stream)
        assert stream.tokens == expected
        lengths.append(len(expected))
    assert sum(lengths) > 20  # not all of them ended at once


def test_query_position_zero_would_be_seen(model: PanguAlpha) -> None:
    """Trap 7: the released decoder asks at position 0 for every token after the first."""
    ids = model.tokenizer.encode("今天是一个好天气")
    decoder = model.decoder()
    right, wrong = [], []
    for asked, result in ((None, right), (0, wrong)):
        decoder.rewind(0)
        for position, token in enumerate(ids):
            result.append(decoder.feed([token], [position], position if asked is None else asked))
    np.testing.assert_allclose(right, model.logits([ids])[0], atol=1e-4)
    assert np.abs(np.array(right[1:]) - np.array(wrong[1:])).max() > 0.1


def test_same_seed_same_text_with_and_without_cache(model: PanguAlpha) -> None:
    arguments = {"max_new_tokens": 40, "temperature": 1.0, "top_p": 0.95}  # beyond the context of 32
    first = model.generate("今天", seed=11, **arguments)
    assert first == model.generate("今天", seed=11, **arguments)
    assert first == model.generate("今天", seed=11, use_cache=False, **arguments)
    others = {model.generate("今天", seed=seed, **arguments) for seed in range(4)}
    assert len(others) > 1


def test_the_seed_that_was_drawn_gives_the_text_again(model: PanguAlpha) -> None:
    stream = model.stream("今天", max_new_tokens=12, temperature=1.0)
    text = "".join(stream)
    assert model.generate("今天", max_new_tokens=12, temperature=1.0, seed=stream.seed) == text
