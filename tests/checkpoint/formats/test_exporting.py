"""Weights that leave come back exactly, and others' programs read them."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from safetensors.numpy import load_file

from pangu_alpha.checkpoint.formats import hugging_face_export
from pangu_alpha.checkpoint.formats.exporting import export_checkpoint
from pangu_alpha.checkpoint.formats.importing import import_weights
from pangu_alpha.checkpoint.load import Checkpoint
from pangu_alpha.checkpoint.reshard import convert
from pangu_alpha.checkpoint.run_directory import RunDirectory, find_checkpoint
from pangu_alpha.checkpoint.save import save_checkpoint
from pangu_alpha.cli.main import main
from pangu_alpha.config import Config, ModelConfig
from pangu_alpha.config_parallel import ParallelConfig
from pangu_alpha.data.tokenizer import Tokenizer
from pangu_alpha.errors import PanguError
from pangu_alpha.inference.language_model import PanguAlpha
from pangu_alpha.parallel.layout import Layout
from tests.checkpoint.formats import generator

FORMS = ("hugging_face", "ckpt", "numpy")
STATE = {
    "step": 30, "samples": 480, "held_out": {"after": {"nats": 460.517, "tokens": 100}},
    "identity": {"text": {"fingerprint": "0123abcd"}},
}  # fmt: skip


def run_of(folder: Path, weights: generator.Weights, model: ModelConfig, vocabulary: Path) -> Checkpoint:
    """A run's checkpoint: with moments and counters, cut for eight ranks."""
    parallel = ParallelConfig(data_parallel=2, model_parallel=2, pipeline_stages=2, split_vocabulary=False)
    config = Config(name="small", model=model)
    config = dataclasses.replace(
        config, parallel=parallel, train=dataclasses.replace(config.train, micro_batches=2, batch_size=8)
    )
    arrays = dict(weights) | {f"adam_{kind}.{name}": value * 0 for kind in "mv" for name, value in weights.items()}
    arrays["global_step"] = np.array([30], np.int32)
    tokenizer = Tokenizer.load(vocabulary)
    whole = save_checkpoint(folder / "whole", 30, arrays, STATE, config, tokenizer.sha256)
    run = RunDirectory(folder / "run")
    cut = convert(Checkpoint(whole), run.checkpoints, config)
    run.tokenizer.parent.mkdir(parents=True)
    tokenizer.save(run.tokenizer)
    return Checkpoint(cut)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("norm", ["before_query", "after_query"])
def test_what_leaves_comes_back(form, norm, weights, small_shape, vocabulary_path, tmp_path):
    model = dataclasses.replace(small_shape, final_norm=norm)
    source = run_of(tmp_path, weights, model, vocabulary_path)
    done = export_checkpoint(source, tmp_path / "out", form)
    assert done.parameters == sum(value.size for value in weights.values())
    words = [] if form == "hugging_face" else [f"model.num_heads={generator.HEADS}"]
    import_weights(tmp_path / "out", tmp_path / "back", None, words, tmp_path / "out" / "vocab.model")
    back = find_checkpoint(tmp_path / "back")
    assert back.manifest.config["model"] | {"dropout": 0} == dataclasses.asdict(model) | {"dropout": 0}
    found = dict(back.tensors())
    assert found.keys() == weights.keys()
    for name, value in weights.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    for line in ("| held-out perplexity | 100.00 (100 tokens) |", "| tokens seen | 3,840 |", "fingerprint 0123abcd"):
        assert line in card


def test_mindspore_reads_the_ckpt(weights, small_shape, vocabulary_path, tmp_path):
    export_checkpoint(run_of(tmp_path, weights, small_shape, vocabulary_path), tmp_path / "out", "ckpt", "float16")
    found = ms.load_checkpoint(str(tmp_path / "out" / "small.ckpt"))
    expected = generator.by_mindspore_names(weights)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name].asnumpy(), value.astype(np.float16), err_msg=name)


