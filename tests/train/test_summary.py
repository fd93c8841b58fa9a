"""The summary of a finished run against its own files, and what it says in each case."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest

from pangu_alpha.checkpoint.load import Checkpoint
from pangu_alpha.checkpoint.run_directory import RunDirectory
from pangu_alpha.cli.train import format_summary
from pangu_alpha.config import Config
from pangu_alpha.config_file import load_config
from pangu_alpha.data.baseline import measure_baseline
from pangu_alpha.data.prepare import prepare
from pangu_alpha.inference.language_model import PanguAlpha
from pangu_alpha.train.summary import SAMPLE_SEED, SAMPLE_TOKENS, Summary, summarize
from pangu_alpha.train.trainer import TrainResult
from pangu_alpha.train.validation import HeldOutScore
from tests.train.small_run import STEPS, finished_run, rows


@pytest.fixture(scope="module")
def summary(folder: Path) -> Summary:
    return Summary(**json.loads((finished_run(folder)[0] / "summary.json").read_text("utf-8")))


def test_its_numbers_are_those_of_the_run(folder: Path, summary: Summary) -> None:
    run = folder / "whole"
    before, *_, after = rows(run, "validation")
    assert (before["step"], after["step"]) == (0, STEPS)
    assert summary.perplexity_before == pytest.approx(math.exp(before["loss"]))
    assert summary.perplexity_after == pytest.approx(math.exp(after["loss"]))
    # Untrained, every piece of the vocabulary is as probable as any other.
    assert summary.perplexity_before == pytest.approx(2000, rel=0.03)
    assert summary.perplexity_after < 0.7 * summary.perplexity_before
    prepared = prepare(load_config(str(folder / "small.yaml"), []).config, folder / "runs" / "prepared")
    assert summary.held_out_tokens == prepared.valid_tokens
    bits = after["loss"] * prepared.valid_tokens / math.log(2)
    assert summary.bits_per_character == pytest.approx(bits / prepared.valid_characters)
    assert summary.baseline_bits_per_character == pytest.approx(measure_baseline(prepared).bits_per_character)
    assert (summary.steps, summary.tokens) == (STEPS, STEPS * 4 * 32)
    seconds = sum(row["seconds"] for row in rows(run))
    assert summary.tokens_per_second == pytest.approx(summary.tokens / seconds)


def test_its_texts_can_be_written_again(folder: Path, summary: Summary, monkeypatch) -> None:
    monkeypatch.chdir(folder)
    model = PanguAlpha.load("whole")
    assert [prompt for prompt, _ in summary.continuations] == ["服务", "房间"]
    for prompt, text in summary.continuations:
        assert model.generate(prompt, SAMPLE_TOKENS, seed=SAMPLE_SEED) == text
    ((text, fillings),) = summary.fillings
    assert text == "很[MASK]"
    assert [filling for filling, _ in fillings] == [filling.fills[0] for filling in model.infill(text, number=3)]
    probabilities = [probability for _, probability in fillings]
    assert 0 < sum(probabilities) < 1
    assert probabilities == sorted(probabilities, reverse=True)


def test_the_paths_that_it_names_are_there(folder: Path, summary: Summary) -> None:
    assert Checkpoint(folder / summary.checkpoint).step == STEPS
    assert (folder / summary.loss_curve).read_bytes().startswith(b"\x89PNG")
    assert list((folder / summary.tensorboard).glob("events.out.tfevents.*"))


def shown(config: Config, summary: Summary) -> str:
    score = HeldOutScore(10.0, 5)
    run = RunDirectory(Path("runs/one"))
    return format_summary(config, TrainResult(run, None, 3, True, score, score, 10, 1.0), summary)


NUMBERS = Summary(3, 1_230_000, 4567.8, 0, 999, 4000.4, 123.45, 8.765, None)


def test_it_says_honestly_who_wins() -> None:
    assert "3-gram" not in shown(Config(), NUMBERS)
    for bits, verdict in ((9.0, "the model wins"), (8.5, "the 3-gram model wins")):
        text = shown(Config(), dataclasses.replace(NUMBERS, baseline_bits_per_character=bits))
        assert f"8.765; a smoothed character 3-gram model of the same text: {bits:.3f} ({verdict})" in text


def test_it_leaves_out_what_there_is_not() -> None:
    text = shown(Config(), NUMBERS)
    assert "1.23 M tokens, 4,568 tokens/s" in text
    assert "4,000 before, 123.5 after (999 tokens)" in text or "4,000 before, 123.4 after (999 tokens)" in text
    assert "it writes" not in text
    assert "--infill" in text
    plain = dataclasses.replace(Config().model, query_layer=False)
    assert "--infill" not in shown(dataclasses.replace(Config(), model=plain), NUMBERS)
    assert "perplexity" not in shown(Config(), dataclasses.replace(NUMBERS, held_out_tokens=0))


def test_line_breaks_are_shown_in_one_line() -> None:
    summary = dataclasses.replace(
        NUMBERS, continuations=[("今天", "天气\n好")], fillings=[("很[MASK]", [("好", 0.5), ("大", 0.25)])]
    )
    text = shown(Config(), summary)
    assert "  今天|天气⏎好\n" in text
    assert "  很[MASK]: 好 50%, 大 25%\n" in text


def test_without_prompts_no_model_is_loaded(folder: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(PanguAlpha, "load", None)
    config = load_config("small.yaml", []).config
    prepared = prepare(config, Path("runs/prepared"))
    score = HeldOutScore(100.0, prepared.valid_tokens)
    run = RunDirectory(Path("whole"))
    kept = Path("whole/summary.json").read_bytes()
    try:
        summary = summarize(config, TrainResult(run, prepared, STEPS, True, score, score, 0, 0.0), score)
        assert json.loads(Path("whole/summary.json").read_text("utf-8"))["tokens_per_second"] == 0.0
    finally:
        Path("whole/summary.json").write_bytes(kept)
    assert (summary.continuations, summary.fillings, summary.baseline_bits_per_character) == ([], [], None)
