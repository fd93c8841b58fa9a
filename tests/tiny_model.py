"""A tiny random model, saved as a checkpoint in a run directory with a vocabulary of its own."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
import sentencepiece

from pangu_alpha.checkpoint.parameters import parameter_arrays
from pangu_alpha.checkpoint.run_directory import RunDirectory
from pangu_alpha.checkpoint.save import save_checkpoint
from pangu_alpha.config import Config, DataConfig, ModelConfig
from pangu_alpha.data.tokenizer import Tokenizer
from pangu_alpha.inference.language_model import PanguAlpha
from pangu_alpha.model.initial_values import fill_initial_values
from pangu_alpha.model.numerics import resolve_numerics
from pangu_alpha.model.pangu_alpha import PanguAlphaModel
from pangu_alpha.parallel.context import set_single_device_context

TEXT = (
    "今天 是 一个 好 天气 , 我们 去 公园 。 ▃ 明天 也 是 好 天气 , 他们 在 学校 学习 中文 。 ▂ "
    "中国 的 首都 是 北京 , 北京 是 一个 大 城市 。 四川 的 省会 是 成都 。 ▃ 天气 好 的 时候 大家 出门 。"
)


@pytest.fixture(scope="session")
def vocabulary() -> bytes:
    """A sentencepiece model of 120 pieces with the published control tokens at their ids."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([TEXT] * 20),
        model_writer=model,
        model_type="unigram",
        vocab_size=120,
        hard_vocab_limit=False,
        user_defined_symbols=["▃", "▂", "<sep>", "<pad>", "<mask>", "<eod>", "<eot>"],
        minloglevel=2,
    )
    return model.getvalue()


@pytest.fixture(scope="session")
def tokenizer(vocabulary: bytes) -> Tokenizer:
    return Tokenizer(vocabulary)


def tiny_config(tokenizer: Tokenizer, **changes: object) -> Config:
    """Three layers, context of 32; the word table has three rows more than the vocabulary has pieces."""
    model = ModelConfig(vocab_size=tokenizer.vocab_size + 3, hidden_size=32, num_layers=3, num_heads=4, seq_length=32)
    model = dataclasses.replace(model, **changes)
    return Config(name="tiny", model=model, data=DataConfig(order="mixed" if model.query_layer else "sequential"))


def random_model(config: Config, seed: int = 3) -> PanguAlphaModel:
    """A model whose every parameter, biases and norms too, is far from its initial value."""
    numerics = resolve_numerics(config.model, set_single_device_context("cpu"))
    model = PanguAlphaModel(config.model, numerics)
    fill_initial_values(model, config.model, seed)
    generator = np.random.default_rng(seed)
    for parameter in model.get_parameters():
        value = parameter.asnumpy()
        noise = generator.standard_normal(value.shape) * (0.5 if "table" in parameter.name else 0.15)
        parameter.set_data(type(parameter.data)((value + noise).astype(np.float32)))
    return model


def save_run(run: Path, config: Config, tokenizer: Tokenizer, step: int = 10) -> Path:
    """A run directory as training leaves it, moments among the tensors; gives the checkpoint's directory."""
    arrays = parameter_arrays(list(random_model(config).get_parameters()))
    moments = {f"adam_m.{name}": np.zeros_like(array) for name, array in arrays.items()}
    tokenizer.save(RunDirectory(run).tokenizer)
    state = {"step": step}
    return save_checkpoint(RunDirectory(run).checkpoints, step, arrays | moments, state, config, tokenizer.sha256)


@pytest.fixture(scope="session")
def run_directory(tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> Path:
    run = tmp_path_factory.mktemp("runs") / "tiny"
    save_run(run, tiny_config(tokenizer), tokenizer)
    return run


@pytest.fixture(scope="session")
def model(run_directory: Path) -> PanguAlpha:
    return PanguAlpha.load(run_directory)


class Tiny:
    """The helpers above, as tests reach them."""

    config = staticmethod(tiny_config)
    model = staticmethod(random_model)
    save = staticmethod(save_run)


@pytest.fixture(scope="session")
def tiny() -> type[Tiny]:
    return Tiny