def test_a_folder_of_several_files(weights, small_shape, vocabulary_path, tmp_path, monkeypatch):
    monkeypatch.setattr(hugging_face_export.write_hugging_face, "__defaults__", (5000,))
    export_checkpoint(run_of(tmp_path, weights, small_shape, vocabulary_path), tmp_path / "out", "hugging_face")
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    files = sorted(set(index["weight_map"].values()))
    assert len(files) > 3
    assert files[0] == f"model-00001-of-{len(files):05d}.safetensors"
    assert index["metadata"]["total_size"] == sum(value.nbytes for value in weights.values())
    for file in files:
        assert set(load_file(tmp_path / "out" / file)) == {n for n, f in index["weight_map"].items() if f == file}
    import_weights(tmp_path / "out", tmp_path / "back", None, [], vocabulary_path)
    found = dict(find_checkpoint(tmp_path / "back").tensors())
    assert all((found[name] == value).all() for name, value in weights.items())


def test_the_code_that_goes_along_is_python(weights, small_shape, vocabulary_path, tmp_path):
    export_checkpoint(run_of(tmp_path, weights, small_shape, vocabulary_path), tmp_path / "out", "hugging_face")
    settings = json.loads((tmp_path / "out" / "config.json").read_text())
    for place in settings["auto_map"].values():
        module, name = place.split(".")
        code = (tmp_path / "out" / f"{module}.py").read_text(encoding="utf-8")
        compile(code, module, "exec")
        assert f"class {name}(" in code
        assert "pangu_alpha." not in code  # it runs without this package


LAYOUTS = {
    "data and model": Layout(data_parallel=4, model_parallel=2, optimizer_shards=4, split_vocabulary=False),
    "some shards": Layout(data_parallel=4, model_parallel=2, optimizer_shards=2, split_vocabulary=False),
    "pipeline": Layout(
        data_parallel=2, model_parallel=2, pipeline_stages=2, micro_batches=2, split_vocabulary=False
    ),
}  # fmt: skip


def whole_of(weights: generator.Weights, norm: str = "official") -> generator.Weights:
    named = generator.by_mindspore_names(weights, norm)
    return named | {f"adam_{kind}.{name}": value * 0 for kind in "mv" for name, value in named.items()}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_mindspore_puts_the_ranks_together(layout, weights, small_shape, vocabulary_path, tmp_path):
    source = run_of(tmp_path, weights, small_shape, vocabulary_path)
    export_checkpoint(source, tmp_path / "out", "mindspore", layout=LAYOUTS[layout])
    strategy = str(tmp_path / "out" / "strategy.ckpt")
    ms.transform_checkpoints(str(tmp_path / "out"), str(tmp_path / "whole"), "whole", strategy, None)
    (made,) = (tmp_path / "whole").rglob("*.ckpt")
    found = ms.load_checkpoint(str(made))
    expected = whole_of(weights)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name].asnumpy(), value, err_msg=name)


def test_the_rank_folders_come_back(weights, small_shape, vocabulary_path, tmp_path):
    source = run_of(tmp_path, weights, small_shape, vocabulary_path)
    export_checkpoint(source, tmp_path / "out", "mindspore", layout=LAYOUTS["some shards"])
    import_weights(tmp_path / "out", tmp_path / "back", None, [f"model.num_heads={generator.HEADS}"], vocabulary_path)
    found = dict(find_checkpoint(tmp_path / "back").tensors())
    assert all((found[name] == value).all() for name, value in weights.items())


def test_mindspore_unifies_safetensors_and_loads_them(weights, small_shape, vocabulary_path, tmp_path):
    source = run_of(tmp_path, weights, small_shape, vocabulary_path)
    export_checkpoint(source, tmp_path / "out", "mindspore_safetensors", layout=LAYOUTS["data and model"])
    strategy = str(tmp_path / "out" / "strategy.ckpt")
    ms.unified_safetensors(str(tmp_path / "out"), strategy, str(tmp_path / "unified"), max_process_num=2)
    names = generator.by_mindspore_names(weights)
    network = ms.nn.Cell()
    for number, (name, value) in enumerate(names.items()):
        network.insert_param_to_cell(f"p{number}", ms.Parameter(ms.Tensor(value * 0), name=name))
    ms.load_distributed_checkpoint(network, unified_safetensors_dir=str(tmp_path / "unified"), format="safetensors")
    for parameter in network.get_parameters():
        np.testing.assert_array_equal(parameter.asnumpy(), names[parameter.name], err_msg=parameter.name)


def one_line(capsys: pytest.CaptureFixture, *words: str) -> str:
    assert main(["checkpoint", "export", *words]) == 1
    out, err = capsys.readouterr()
    assert not out
    assert err.count("\n") == 1
    return err


