"""Small weights in every form, and a model that all tests of this folder fill; compiled once."""

from __future__ import annotations

from pathlib import Path

import pytest

from pangu_alpha.config import ModelConfig
from pangu_alpha.data.tokenizer import Tokenizer
from tests.checkpoint.formats import generator
from tests.tiny_model import tokenizer, vocabulary  # noqa: F401


@pytest.fixture(scope="session")
def vocabulary_path(vocabulary: bytes, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: F811
    path = tmp_path_factory.mktemp("vocabulary") / "small.model"
    path.write_bytes(vocabulary)
    return path


@pytest.fixture(scope="session")
def weights(tokenizer: Tokenizer) -> generator.Weights:  # noqa: F811
    return generator.random_weights(tokenizer.vocab_size)


@pytest.fixture(scope="session")
def half_weights(tokenizer: Tokenizer) -> generator.Weights:  # noqa: F811
    return generator.random_weights(tokenizer.vocab_size, "float16")


@pytest.fixture(scope="session")
def slices(weights: generator.Weights, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The release in small; tests that change it copy it."""
    return generator.slices(weights, tmp_path_factory.mktemp("release"))


@pytest.fixture(scope="session")
def small_shape(tokenizer: Tokenizer) -> ModelConfig:  # noqa: F811
    return ModelConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=generator.HIDDEN,
        num_layers=generator.LAYERS,
        num_heads=generator.HEADS,
        seq_length=generator.POSITIONS,
        feed_forward_ratio=generator.INNER / generator.HIDDEN,
    )
