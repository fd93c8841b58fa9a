"""Checkpoints cut for any layout and put together again, exactly; and the command that does it."""

from __future__ import annotations

import dataclasses
import itertools
import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from pangu_alpha.checkpoint import reshard
from pangu_alpha.checkpoint.format import MANIFEST, DamagedCheckpointError, Manifest
from pangu_alpha.checkpoint.load import Checkpoint
from pangu_alpha.checkpoint.ownership import is_laid_out, owned_parts
from pangu_alpha.checkpoint.reshard import convert
from pangu_alpha.checkpoint.save import save_checkpoint
from pangu_alpha.cli.main import main
from pangu_alpha.config import Config, ModelConfig
from pangu_alpha.config_parallel import ParallelConfig
from pangu_alpha.errors import PanguError
from pangu_alpha.parallel.layout import layout_of
from pangu_alpha.parallel.slices import parameter_slice
from pangu_alpha.parallel.stages import stages_of_parameter
from tests.checkpoint.shapes import parameter_shapes

MODEL = ModelConfig(vocab_size=64, hidden_size=32, num_layers=4, num_heads=4, seq_length=16)
CONFIG = Config(name="cut", model=MODEL)

DEGREES = [
    (1, 1, 1, 1, True), (2, 1, 1, 1, True), (2, 1, 1, 2, True), (1, 4, 1, 1, True), (4, 2, 1, 2, True),
    (1, 2, 2, 1, False), (2, 2, 2, 2, True), (1, 1, 4, 1, True), (2, 2, 4, 1, True),
]  # fmt: skip
LAYOUTS = [
    ParallelConfig(data, model, stages, shards, split_vocabulary=split)
    for data, model, stages, shards, split in DEGREES
]


def laid_out(parallel: ParallelConfig) -> Config:
    train = dataclasses.replace(CONFIG.train, micro_batches=parallel.pipeline_stages, batch_size=8)
    return dataclasses.replace(CONFIG, parallel=parallel, train=train)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """A whole training state with values that all differ."""
    generator = np.random.default_rng(4)
    weights = {
        name: generator.standard_normal(shape).astype(np.float32) for name, shape in parameter_shapes(MODEL).items()
    }
    arrays = dict(weights)
    for prefix in ("adam_m.", "adam_v."):
        arrays |= {prefix + name: generator.random(value.shape).astype(np.float32) for name, value in weights.items()}
    arrays |= {
        "global_step": np.array([7], np.int32),
        "loss_scale": np.array(2.0, np.float32),
        "micro_step": np.array([7], np.int32),
    }
    folder = tmp_path_factory.mktemp("source")
    return Checkpoint(save_checkpoint(folder, 7, arrays, {"step": 7}, CONFIG, "f" * 64))


def values_of(checkpoint: Checkpoint) -> dict[str, np.ndarray]:
    return {name: np.array(value) for name, value in checkpoint.tensors()}


def assert_equal(one: Checkpoint, other: Checkpoint) -> None:
    first, second = values_of(one), values_of(other)
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert value.dtype == second[name].dtype and np.array_equal(value, second[name]), name


PAIRS = [
    (start, end)
    for start, end in itertools.product(range(len(LAYOUTS)), repeat=2)
    if not start or not end or (start + 2 * end) % 5 == 0  # from and to one device, and a fifth of the pairs within
]


@pytest.mark.parametrize(("start", "end"), PAIRS)
def test_any_layout_to_any_layout_is_exact(source: Checkpoint, tmp_path: Path, start: int, end: int) -> None:
    first = Checkpoint(convert(source, tmp_path / "one", laid_out(LAYOUTS[start])))
    second = Checkpoint(convert(first, tmp_path / "two", laid_out(LAYOUTS[end])))
    assert_equal(source, second)
    assert second.train_state == source.train_state and second.step == 7