def test_bad_use_is_one_line(weights, small_shape, vocabulary_path, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("pangu_alpha.checkpoint.formats.exporting.Progress", _Silent)
    source = run_of(tmp_path, weights, small_shape, vocabulary_path)
    words = ["--from", str(tmp_path / "run"), "--format", "ckpt", "--to"]
    (tmp_path / "there").mkdir()
    assert "there is there already; give another --to DIR" in one_line(capsys, *words, str(tmp_path / "there"))
    RunDirectory(tmp_path / "run").tokenizer.unlink()
    assert "its vocabulary is missing" in one_line(capsys, *words, str(tmp_path / "out"))
    victim = next(path for path in source.directory.glob("*.safetensors") if path.stat().st_size > 10_000)
    content = bytearray(victim.read_bytes())
    for place in range(len(content) - 4000, len(content), 64):
        content[place] ^= 1
    victim.write_bytes(content)
    words += [str(tmp_path / "out"), "--vocabulary", str(vocabulary_path)]
    assert "differs from its checksum" in one_line(capsys, *words)
    assert not (tmp_path / "out").exists()


class _Silent:
    def __init__(self, *words: object) -> None: ...
    def __enter__(self) -> _Silent:
        return self

    def __exit__(self, *error: object) -> None: ...
    def advance(self, count: float = 1) -> None: ...


def test_a_model_without_query_layer_has_no_form(small_shape, vocabulary_path, tmp_path):
    config = Config(name="gpt", model=dataclasses.replace(small_shape, query_layer=False))
    saved = save_checkpoint(tmp_path / "run", 1, {"word_table": np.ones((2, 2))}, {}, config, "f" * 64)
    with pytest.raises(PanguError, match="model.query_layer is false; the forms of PanGu-α have no place"):
        export_checkpoint(Checkpoint(saved), tmp_path / "out", "numpy")


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["before_query", "after_query"])
def test_transformers_computes_the_same(norm, weights, small_shape, vocabulary_path, tmp_path):
    """Logits, greedy generation with cache and without, and ids, in an interpreter that has transformers."""
    python = os.environ.get("PANGU_ALPHA_TRANSFORMERS_PYTHON")
    if not python:
        if not all(importlib.util.find_spec(name) for name in ("torch", "transformers")):
            pytest.skip("no transformers here; PANGU_ALPHA_TRANSFORMERS_PYTHON may name an interpreter that has it")
        python = sys.executable
    model = dataclasses.replace(small_shape, final_norm=norm, seq_length=32)
    random = np.random.default_rng(8)
    wide = {
        name: random.standard_normal((32, generator.HIDDEN)).astype(np.float32) for name in generator.OUR_TABLES[1:]
    }
    run_of(tmp_path, weights | wide, model, vocabulary_path)
    export_checkpoint(find_checkpoint(tmp_path / "run"), tmp_path / "out", "hugging_face")
    tokens = random.integers(10, model.vocab_size, (2, 20))
    text = "今天天气很好 我们去\n公园"
    np.savez(tmp_path / "in.npz", tokens=tokens, text=text)
    side = Path(__file__).with_name("transformers_side.py")
    done = subprocess.run(
        [python, side, tmp_path / "out", tmp_path / "in.npz", tmp_path / "out.npz"],
        capture_output=True, text=True, env={"PATH": os.environ["PATH"], "HF_HOME": str(tmp_path / "cache")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    ours = PanguAlpha.load(tmp_path / "run", "cpu")
    tokenizer = Tokenizer.load(vocabulary_path)
    logits = ours.logits(tokens.astype(np.int32))
    with np.load(tmp_path / "out.npz") as theirs:
        np.testing.assert_allclose(theirs["logits"], logits, atol=1e-4, rtol=1e-4)
        shares = logits - np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1, keepdims=True))
        shares -= logits.max(-1, keepdims=True)
        losses = np.take_along_axis(shares[:, :-1], tokens[:, 1:, None], -1)
        assert float(theirs["loss"]) == pytest.approx(-losses.mean(), rel=1e-4)
        assert theirs["ids"].tolist() == tokenizer.encode(text)
        assert str(theirs["decoded"]) == tokenizer.decode(tokenizer.encode(text))
        known = theirs["generated"].tolist()
        for place in range(len(tokenizer.encode(text)), len(known)):  # each the most probable one after those before
            row = ours.logits(np.array([known[:place]], np.int32))[0, -1]
            assert known[place] == int(row.argmax())
