"""Small texts and a small vocabulary for the tests of this folder."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import sentencepiece

from pangu_alpha.config import Config, DataConfig, ModelConfig, TokenizerConfig

CHARACTERS = "今天是一个好天气我们去公园明天也学校习中文国的首都北京大城市时候家出门"


def some_documents(count: int, seed: int = 1) -> list[str]:
    """Different texts of 20 to 80 characters."""
    rng = np.random.default_rng(seed)
    return ["".join(rng.choice(list(CHARACTERS), rng.integers(20, 80))) + f"{number}。" for number in range(count)]


@pytest.fixture(scope="session")
def vocabulary_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A vocabulary of single characters with the published control tokens at their ids."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([" ".join(CHARACTERS + "0123456789。")] * 5),
        model_writer=model,
        model_type="unigram",
        vocab_size=70,
        hard_vocab_limit=False,
        minloglevel=2,
        user_defined_symbols=["▃", "▂", "<sep>", "<pad>", "<mask>", "<eod>", "<eot>"],
    )
    path = tmp_path_factory.mktemp("vocabulary") / "vocab.model"
    path.write_bytes(model.getvalue())
    return path


@pytest.fixture()
def make_config(vocabulary_file: Path) -> Callable[..., Config]:
    """Makes configurations over own text from sources and settings of data."""

    def make(*sources: object, seq_length: int = 16, vocab_size: int = 100, **data: object) -> Config:
        return Config(
            name="small",
            model=ModelConfig(vocab_size, hidden_size=32, num_heads=2, num_layers=2, seq_length=seq_length),
            tokenizer=TokenizerConfig(kind="file", path=str(vocabulary_file)),
            data=DataConfig(sources=tuple(map(str, sources)), **{"workers": 1} | data),
        )  # type: ignore[arg-type]

    return make


@pytest.fixture()
def text_file(tmp_path: Path) -> Path:
    """400 documents, ten of them twice."""
    documents = some_documents(400)
    path = tmp_path / "text.txt"
    path.write_text("\n\n".join(documents + documents[:10]), encoding="utf-8")
    return path