@pytest.mark.parametrize("parallel", LAYOUTS, ids=str)
def test_each_rank_keeps_what_it_owns_and_nothing_twice(
    source: Checkpoint, tmp_path: Path, parallel: ParallelConfig
) -> None:
    config = laid_out(parallel)
    layout = layout_of(config)
    directory = convert(source, tmp_path, config)
    manifest = Manifest.read(directory / MANIFEST)
    assert manifest.layout["ranks"] == layout.devices
    stored = 0
    whole = values_of(source)
    for file in manifest.files:
        rank = int(file.name[5:9])
        tensors = safetensors.numpy.load_file(directory / file.name)
        for name, value in tensors.items():
            stored += value.size
            if is_laid_out(name):
                weight = name.removeprefix("adam_m.").removeprefix("adam_v.")
                assert layout.stage_of(rank) in stages_of_parameter(weight, MODEL, layout)
                cut = parameter_slice(weight, whole[name].shape, layout, rank)
                assert np.array_equal(value, whole[name][cut])  # what the rank has in its memory
            else:
                assert rank == 0
    assert stored == sum(value.size for value in whole.values())


def test_parts_cover_each_parameter_of_the_published_sizes() -> None:
    from pangu_alpha.config_file import load_config

    for path in sorted((Path(__file__).parents[2] / "configs" / "runs").glob("*.yaml")):
        config = load_config(path).config
        layout = layout_of(config)
        for name, shape in parameter_shapes(config.model).items():
            if "blocks." in name and not name.startswith("blocks.1."):
                continue  # all blocks are cut alike
            parts = owned_parts(name, shape, config.model, layout)
            size = sum(int(np.prod([stop - start for start, stop in part.slice])) for part in parts)
            assert size == int(np.prod(shape)) and len({part.slice for part in parts}) == len(parts), (path.name, name)


def test_precision(source: Checkpoint, tmp_path: Path) -> None:
    half = Checkpoint(convert(source, tmp_path / "half", laid_out(LAYOUTS[4]), "float16"))
    assert half.entries["word_table"].dtype == "float16" and half.entries["global_step"].dtype == "int32"
    for name, value in source.tensors(["blocks.1.feed_forward.inner.weight"]):
        ((_, other),) = half.tensors([name])
        assert np.array_equal(value.astype(np.float16), other)
    large = save_checkpoint(
        tmp_path / "large", 1, {"word_table": np.full((64, 32), 1e6, np.float32)}, {}, CONFIG, "f" * 64
    )
    with pytest.raises(PanguError, match="tensor word_table exceeds the range of float16; keep float32"):
        convert(Checkpoint(large), tmp_path / "no", laid_out(LAYOUTS[0]), "float16")
    assert not list((tmp_path / "no").glob("*"))


def test_a_few_tensors_are_in_memory_at_a_time(tmp_path: Path) -> None:
    model = dataclasses.replace(MODEL, hidden_size=128, num_layers=12)
    config = dataclasses.replace(CONFIG, model=model)
    arrays = {name: np.ones(shape, np.float32) for name, shape in parameter_shapes(model).items()}
    total, largest = sum(value.nbytes for value in arrays.values()), max(value.nbytes for value in arrays.values())
    whole = Checkpoint(save_checkpoint(tmp_path / "whole", 1, arrays, {}, config, "f" * 64))
    del arrays
    tracemalloc.start()
    parallel = ParallelConfig(data_parallel=2, model_parallel=2, optimizer_shards=2)
    convert(whole, tmp_path / "cut", dataclasses.replace(config, parallel=parallel))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert largest * 4 < total
    assert peak < 5 * largest + (2 << 20)


@pytest.mark.parametrize("damage", ["missing file", "cut file", "flipped bit", "missing part"])
def test_damage_is_named(source: Checkpoint, tmp_path: Path, damage: str) -> None:
    directory = convert(source, tmp_path, laid_out(LAYOUTS[6]))
    victim = directory / "rank_0005.safetensors"
    if damage == "missing file":
        victim.unlink()
    elif damage == "cut file":
        victim.write_bytes(victim.read_bytes()[:-8])
    elif damage == "flipped bit":
        content = bytearray(victim.read_bytes())
        content[-5] ^= 1
        victim.write_bytes(content)
    else:
        manifest = Manifest.read(directory / MANIFEST)
        fewer = tuple(entry for entry in manifest.tensors if entry.file != victim.name)
        (directory / MANIFEST).write_text(dataclasses.replace(manifest, tensors=fewer).to_json(), encoding="utf-8")
    with pytest.raises(DamagedCheckpointError) as caught:
        Checkpoint(directory).verify()
    line = str(caught.value)
    assert "\n" not in line and (victim.name in line or "do not make up its shape" in line)


