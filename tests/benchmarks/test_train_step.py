"""What `benchmarks/train_step.py` feeds, refuses, and says without PyTorch."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import train_step

from pangu_alpha.config import Config, ModelConfig
from pangu_alpha.data.tokenizer import END_OF_TEXT, PAD


@pytest.fixture
def config() -> Config:
    return Config(model=ModelConfig(vocab_size=500, hidden_size=16, num_layers=2, num_heads=2, seq_length=64))


def test_batches_look_like_text_in_documents(config):
    arrays = train_step.make_batches(config)
    tokens, segments = arrays["tokens"], arrays["segments"]
    assert tokens.shape == (train_step.BATCHES, 8, 64)
    assert {array.dtype for array in arrays.values()} == {np.dtype(np.int32)}
    assert tokens.max() < 500
    assert not (tokens == PAD).any()
    assert (tokens == END_OF_TEXT).any()
    assert segments.max() > 0
    assert len({batch.tobytes() for batch in tokens}) == train_step.BATCHES
    assert all(np.array_equal(array, again) for array, again in
               zip(arrays.values(), train_step.make_batches(config).values(), strict=True))  # fmt: skip


@pytest.mark.parametrize("word", ["model.dropout=0.1", "train.micro_batches=2", "model.compute_dtype=float16"])
def test_what_cannot_be_compared_is_refused_in_one_line(word, capsys):
    assert train_step.main([word]) == 2
    error = capsys.readouterr().err
    key = word.partition("=")[0]
    assert error.startswith(f"train_step.py: {key} is ")
    assert f"add {key}=" in error
    assert error.count("\n") == 1


def test_an_unknown_key_is_one_line(capsys):
    assert train_step.main(["model.layers=3"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_without_pytorch_the_extra_is_named(monkeypatch, capsys):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "torch" else find_spec(name))
    assert train_step.main([]) == 1
    error = capsys.readouterr().err
    assert "pip install -e '.[bench]'" in error
    assert error.count("\n") == 1


def test_losses_that_part_end_the_run():
    class Told:
        def __init__(self, name: str, losses: list[float]) -> None:
            self.name, self.ready = name, {"losses": losses}

    workers = [Told("ours", [9.0, 8.0]), Told("peer", [9.0, 8.1])]
    assert train_step.check_losses(workers, 0.1) == pytest.approx(0.0125)
    with pytest.raises(train_step.PanguError, match=r"differ by 1.2e-02, more than 0.0001: ours: 9.000000"):
        train_step.check_losses(workers, 1e-4)
    workers[1].ready["losses"][1] = float("nan")
    with pytest.raises(train_step.PanguError, match="differ by nan"):
        train_step.check_losses(workers, 1e-4)


def test_the_preload_compiles(tmp_path):
    assert train_step.build_preload(tmp_path).stat().st_size > 0
