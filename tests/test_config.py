"""The rules that the configuration dataclasses hold, and the form of their fields."""

from __future__ import annotations

import ast
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import get_type_hints

import pytest

from pangu_alpha import config
from pangu_alpha.config import (
    Config,
    DataConfig,
    ModelConfig,
    OptimizerConfig,
    ReportConfig,
    TokenizerConfig,
    TrainConfig,
    to_dict,
)
from pangu_alpha.config_checks import InvalidValue


@pytest.mark.parametrize(
    ("section", "arguments", "key"),
    [
        (ModelConfig, {"hidden_size": 100, "num_heads": 7}, "num_heads"),
        (ModelConfig, {"feed_forward_ratio": 0.0001}, "feed_forward_ratio"),
        (ModelConfig, {"feed_forward_ratio": 1e308}, "feed_forward_ratio"),  # times hidden_size it is no number
        (ModelConfig, {"num_layers": 1}, "num_layers"),
        (ModelConfig, {"vocab_size": 0}, "vocab_size"),
        (ModelConfig, {"dropout": 1.0}, "dropout"),
        (ModelConfig, {"final_norm": "between"}, "final_norm"),
        (ModelConfig, {"activation": "relu"}, "activation"),
        (TokenizerConfig, {"kind": "file"}, "path"),
        (TokenizerConfig, {"path": "some.model"}, "path"),
        (DataConfig, {"permuted_share": 1.5}, "permuted_share"),
        (DataConfig, {"span_length": 1}, "span_length"),
        (DataConfig, {"order": "random"}, "order"),
        (OptimizerConfig, {"decay_steps": 10, "warmup_steps": 10}, "decay_steps"),
        (OptimizerConfig, {"end_learning_rate": 1.0}, "end_learning_rate"),
        (OptimizerConfig, {"beta2": 1.0}, "beta2"),
        (TrainConfig, {"batch_size": 8, "micro_batches": 3}, "micro_batches"),
        (TrainConfig, {"profile": "5-3"}, "profile"),
        (TrainConfig, {"output": ""}, "output"),
        (ReportConfig, {"infills": ("他[MASK]北京", "今天很好")}, "infills"),
        (ReportConfig, {"infills": ("[MASK]天",)}, "infills"),
        (TrainConfig, {"profile": "²-³"}, "profile"),
        (TrainConfig, {"profile": "1-" + "9" * 5000}, "profile"),
        (Config, {"name": "a/b"}, "name"),
        (Config, {"name": ".."}, "name"),
        (Config, {"name": "a\nb"}, "name"),
        (Config, {"name": "名" * 100}, "name"),
        (Config, {"model": ModelConfig(query_layer=False), "data": DataConfig(order="permuted")}, "data.order"),
        (Config, {"model": ModelConfig(query_layer=False), "data": DataConfig(order="mixed")}, "data.order"),
    ],
)
def test_an_impossible_value_names_its_key(section, arguments, key):
    with pytest.raises(InvalidValue) as caught:
        section(**arguments)
    assert caught.value.key == key
    assert "\n" not in str(caught.value)


def test_the_nearest_head_counts_are_offered():
    with pytest.raises(InvalidValue, match="nearest: 20, 25, 50"):
        ModelConfig(hidden_size=100, num_heads=32)


def test_a_huge_size_is_refused_at_once():
    with pytest.raises(InvalidValue, match="num_heads"):
        ModelConfig(hidden_size=10**17, num_heads=333_333_333)


def test_layers_count_the_query_layer():
    assert ModelConfig(num_layers=32).num_blocks == 31
    assert ModelConfig(num_layers=32, query_layer=False).num_blocks == 32
    assert ModelConfig(hidden_size=5120, num_heads=40).head_size == 128
    assert ModelConfig(hidden_size=128, num_heads=4, feed_forward_ratio=4.25).feed_forward_size == 544


def test_to_dict_has_every_key_and_only_plain_values():
    plain = to_dict(Config())
    assert list(plain) == [item.name for item in fields(Config)]
    assert plain["data"]["sources"] == []
    assert plain["model"]["hidden_size"] == 2560


def test_every_setting_has_a_supported_type_and_a_sentence():
    """A new field of another type needs a reader in config_values.py; one without a sentence helps nobody."""
    tree = ast.parse(Path(config.__file__).read_text(encoding="utf-8"))
    for cell in (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name.endswith("Config")):
        for field, after in zip(cell.body, [*cell.body[1:], None], strict=True):
            if isinstance(field, ast.AnnAssign):
                assert isinstance(after, ast.Expr), f"{cell.name}.{field.target.id} has no sentence under it"
                assert isinstance(after.value.value, str)
        kinds = get_type_hints(getattr(config, cell.name))
        assert all(is_dataclass(kind) or kind in (int, float, bool, str, tuple[str, ...]) for kind in kinds.values())