def test_another_model_is_one_line(source: Checkpoint, tmp_path: Path) -> None:
    other = dataclasses.replace(CONFIG, model=dataclasses.replace(MODEL, num_layers=6))
    with pytest.raises(
        PanguError, match=r"model.num_layers is 4 there and 6 in the configuration; add model.num_layers=4"
    ):
        convert(source, tmp_path, other)


def test_no_space(source: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(reshard, "_write_at", full)
    with pytest.raises(PanguError, match="cannot write .*step_00000007: "):
        convert(source, tmp_path, laid_out(LAYOUTS[6]))
    assert not list(tmp_path.iterdir())


def test_the_command(source: Checkpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (source.directory / "tokenizer").mkdir(exist_ok=True)
    import hashlib

    run = tmp_path / "run"
    arrays = values_of(source)
    vocabulary = b"made up"
    saved = save_checkpoint(run / "checkpoints", 7, arrays, {"step": 7}, CONFIG, hashlib.sha256(vocabulary).hexdigest())
    (run / "tokenizer").mkdir()
    (run / "tokenizer" / "vocab.model").write_bytes(vocabulary)
    words = ["parallel.data_parallel=2", "parallel.model_parallel=2", "parallel.optimizer_shards=2"]
    assert main(["checkpoint", "convert", "--from", str(run), "--to", str(tmp_path / "cut"), *words]) == 0
    assert main(["checkpoint", "show", str(tmp_path / "cut"), "--tensors"]) == 0
    shown = capsys.readouterr().out
    assert "ranks 4, data_parallel 2, model_parallel 2" in shown and "rank_0003.safetensors" in shown
    assert main(["checkpoint", "diff", str(run), str(tmp_path / "cut")]) == 0
    assert "tensors are equal" in capsys.readouterr().out
    assert main(["checkpoint", "verify", str(tmp_path / "cut")]) == 0
    arrays["word_table"] = arrays["word_table"] + 1
    save_checkpoint(run / "checkpoints", 8, arrays, {"step": 8}, CONFIG, hashlib.sha256(vocabulary).hexdigest())
    assert main(["checkpoint", "diff", str(run), str(saved)]) == 1
    assert "2,048 of 2,048 values" in capsys.readouterr().out
    victim = run / "checkpoints" / "step_00000008" / "rank_0000.safetensors"
    content = bytearray(victim.read_bytes())
    content[-1] ^= 1
    victim.write_bytes(content)
    assert main(["checkpoint", "verify", str(run)]) == 1
    out = capsys.readouterr().out
    assert "differs from its checksum" in out and "step_00000007: good" in out
    assert (
        json.loads((tmp_path / "cut" / "checkpoints" / "step_00000007" / MANIFEST).read_text())["layout"]["ranks"] == 4
    )


def test_padding_rows_come_and_go(source: Checkpoint, tmp_path: Path) -> None:
    wide = dataclasses.replace(CONFIG, model=dataclasses.replace(MODEL, vocab_size=70))
    padded = Checkpoint(convert(source, tmp_path / "padded", wide))
    assert padded.manifest.config["model"]["vocab_size"] == 70
    before, after = values_of(source), values_of(padded)
    for name, value in before.items():
        np.testing.assert_array_equal(after[name][:64] if name.endswith("word_table") else after[name], value)
    for prefix in ("", "adam_m.", "adam_v."):
        assert after[f"{prefix}word_table"].shape == (70, 32)
        assert not after[f"{prefix}word_table"][64:].any()
    with pytest.raises(PanguError, match="model.vocab_size is 64 in the configuration; 70 rows of the word table are"):
        convert(padded, tmp_path / "narrow", CONFIG)
    back = Checkpoint(convert(padded, tmp_path / "narrow", CONFIG, pieces=60))
    for name, value in before.items():
        np.testing.assert_array_equal(values_of(back)[name], value)
