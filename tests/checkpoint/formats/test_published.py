"""Published weights come in: every form gives the same tensors and the logits of an independent forward pass."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from pangu_alpha.checkpoint.formats.names import our_name
from pangu_alpha.checkpoint.load import Checkpoint, saved_config
from pangu_alpha.cli.main import main
from tests.checkpoint.formats.published_forms import (
    BLOCKS,
    HIDDEN,
    LENGTH,
    VOCABULARY,
    official_tensors,
    write_merged,
    write_slices,
)


@pytest.fixture(scope="module")
def tensors() -> dict[str, np.ndarray]:
    return official_tensors()


@pytest.fixture(scope="module")
def forms(tensors: dict[str, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same model in every form, and a vocabulary of its size."""
    from pangu_alpha.data.tokenizer_training import train_tokenizer
    from tests.data.conftest import some_documents

    folder = tmp_path_factory.mktemp("published")
    write_slices(folder / "slices", tensors)
    write_merged(folder / "merged.ckpt", tensors)
    pipelined = {
        name.replace("backbone.word_embedding.", "")
        .replace("top_query_layer", f"blocks.{BLOCKS}")
        .replace("backbone.position", "backbone.pangu_alpha_embedding.position"): value
        for name, value in tensors.items()
    }
    write_merged(folder / "pipelined.ckpt", pipelined | {"adam_m.embedding_table": np.zeros((2, 2), np.float32)})
    (folder / "arrays").mkdir()
    for name, value in tensors.items():
        np.save(folder / "arrays" / f"{name}.npy", value)
    train_tokenizer(some_documents(60), 100, folder / "vocab.model", 1)
    return {
        name: folder / file
        for name, file in [
            ("slices", "slices"),
            ("merged", "merged.ckpt"),
            ("pipelined", "pipelined.ckpt"),
            ("arrays", "arrays"),
            ("vocabulary", "vocab.model"),
        ]
    }


def bring_in(forms: dict[str, Path], form: str, run: Path, *words: str) -> int:
    return main(
        [
            "checkpoint",
            "import",
            "--from",
            str(forms[form]),
            "--to",
            str(run),
            "--tokenizer",
            str(forms["vocabulary"]),
            "model.num_heads=4",
            *words,
        ]
    )


@pytest.mark.parametrize("form", ["slices", "merged", "pipelined", "arrays"])
def test_every_form_gives_the_same_tensors(forms, tensors, tmp_path: Path, form: str, capsys) -> None:
    assert bring_in(forms, form, tmp_path / "run") == 0
    assert "hidden 32, 3 layers, 4 heads, 53 tensors" in capsys.readouterr().out
    checkpoint = Checkpoint(tmp_path / "run" / "checkpoints" / "step_00000000")
    checkpoint.verify()
    values = dict(checkpoint.tensors())
    assert len(values) == len(tensors)
    for name, value in tensors.items():
        assert np.array_equal(values[our_name(name)], value), name
    model = saved_config(checkpoint).model
    assert (model.vocab_size, model.hidden_size, model.num_layers, model.seq_length) == (
        VOCABULARY,
        HIDDEN,
        BLOCKS + 1,
        LENGTH,
    )
    assert model.final_norm == "before_query"


def test_the_logits_are_those_of_the_formulas(forms, tensors, tmp_path: Path) -> None:
    from pangu_alpha import PanguAlpha
    from tests.reference import numpy_pangu
    from tests.reference.small_model import reference_shape

    assert bring_in(forms, "slices", tmp_path / "run") == 0
    model = PanguAlpha.load(tmp_path / "run")
    tokens = np.random.default_rng(2).integers(10, 100, (1, LENGTH)).astype(np.int32)
    positions = np.arange(LENGTH, dtype=np.int32)[None]
    weights = {our_name(name): value.astype(np.float64) for name, value in tensors.items()}
    expected = numpy_pangu.logits(
        weights, reference_shape(model.config.model), tokens, positions, positions, np.zeros_like(tokens)
    )
    np.testing.assert_allclose(
        model.logits(tokens).reshape(-1, VOCABULARY), expected.reshape(-1, VOCABULARY), atol=1e-4
    )


def test_other_heads_are_asked_for(forms, tmp_path: Path, capsys) -> None:
    words = [
        "checkpoint",
        "import",
        "--from",
        str(forms["merged"]),
        "--to",
        str(tmp_path / "run"),
        "--tokenizer",
        str(forms["vocabulary"]),
    ]
    assert main(words) == 1
    assert (
        "hidden size 32 with 3 layers is no published size, so its heads are not known; add model.num_heads="
        in capsys.readouterr().err
    )
    assert not (tmp_path / "run" / "checkpoints" / "step_00000000").exists()


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        ("no strategy", "no strategy file (*strategy*.ckpt) lies beside the slices; name it with --strategy FILE"),
        ("no slice", "the strategy file tells of 8 slices, and 7 are there; filerted_3.ckpt is missing"),
        ("more slices", "the strategy file tells of 8 slices, and 9 are there"),
        ("cut slice", "filerted_3.ckpt is no .ckpt that MindSpore can read, or is cut short"),
        ("no table", "position_embedding.npy is missing; the release has it beside the slices"),
        ("no strategy file", "is no strategy file"),
    ],
)
def test_slices_that_are_not_whole(forms, tmp_path: Path, capsys, damage: str, complaint: str) -> None:
    folder = tmp_path / "slices"
    shutil.copytree(forms["slices"], folder)
    for path in folder.iterdir():
        path.chmod(0o644)
    victim = folder / "filerted_3.ckpt"
    if damage == "no strategy":
        (folder / "small_strategy.ckpt").unlink()
    elif damage == "no slice":
        victim.unlink()
    elif damage == "more slices":
        shutil.copy(victim, folder / "filerted_8.ckpt")
    elif damage == "cut slice":
        victim.write_bytes(victim.read_bytes()[:500])
    elif damage == "no table":
        (folder / "position_embedding.npy").unlink()
    else:
        (folder / "small_strategy.ckpt").write_bytes(b"\xff" * 40)
    assert bring_in(forms | {"slices": folder}, "slices", tmp_path / "run") == 1
    line = capsys.readouterr().err.strip().split("\n")[-1]
    assert complaint in line and line.startswith("pangu-alpha: ")
    assert not list((tmp_path / "run" / "checkpoints").glob("*"))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ("missing", "tensor blocks.1.attention.key.bias of shape [32] is missing"),
        ("extra", "tensor backbone.blocks.0.attention.dense9.bias is none of PanGu-α's"),
        ("shape", "tensor blocks.1.attention.key.bias has shape [31]; [32] is expected"),
    ],
)
def test_merged_files_that_do_not_fit(forms, tensors, tmp_path: Path, capsys, change: str, complaint: str) -> None:
    changed, name = dict(tensors), "backbone.blocks.1.attention.dense2.bias"
    if change == "missing":
        del changed[name]
    elif change == "extra":
        changed["backbone.blocks.0.attention.dense9.bias"] = changed[name]
    else:
        changed[name] = changed[name][:31]
    write_merged(tmp_path / "other.ckpt", changed)
    assert bring_in(forms | {"merged": tmp_path / "other.ckpt"}, "merged", tmp_path / "run") == 1
    assert complaint in capsys.readouterr().err


def test_what_is_nothing_published(forms, tmp_path: Path, capsys) -> None:
    (tmp_path / "empty").mkdir()
    assert bring_in(forms | {"merged": tmp_path / "empty"}, "merged", tmp_path / "run") == 1
    assert "is none of: a folder of filerted_*.ckpt slices" in capsys.readouterr().err
