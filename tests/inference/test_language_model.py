"""The Python interface: arrays in and out, scores, and one line for whatever is wrong."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from mindspore import Tensor

from pangu_alpha.config import Config, DataConfig, ModelConfig
from pangu_alpha.data.tokenizer import END_OF_TEXT
from pangu_alpha.errors import PanguError, UsageError
from pangu_alpha.inference.language_model import PanguAlpha, score_windows

IDS = [[20, 31, 45, 12, 50], [11, 12, 13, 14, 15], [49, 3, 4, 13, 40]]


def test_defaults_are_the_sequential_order(model: PanguAlpha) -> None:
    steps = np.tile(np.arange(5), (3, 1))
    logits = model.logits(IDS)
    assert logits.shape == (3, 5, model.config.model.vocab_size)
    assert logits.dtype == np.float32
    np.testing.assert_array_equal(logits, model.logits(np.array(IDS), steps, steps, np.zeros((3, 5), np.int64)))


def test_a_batch_is_its_samples_and_a_sequence_its_beginning(model: PanguAlpha) -> None:
    logits = model.logits(IDS)
    np.testing.assert_allclose(logits[1], model.logits(IDS[1:2])[0], atol=1e-5)
    np.testing.assert_allclose(logits[:, :2], model.logits([row[:2] for row in IDS]), atol=1e-5)
    many = model.logits(IDS * 4)  # more than one call computes
    np.testing.assert_allclose(many[9:], logits, atol=1e-5)


def test_order_of_entry_positions_and_segments_act(model: PanguAlpha) -> None:
    plain = model.logits(IDS)
    positions = np.array([[0, 2, 1, 4, 3]] * 3)
    asked = np.array([[1, 0, 3, 2, 4]] * 3)
    permuted = model.logits(IDS, positions, asked)
    np.testing.assert_allclose(permuted[:, 0], model.logits(IDS, None, [[1, 1, 2, 3, 4]] * 3)[:, 0], atol=1e-5)
    assert np.abs(permuted[:, 1:] - plain[:, 1:]).min(axis=(0, 1)).max() > 0
    # None asks for the token after each one.
    np.testing.assert_array_equal(model.logits(IDS, positions), model.logits(IDS, positions, positions))
    # A second document sees nothing of the first.
    segments = [[0, 0, 1, 1, 1]]
    whole = model.logits(IDS[:1], [[0, 1, 0, 1, 2]], None, segments)[0, 2:]
    np.testing.assert_allclose(whole, model.logits([IDS[0][2:]])[0], atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (([20, 21],), "[batch, seq]"),
        (([[20, 21], [20]],), "different lengths"),
        (([[20.5]],), "integers"),
        (([[]],), "at least one"),
        (([[20, -1]],), "tokens holds -1"),
        (([[20, 10**6]],), "tokens holds 1000000"),
        (([[20] * 33],), "at most 32"),
        (([[20, 21]], [[0, 32]]), "positions holds 32; it must lie in 0 to 31"),
        (([[20, 21]], [[0]]), "positions has shape [1, 1]"),
        (([[20, 21]], None, [[-1, 0]]), "query_positions holds -1"),
        (([[20, 21]], None, None, [[0, -1]]), "segments holds -1"),
    ],
)
def test_wrong_arrays_are_one_line(model: PanguAlpha, arguments, words: str) -> None:
    with pytest.raises(UsageError) as error:
        model.logits(*arguments)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def log_softmax(row: np.ndarray) -> np.ndarray:
    row = row.astype(np.float64)
    return row - np.logaddexp.reduce(row, axis=-1, keepdims=True)


def test_score_of_a_short_text(model: PanguAlpha) -> None:
    text = "今天是一个好天气。"
    ids = model.tokenizer.encode(text)
    first = log_softmax(model.logits([[END_OF_TEXT]])[0, 0])[ids[0]]
    others = log_softmax(model.logits([ids])[0])
    expected = first + sum(others[n, token] for n, token in enumerate(ids[1:]))
    score = model.score(text)
    assert score.log_probability == pytest.approx(expected, abs=1e-4)
    assert (score.tokens, score.characters) == (len(ids), 9)
    assert model.perplexity(text) == score.perplexity == pytest.approx(math.exp(-expected / len(ids)), rel=1e-5)
    assert score.bits_per_character == pytest.approx(-expected / math.log(2) / 9, rel=1e-5)


def test_score_of_a_long_text_counts_every_token_once(model: PanguAlpha) -> None:
    text = "今天是一个好天气,我们去公园。中国的首都是北京。" * 5
    ids = model.tokenizer.encode(text)
    size = model.config.model.seq_length
    assert len(ids) > 2 * size
    stream = [END_OF_TEXT, *ids]
    total, counted, start = 0.0, 0, 0
    while counted < len(ids):
        start = min(start, len(ids) - size)
        window = stream[start : start + size]
        positions = np.arange(size) - (start == 0)
        positions[0] = 0
        segments = np.full(size, int(start == 0))
        segments[0] = 0
        logits = model.logits([window], [positions], None, [segments])[0]
        for n in range(counted - start, size):
            total += log_softmax(logits[n])[stream[start + n + 1]]
            counted += 1
        start += size // 2
    score = model.score(text)
    assert score.log_probability == pytest.approx(total, rel=1e-5)
    assert score.tokens == counted == len(ids)


def config(**data: object) -> Config:
    return Config(model=ModelConfig(100, 16, 2, 2, seq_length=8), data=DataConfig(**data))


@pytest.mark.parametrize("length", [1, 2, 7, 8, 9, 12, 13, 40])
def test_windows_ask_for_each_token_once_with_context(length: int) -> None:
    ids = list(range(20, 20 + length))
    arrays, counted = score_windows(ids, config())
    assert arrays[4][counted].tolist() == ids
    for row in range(1, len(counted)):
        assert counted[row].argmax() >= 4  # half a window stands before what is counted


def test_windows_without_resets_are_one_document() -> None:
    arrays, _ = score_windows([20, 21, 22], config(reset_positions=False, reset_attention=False))
    assert arrays[1].tolist() == arrays[2].tolist() == [[0, 1, 2]]
    assert not arrays[3].any()
    arrays, _ = score_windows([20, 21, 22], config())
    assert arrays[0].tolist() == [[END_OF_TEXT, 20, 21]]
    assert arrays[1].tolist() == arrays[2].tolist() == [[0, 0, 1]]
    assert arrays[3].tolist() == [[0, 1, 1]]


def test_an_empty_text_has_no_score(model: PanguAlpha) -> None:
    for text in ("", "\t"):
        with pytest.raises(UsageError, match="no tokens"):
            model.perplexity(text)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"max_new_tokens": 2.5}, "max_new_tokens is 2.5; it must be an integer of at least 1"),
        ({"max_new_tokens": True}, "max_new_tokens is True"),
        ({"max_new_tokens": "5"}, "max_new_tokens is '5'"),
        ({"top_k": 2.5}, "top_k is 2.5; it must be an integer of at least 0"),
        ({"top_p": None}, "top_p is None"),
        ({"temperature": "hot"}, "temperature is 'hot'; it must be 0 (greedy) or a positive number"),
        ({"seed": "a"}, "seed is 'a'; it must be an integer"),
        ({"seed": 1.0}, "seed is 1.0"),
        ({"stop": 5}, "stop is 5; it must be a text (str)"),
        ({"stop": ["。", None]}, "stop is None"),
        ({"stop": b"."}, "stop is 46"),
        ({"prompt": 5}, "prompt is 5; it must be a text (str)"),
        ({"prompt": None}, "prompt is None"),
        ({"prompt": "今天".encode()}, "it must be a text (str)"),
        (
            {"prompt": b"\xc4\xe3".decode("utf-8", "surrogateescape")},
            r"prompt is not UTF-8: its character 1 is '\udcc4'",
        ),
    ],
)
def test_wrong_options_are_one_line(model: PanguAlpha, arguments: dict, words: str) -> None:
    with pytest.raises(UsageError) as error:
        model.generate(**{"prompt": "今天", **arguments})
    assert words in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda model: model.perplexity(5), "text is 5; it must be a text (str)"),
        (lambda model: model.score(["今天"]), "it must be a text (str)"),
        (lambda model: model.infill(5), "text is 5; it must be a text (str)"),
        (lambda model: model.infill("今天[MASK]天气", 1.5), "lengths is 1.5; it must be an integer of at least 1"),
        (lambda model: model.infill("今天[MASK]天气", [1, True]), "lengths is True"),
        (lambda model: model.infill("今天[MASK]天气", "1"), "lengths is '1'"),
        (
            lambda model: model.infill("今天[MASK]天气", number=2.5),
            "number is 2.5; it must be an integer of at least 1",
        ),
        (lambda model: model.infill("今天[MASK]天气", number=0), "number is 0"),
    ],
)
def test_wrong_arguments_of_infill_and_score_are_one_line(model: PanguAlpha, call, words: str) -> None:
    with pytest.raises(UsageError) as error:
        call(model)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_integers_of_numpy_are_integers(model: PanguAlpha) -> None:
    plain = model.generate("今天", 5, top_k=20, seed=7, temperature=1.0)
    assert (
        model.generate("今天", np.int64(5), top_k=np.int32(20), seed=np.uint32(7), temperature=np.float64(1)) == plain
    )
    assert model.infill("今天[MASK]天气", np.int64(2), np.int8(3)) == model.infill("今天[MASK]天气", 2, 3)
    assert model.infill("今天[MASK]天气", np.arange(1, 3)) == model.infill("今天[MASK]天气", (1, 2))


def test_a_diverged_model_is_one_line(run_directory: Path) -> None:
    model = PanguAlpha.load(run_directory)
    weight = next(parameter for parameter in model._model.get_parameters() if parameter.name == "word_table")
    values = weight.asnumpy().copy()
    for wrong in (np.nan, np.inf):
        values[:, 3] = wrong
        weight.set_data(Tensor(values))
        for call in (
            lambda: model.generate("今天", 3),
            lambda: model.generate("今天", 3, temperature=0, use_cache=False),
            lambda: model.infill("今天[MASK]天气"),
            lambda: model.infill("今天[MASK]天气", (1, 2)),
            lambda: model.perplexity("今天是一个好天气"),
            lambda: model.logits(IDS),
        ):
            with pytest.raises(PanguError, match="the model's logits are not numbers .* diverged") as error:
                call()
            assert "\n" not in str(error.value)


def test_control_words_in_a_prompt_are_text(model: PanguAlpha) -> None:
    assert END_OF_TEXT not in model.tokenizer.encode("今天<eot>")
    assert isinstance(model.generate("今天<eot>", max_new_tokens=2), str)


def test_load_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PanguError, match=r"run_train\.sh"):
        PanguAlpha.load()
    with pytest.raises(PanguError, match="no such directory"):
        PanguAlpha.load("runs/nothing")


def test_a_device_that_is_not_there_is_one_line(run_directory: Path) -> None:
    with pytest.raises(PanguError, match="device gpu cannot be used: this MindSpore supports") as error:
        PanguAlpha.load(run_directory, device="gpu")
    assert "\n" not in str(error.value)


def test_a_device_that_there_is_not_is_one_line(run_directory: Path) -> None:
    with pytest.raises(UsageError, match="device is 'tpu'; allowed: auto, cpu, gpu, ascend") as error:
        PanguAlpha.load(run_directory, device="tpu")
    assert "\n" not in str(error.value)


def test_importing_the_package_imports_no_mindspore() -> None:
    code = (
        "import sys, pangu_alpha; from pangu_alpha import Config; "
        "assert 'mindspore' not in sys.modules; assert 'PanguAlpha' in dir(pangu_alpha); "
        "from pangu_alpha import PanguAlpha, load; assert callable(load) and 'mindspore' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_unknown_name_of_the_package() -> None:
    import pangu_alpha

    with pytest.raises(AttributeError, match="nothing"):
        _ = pangu_alpha.nothing
