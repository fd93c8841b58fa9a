"""Weights in every form become the same checkpoint, bit by bit, and the same logits."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest

from pangu_alpha.checkpoint.formats.importing import import_weights
from pangu_alpha.checkpoint.formats.published_shapes import PUBLISHED_SHAPES
from pangu_alpha.checkpoint.load import saved_config
from pangu_alpha.checkpoint.parameters import fill_parameters
from pangu_alpha.checkpoint.run_directory import find_checkpoint
from pangu_alpha.config_file import load_config
from pangu_alpha.errors import PanguError, UsageError
from pangu_alpha.inference.language_model import PanguAlpha
from tests.checkpoint.formats import generator
from tests.reference import numpy_pangu

HEADS = [f"model.num_heads={generator.HEADS}"]
BEFORE = [*HEADS, "model.final_norm=before_query"]

FORMS = {
    "slices": lambda folder, full, half, slices: (slices, full, HEADS),
    "merged": lambda folder, full, half, slices: (generator.merged(full, folder), full, HEADS),
    "merged with checksum": lambda folder, full, half, slices: (
        generator.merged(full, folder, crc_check=True), full, HEADS),
    "merged float16": lambda folder, full, half, slices: (generator.merged(half, folder).parent, half, HEADS),
    "1.3": lambda folder, full, half, slices: (generator.merged(full, folder, "1.3"), full, BEFORE),
    "mindformers": lambda folder, full, half, slices: (generator.merged(full, folder, "mindformers"), full, BEFORE),
    "mindformers npy": lambda folder, full, half, slices: (
        generator.merged(full, folder, "mindformers npy"), full, BEFORE),
    "numpy": lambda folder, full, half, slices: (generator.numpy_folder(full, folder), full, HEADS),
    "megatron": lambda folder, full, half, slices: (generator.megatron(half, folder), half, HEADS),
    "megatron plain": lambda folder, full, half, slices: (
        generator.megatron(half, folder, plain=True, name="pth"), half, HEADS),
    "megatron file": lambda folder, full, half, slices: (
        next(generator.megatron(half, folder).rglob("*.pt")), half, HEADS),
    "hugging face": lambda folder, full, half, slices: (generator.hugging_face(full, folder), full, []),
    "hugging face half": lambda folder, full, half, slices: (generator.hugging_face(half, folder), half, []),
    "hugging face shards": lambda folder, full, half, slices: (
        generator.hugging_face(full, folder, files=3), full, []),
    "safetensors": lambda folder, full, half, slices: (
        generator.hugging_face(full, folder, "safetensors"), full, []),
    "safetensors shards": lambda folder, full, half, slices: (
        generator.hugging_face(half, folder, "safetensors", files=2), half, []),
}  # fmt: skip


@pytest.fixture(scope="module")
def model(slices, vocabulary_path, tmp_path_factory) -> PanguAlpha:
    """Compiled once; each test fills it with what it has imported."""
    run = tmp_path_factory.mktemp("model") / "run"
    import_weights(slices, run, None, HEADS, vocabulary_path)
    return PanguAlpha.load(run, "cpu")


def tokens_of(vocabulary: int) -> np.ndarray:
    return np.random.default_rng(7).integers(0, vocabulary, (2, generator.POSITIONS)).astype(np.int32)


def expected_logits(weights: generator.Weights, tokens: np.ndarray, before: bool = True) -> np.ndarray:
    positions = np.broadcast_to(np.arange(tokens.shape[1]), tokens.shape)
    shape = numpy_pangu.Shape(generator.HEADS, generator.LAYERS - 1, norm_before_query=before)
    return numpy_pangu.logits(weights, shape, tokens, positions, positions, np.zeros_like(tokens))


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_imported_exactly(form, model, weights, half_weights, slices, vocabulary_path, tmp_path):
    source, expected, words = FORMS[form](tmp_path, weights, half_weights, slices)
    done = import_weights(source, tmp_path / "run", None, words, vocabulary_path)
    checkpoint = find_checkpoint(tmp_path / "run")
    found = dict(checkpoint.tensors())
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert found[name].dtype == value.dtype and (found[name] == value).all(), name
    config = saved_config(checkpoint)
    assert config == done.config
    assert config.model == dataclasses.replace(model.config.model)
    assert config.model.activation == "gelu_tanh" and config.model.final_norm == "before_query"
    assert done.padding_rows == (5 if "megatron" in form else 0)
    fill_parameters(list(model._model.get_parameters()), checkpoint, config, exact=False)
    tokens = tokens_of(len(expected["word_table"]))
    assert model.logits(tokens) == pytest.approx(expected_logits(expected, tokens), abs=2e-4)


def test_the_pipeline_names_have_the_norm_after_the_query_layer(weights, vocabulary_path, tmp_path):
    source = generator.merged(weights, tmp_path, "pipeline")
    import_weights(source, tmp_path / "run", None, HEADS, vocabulary_path)
    model = PanguAlpha.load(tmp_path / "run", "cpu")
    assert model.config.model.final_norm == "after_query"
    tokens = tokens_of(len(weights["word_table"]))
    assert model.logits(tokens) == pytest.approx(expected_logits(weights, tokens, before=False), abs=2e-4)


def test_padding_rows_that_are_kept_never_win(half_weights, vocabulary_path, tmp_path, tokenizer):
    rows = tokenizer.vocab_size + 5
    source = generator.megatron(half_weights, tmp_path)
    import_weights(source, tmp_path / "run", None, [*HEADS, f"model.vocab_size={rows}"], vocabulary_path)
    model = PanguAlpha.load(tmp_path / "run", "cpu")
    best = model.logits(tokens_of(tokenizer.vocab_size)).argmax(-1)
    assert (best >= tokenizer.vocab_size).any()  # asked without care, they would
    stream = model.stream("今天", max_new_tokens=6, temperature=0.0)
    assert "".join(stream) is not None and max(stream.tokens) < tokenizer.vocab_size


def test_moments_and_counters_are_left_out(weights, vocabulary_path, tmp_path):
    tensors = generator.by_mindspore_names(weights)
    extra = {f"adam_m.{name}": value for name, value in tensors.items()}
    extra |= {f"adam_v.{name}": value for name, value in tensors.items()}
    extra |= {"global_step": np.array([7], np.int32), "loss_scale": np.array([2.0], np.float32)}
    generator.save_ckpt(extra | tensors, tmp_path / "with_state.ckpt")
    import_weights(tmp_path / "with_state.ckpt", tmp_path / "run", None, HEADS, vocabulary_path)
    assert set(find_checkpoint(tmp_path / "run").entries) == set(weights)


def test_a_tensor_in_pieces_is_put_together(weights, vocabulary_path, tmp_path, monkeypatch):
    monkeypatch.setattr(ms.train.serialization, "SLICE_SIZE", 1)  # KiB; 512 MiB as shipped
    source = generator.merged(weights, tmp_path)
    import_weights(source, tmp_path / "run", None, HEADS, vocabulary_path)
    found = dict(find_checkpoint(tmp_path / "run").tensors())
    assert all((found[name] == value).all() for name, value in weights.items())


def test_slices_may_lie_in_folders_and_tables_have_longer_names(slices, weights, vocabulary_path, tmp_path):
    for number, item in enumerate(sorted(slices.iterdir())):
        place = tmp_path / "release" / f"part{number % 3}"
        place.mkdir(parents=True, exist_ok=True)
        name = f"pangu_alpha_2B6_{item.name}" if item.suffix == ".npy" else item.name
        (place / name).write_bytes(item.read_bytes())
    import_weights(tmp_path / "release", tmp_path / "run", None, HEADS, vocabulary_path)
    assert set(find_checkpoint(tmp_path / "run").entries) == set(weights)


def test_published_sizes_are_those_of_the_configurations(repository):
    for shape in PUBLISHED_SHAPES:
        model = load_config(repository / "configs" / "models" / f"{shape.name}.yaml").config.model
        assert (shape.hidden_size, shape.num_layers, shape.num_heads, shape.final_norm) == (
            model.hidden_size, model.num_layers, model.num_heads, model.final_norm,
        )  # fmt: skip


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_another_type_can_be_kept(dtype, weights, vocabulary_path, tmp_path):
    source = generator.merged(weights, tmp_path)
    import_weights(source, tmp_path / "run", None, HEADS, vocabulary_path, dtype=dtype)
    found = dict(find_checkpoint(tmp_path / "run").tensors())
    assert all((found[name] == value.astype(dtype)).all() for name, value in weights.items())
    assert {value.dtype.name for value in found.values()} == {dtype}


def test_the_erf_of_the_port_is_not_believed_but_may_be_asked_for(weights, vocabulary_path, tmp_path, caplog):
    source = generator.hugging_face(weights, tmp_path)
    with caplog.at_level(logging.INFO, "pangu_alpha"):
        assert import_weights(source, tmp_path / "a", None, (), vocabulary_path).config.model.activation == "gelu_tanh"
    assert "activation_function gelu" in caplog.text and "model.activation=gelu_erf" in caplog.text
    done = import_weights(source, tmp_path / "b", None, ["model.activation=gelu_erf"], vocabulary_path)
    assert done.config.model.activation == "gelu_erf"


# -- what a user can get wrong: one line each ---------------------------------------------------------------------


def refused(source: Path, folder: Path, vocabulary: Path, words=(), error=PanguError, config=None) -> str:
    with pytest.raises(error) as caught:
        import_weights(source, folder / "run", config, words, vocabulary)
    assert not (folder / "run").exists() and "\n" not in str(caught.value)
    return str(caught.value)


def copied(slices: Path, folder: Path) -> Path:
    place = folder / "release"
    place.mkdir()
    for item in slices.iterdir():
        (place / item.name).write_bytes(item.read_bytes())
    return place


def test_what_the_form_does_not_say_is_asked_for(weights, vocabulary_path, tmp_path):
    text = refused(generator.merged(weights, tmp_path), tmp_path, vocabulary_path, error=UsageError)
    assert "model.num_heads=4" in text
    text = refused(
        generator.merged(weights, tmp_path / "2", "mindformers"), tmp_path, vocabulary_path, HEADS, UsageError
    )
    assert "model.final_norm=before_query" in text


def test_a_setting_that_contradicts_the_weights_is_refused(weights, vocabulary_path, tmp_path):
    source = generator.merged(weights, tmp_path)
    text = refused(source, tmp_path, vocabulary_path, [*HEADS, "model.num_layers=5"], UsageError)
    assert "model.num_layers is 5" in text and "3" in text
    assert "must divide" in refused(source, tmp_path, vocabulary_path, ["model.num_heads=3"], UsageError)
    text = refused(source, tmp_path, vocabulary_path, [*HEADS, "model.vocab_size=9999"], UsageError)
    assert "model.vocab_size is 9999" in text


def test_a_vocabulary_that_is_too_large_is_refused(weights, vocabulary_path, tmp_path):
    small = weights | {"word_table": weights["word_table"][:50]}
    text = refused(generator.merged(small, tmp_path), tmp_path, vocabulary_path, HEADS)
    assert "50 rows" in text and "--tokenizer" in text


def test_missing_extra_and_wrong_tensors(weights, vocabulary_path, tmp_path):
    missing = dict(list(weights.items())[:-1])
    text = refused(generator.merged(missing, tmp_path / "1"), tmp_path, vocabulary_path, HEADS)
    assert "backbone.top_query_layer.output.projection.bias is missing" in text
    tensors = generator.by_mindspore_names(weights)
    generator.save_ckpt(tensors | {"backbone.blocks.0.surprise": np.ones(3, np.float32)}, tmp_path / "extra.ckpt")
    text = refused(tmp_path / "extra.ckpt", tmp_path, vocabulary_path, HEADS)
    assert "extra.ckpt" in text and "backbone.blocks.0.surprise has no place" in text
    wrong = weights | {"blocks.0.attention.query.weight": np.ones((3, 16), np.float32)}
    text = refused(generator.merged(wrong, tmp_path / "3"), tmp_path, vocabulary_path, HEADS)
    assert "[3, 16]" in text and "[16, 16]" in text
    whole = weights | {"blocks.1.attention.query.bias": np.ones(16, np.int32)}
    text = refused(generator.merged(whole, tmp_path / "4"), tmp_path, vocabulary_path, HEADS)
    assert "int32" in text


def test_slices_that_are_not_all_there_or_damaged(slices, vocabulary_path, tmp_path):
    for number, (spoil, expected) in enumerate(
        [
            (lambda place: (place / "filerted_3.ckpt").unlink(), "slice 3 is missing"),
            (lambda place: (place / "filerted_3.ckpt").rename(place / "filerted_8.ckpt"), "slice 3 is missing"),
            (lambda place: next(place.glob("*strategy*")).unlink(), "no strategy file"),
            (lambda place: next(place.glob("*strategy*")).write_bytes(b"\xff\xff\xff"), "no strategy file of"),
            (lambda place: (place / "word_embedding.npy").unlink(), "word_embedding.npy is missing"),
            (lambda place: cut(place / "word_embedding.npy"), "word_embedding.npy"),
            (lambda place: cut(place / "filerted_5.ckpt"), "filerted_5.ckpt: the file is cut short"),
            (lambda place: (place / "filerted_5.ckpt").write_bytes(b""), "the file is empty"),
            (lambda place: (place / "filerted_5.ckpt").write_bytes(b"no checkpoint"), "no MindSpore checkpoint"),
        ]
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        place = copied(slices, folder)
        spoil(place)
        assert expected in refused(place, folder, vocabulary_path, HEADS)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def test_a_slice_that_lacks_a_tensor_or_has_another_shape(slices, vocabulary_path, tmp_path):
    place = copied(slices, tmp_path)
    path = place / "filerted_6.ckpt"
    whole = {name: value.asnumpy() for name, value in ms.load_checkpoint(str(path)).items()}
    name = next(name for name in whole if name.endswith("dense2.weight"))
    generator.save_ckpt({key: value for key, value in whole.items() if key != name}, path)
    assert f"filerted_6.ckpt: tensor {name} is missing" in refused(place, tmp_path, vocabulary_path, HEADS)
    generator.save_ckpt(whole | {name: np.ones((1, 16), np.float32)}, path)
    assert "[1, 16]" in refused(place, tmp_path, vocabulary_path, HEADS)


def test_nothing_known_is_there(vocabulary_path, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "no weights in it" in refused(tmp_path / "empty", tmp_path, vocabulary_path)
    assert "no such file" in refused(tmp_path / "absent", tmp_path, vocabulary_path)
    (tmp_path / "weights.zip").write_bytes(b"PK")
    assert "unpack it" in refused(tmp_path / "weights.zip", tmp_path, vocabulary_path)


def test_an_existing_directory_is_not_replaced(weights, vocabulary_path, tmp_path):
    source = generator.merged(weights, tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").write_text("kept")
    with pytest.raises(PanguError, match="is there already"):
        import_weights(source, tmp_path / "run", None, HEADS, vocabulary_path)
    assert (tmp_path / "run" / "mine.txt").read_text() == "kept"
