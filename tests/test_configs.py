"""Every shipped configuration is read, says only what acts, and has the published numbers."""

from __future__ import annotations

from pathlib import Path

import pytest

from pangu_alpha.config_file import load_config

ROOT = Path(__file__).resolve().parent.parent
SHIPPED = sorted(
    path.relative_to(ROOT).as_posix() for path in (ROOT / "configs").rglob("*.yaml") if path.parent.name != "data"
)


def test_the_sizes_of_the_paper_are_shipped():
    models = {Path(name).stem for name in SHIPPED if name.startswith("configs/models/")}
    assert {"toy", "350m", "1.3b", "2.6b", "13b", "200b"} <= models


@pytest.mark.parametrize("name", SHIPPED)
def test_it_is_read(name):
    config = load_config(ROOT / name).config
    if not name.startswith("configs/clusters/"):  # which only runs extend
        assert config.name == Path(name).stem


@pytest.mark.parametrize("name", ["350m", "1.3b", "2.6b", "13b", "200b"])
def test_published_models_share_vocabulary_length_and_dropout(name):
    model = load_config(ROOT / "configs" / "models" / f"{name}.yaml").config.model
    assert (model.vocab_size, model.seq_length, model.dropout, model.feed_forward_ratio) == (40000, 1024, 0.1, 4)
    assert model.final_norm == ("after_query" if name == "200b" else "before_query")


def test_the_small_1_3b_says_what_it_is():
    assert "244.6M parameters" in (ROOT / "configs" / "models" / "1.3b.yaml").read_text()


def test_the_quickstart_decays_until_its_end():
    config = load_config(ROOT / "configs" / "quickstart.yaml").config
    assert config.optimizer.decay_steps == config.train.steps
