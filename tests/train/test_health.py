"""Health of layers: the numbers by hand, the warnings, the log and the picture."""

from __future__ import annotations

import math

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pangu_alpha.train.health import (
    HealthSample,
    by_layer,
    dead_share,
    layer_of,
    layer_order,
    measure_parameters,
    norm,
    normalised_entropy,
)
from pangu_alpha.train.health_log import HealthLog
from pangu_alpha.train.health_picture import HealthHistory, draw_health
from pangu_alpha.train.health_warnings import HealthWarnings, findings
from pangu_alpha.train.json_lines import read_json_lines
from pangu_alpha.train.tensorboard_log import ScalarLog

LAYERS = ["word_table", "embedding", "blocks.0", "blocks.1", "final_norm", "query_layer"]


def healthy(step: int, **changes) -> HealthSample:
    names = [f"{layer}.weight" for layer in LAYERS]
    attention = {layer: (0.5, 0.7) for layer in LAYERS if layer.startswith(("blocks", "query"))}
    values = {
        "step": step,
        "gradient_norm": dict.fromkeys(names, 0.3),
        "weight_norm": dict.fromkeys(names, 10.0),
        "update_norm": dict.fromkeys(names, 0.01),
        "adam_m_norm": dict.fromkeys(names, 0.1),
        "adam_v_norm": dict.fromkeys(names, 0.02),
        "dead_share": dict.fromkeys(names, 0.0),
        "elements": dict.fromkeys(names, 100),
        "activation_rms": dict.fromkeys(LAYERS[1:], 1.0),
        "activation_max": dict.fromkeys(LAYERS[1:], 8.0),
        "attention_entropy": attention,
    }
    return HealthSample(**{**values, **changes})


def with_value(sample: HealthSample, quantity: str, name: str, value) -> dict:
    return {quantity: {**getattr(sample, quantity), name: value}}


# Numbers.


def test_norm_is_the_euclidean_norm():
    array = np.random.default_rng(1).standard_normal((3, 7, 11)).astype(np.float32)
    assert norm(array) == pytest.approx(float(np.linalg.norm(array.astype(np.float64))), rel=1e-6)
    large = np.full((2048, 1024), 0.5, np.float32)
    assert norm(large) == pytest.approx(0.5 * math.sqrt(2048 * 1024), rel=1e-6)
    assert norm(np.zeros((2, 2), np.float32)) == 0.0


def test_dead_share_counts_weights_with_next_to_no_gradient():
    second_moment = np.ones((10, 10), np.float32)
    second_moment[0] = 1e-9
    assert dead_share(second_moment) == pytest.approx(0.1)
    assert dead_share(np.zeros((4, 4), np.float32)) == 1.0
    normal = np.random.default_rng(1).standard_normal(100_000) ** 2
    assert dead_share(normal) < 0.002  # the second moment of a single ordinary gradient


def test_entropy_of_even_and_of_staring_attention():
    seq = 6
    visible = np.tril(np.ones((1, 1, seq, seq)))
    even = np.broadcast_to(visible / visible.sum(-1, keepdims=True), (1, 2, seq, seq))
    assert normalised_entropy(even, visible) == pytest.approx([1.0, 1.0])
    staring = np.zeros((1, 2, seq, seq))
    staring[..., 0] = 1.0
    assert normalised_entropy(staring, visible) == pytest.approx([0.0, 0.0])


def test_entropy_is_counted_against_what_a_row_may_see():
    # Two documents of three tokens: every row looks evenly at what it sees, half of them at two of three.
    visible = np.zeros((1, 1, 6, 6))
    visible[0, 0, :3, :3] = visible[0, 0, 3:, 3:] = np.tril(np.ones((3, 3)))
    weights = visible / visible.sum(-1, keepdims=True)
    assert normalised_entropy(weights, visible) == pytest.approx([1.0])
    weights[0, 0, 2, :3] = weights[0, 0, 5, 3:] = (0.5, 0.5, 0.0)
    expected = (1.0 + math.log(2) / math.log(3)) / 2  # rows that see one position do not count
    assert normalised_entropy(weights, visible) == pytest.approx([expected])


def test_parameters_are_measured():
    random = np.random.default_rng(1)
    before = {"a": random.standard_normal((4, 5)).astype(np.float32)}
    update = random.standard_normal((4, 5)).astype(np.float32)
    sample = measure_parameters(7, {"a": 0.25}, {"a": before["a"] + update}, before, {"a": update}, {"a": update**2})
    assert sample.step == 7
    assert sample.gradient_norm == {"a": 0.25}
    assert sample.update_norm["a"] == pytest.approx(np.linalg.norm(update), rel=1e-5)
    assert sample.weight_norm["a"] == pytest.approx(np.linalg.norm(before["a"] + update), rel=1e-6)
    assert sample.adam_m_norm["a"] == pytest.approx(np.linalg.norm(update), rel=1e-6)
    assert sample.adam_v_norm["a"] == pytest.approx(np.linalg.norm(update**2), rel=1e-6)
    assert sample.elements == {"a": 20}


# Layers.


@pytest.mark.parametrize(
    ("parameter", "layer"),
    [
        ("word_table", "word_table"),
        ("embedding.position_table", "embedding"),
        ("blocks.3.attention.query.weight", "blocks.3"),
        ("blocks.12.feed_forward_norm.gamma", "blocks.12"),
        ("final_norm.gamma", "final_norm"),
        ("query_layer.block.attention.key.bias", "query_layer"),
    ],
)
def test_layers_of_parameters(parameter, layer):
    assert layer_of(parameter) == layer


def test_layers_stand_in_the_order_of_a_token():
    mixed = ["query_layer", "blocks.10", "final_norm", "blocks.2", "other", "word_table", "blocks.2", "embedding"]
    assert layer_order(mixed) == [
        "word_table",
        "embedding",
        "blocks.2",
        "blocks.10",
        "final_norm",
        "query_layer",
        "other",
    ]


def test_parameters_are_gathered_into_layers():
    sample = HealthSample(
        step=1,
        gradient_norm={"blocks.0.a": 3.0, "blocks.0.b": 4.0, "final_norm.gamma": 1.0},
        weight_norm={"blocks.0.a": 6.0, "blocks.0.b": 8.0},
        update_norm={"blocks.0.a": 0.3, "blocks.0.b": 0.4},
        dead_share={"blocks.0.a": 1.0, "blocks.0.b": 0.0},
        elements={"blocks.0.a": 10, "blocks.0.b": 30},
        attention_entropy={"blocks.0": (0.2, 0.6)},
    )
    layers = by_layer(sample)
    assert list(layers) == ["blocks.0", "final_norm"]
    block = layers["blocks.0"]
    assert block.gradient_norm == pytest.approx(5.0)
    assert block.update_ratio == pytest.approx(0.05)
    assert block.dead_share == pytest.approx(0.25)
    assert block.attention_entropy == pytest.approx(0.4)
    assert math.isnan(block.activation_rms)
    assert math.isnan(layers["final_norm"].update_ratio)


# Warnings.


def test_a_healthy_model_gives_no_warning():
    sample = healthy(1)
    assert findings(sample, by_layer(sample)) == {}


@pytest.mark.parametrize(
    ("quantity", "name", "value", "kind", "words"),
    [
        ("gradient_norm", "blocks.1.weight", 1e-4, "gradient", "barely learns"),
        ("gradient_norm", "query_layer.weight", 0.0, "zero", "gets no gradient at all"),
        ("update_norm", "blocks.0.weight", 5e-5, "slow", "hardly moves"),
        ("update_norm", "blocks.0.weight", 2.0, "fast", "forgets"),
        ("activation_max", "final_norm", 40_000.0, "activation", "float16 ends at 65,504"),
        ("activation_rms", "blocks.1", 0.0, "silent", "the signal is lost"),
        ("attention_entropy", "blocks.1", (0.001, 0.8), "collapsed", "heads 0"),
        ("attention_entropy", "query_layer", (0.999, 0.998), "uniform", "does not choose"),
    ],
)
def test_what_is_out_of_bounds_is_said(quantity, name, value, kind, words):
    base = healthy(1)
    sample = healthy(1, **with_value(base, quantity, name, value))
    found = findings(sample, by_layer(sample))
    assert kind in {key for key, _ in found}
    (sentence,) = [text for (key, _), text in found.items() if key == kind]
    assert words in sentence
    assert layer_of(name) in sentence


def test_small_updates_are_expected_where_the_learning_rate_is_small():
    small = with_value(healthy(1), "update_norm", "blocks.0.weight", 5e-5)  # ratio 5e-6
    sample = healthy(1, **small, learning_rate_share=0.01)
    assert findings(sample, by_layer(sample)) == {}
    sample = healthy(1, **small, learning_rate_share=0.9)
    assert ("slow", "blocks.0") in findings(sample, by_layer(sample))


def test_a_norm_alone_may_move_slowly():
    sample = healthy(1, **with_value(healthy(1), "update_norm", "final_norm.weight", 5e-5))
    assert findings(sample, by_layer(sample)) == {}


def test_one_even_head_is_no_finding():
    sample = healthy(1, **with_value(healthy(1), "attention_entropy", "blocks.0", (0.999, 0.5)))
    assert findings(sample, by_layer(sample)) == {}


def test_the_bias_of_the_keys_has_no_gradient_by_nature():
    sample = healthy(1, **with_value(healthy(1), "gradient_norm", "blocks.0.attention.key.bias", 0.0))
    assert findings(sample, by_layer(sample)) == {}
    sample = healthy(1, **with_value(healthy(1), "gradient_norm", "blocks.0.attention.query.bias", 0.0))
    assert ("zero", "blocks.0.attention.query.bias") in findings(sample, by_layer(sample))


def test_a_finding_becomes_one_warning_once_it_lasts():
    warnings = HealthWarnings()

    def at(step: int, ill: bool) -> list[str]:
        sample = healthy(step, **(with_value(healthy(step), "update_norm", "blocks.0.weight", 2.0) if ill else {}))
        return warnings.update(sample, by_layer(sample))

    assert [at(step, True) for step in (10, 20)] == [[], []]
    (warning,) = at(30, True)
    assert warning.startswith("step 30: ")
    assert at(40, True) == []  # said already
    assert at(50, False) == []
    assert [len(at(step, True)) for step in (60, 70, 80, 90)] == [0, 0, 1, 0]


def test_even_attention_is_given_time():
    warnings = HealthWarnings()
    counts = []
    for step in range(12):
        sample = healthy(step, **with_value(healthy(step), "attention_entropy", "blocks.0", (1.0, 1.0)))
        counts.append(len(warnings.update(sample, by_layer(sample))))
    assert counts == [0] * 9 + [1, 0, 0]


# The log.


def open_log(directory, resume_step=0):
    scalars = ScalarLog(directory / "tensorboard", resume_step)
    return HealthLog(directory, scalars, resume_step), scalars


def test_samples_are_logged_and_shown_in_tensorboard(tmp_path):
    log, scalars = open_log(tmp_path)
    log.write(healthy(10, learning_rate_share=0.25))
    log.write(healthy(20))
    log.close()
    scalars.close()
    rows = read_json_lines(tmp_path / "health.jsonl")
    assert [row["step"] for row in rows] == [10, 20]
    assert [row["learning_rate_share"] for row in rows] == [0.25, 1.0]
    assert rows[0]["gradient_norm"]["blocks.1.weight"] == 0.3
    assert rows[0]["attention_entropy"]["query_layer"] == [0.5, 0.7]
    reader = EventAccumulator(str(tmp_path / "tensorboard"))
    reader.Reload()
    assert reader.Scalars("local_norm/blocks.1.weight")[1].step == 20
    assert reader.Scalars("adam_m_norm/blocks.1.weight")[0].value == pytest.approx(0.1)
    assert reader.Scalars("adam_v_norm/blocks.1.weight")[0].value == pytest.approx(0.02)
    assert reader.Scalars("weight_norm")[0].value == pytest.approx(10.0 * math.sqrt(6))
    assert reader.Scalars("layer-update-ratio/blocks.1")[0].value == pytest.approx(1e-3)
    assert reader.Scalars("layer-attention-entropy/query_layer")[0].value == pytest.approx(0.6)
    assert "layer-attention-entropy/final_norm" not in reader.Tags()["scalars"]


def test_a_resumed_log_goes_on_where_the_checkpoint_was(tmp_path):
    ill = with_value(healthy(0), "update_norm", "blocks.0.weight", 2.0)
    log, scalars = open_log(tmp_path)
    for step in (10, 20, 30):
        warned = log.write(healthy(step, **ill))
    assert len(warned) == 1
    log.close()
    scalars.close()
    log, scalars = open_log(tmp_path, resume_step=20)
    assert log.history.steps == [10, 20]
    assert len(log.write(healthy(30, **ill))) == 1  # the same warning as without the interruption
    assert log.history.steps == [10, 20, 30]
    log.close()
    scalars.close()
    assert [row["step"] for row in read_json_lines(tmp_path / "health.jsonl")] == [10, 20, 30]


def test_an_overflow_is_kept_as_unknown(tmp_path):
    log, scalars = open_log(tmp_path)
    log.write(healthy(10, gradient_norm=dict.fromkeys(healthy(1).gradient_norm, math.inf)))
    log.close()
    scalars.close()
    log, scalars = open_log(tmp_path, resume_step=10)
    assert math.isnan(log.history.samples[0]["blocks.0"].gradient_norm)
    log.draw(tmp_path / "health.png")
    log.close()
    scalars.close()


# The picture.


def history_of(samples: list[HealthSample]) -> HealthHistory:
    history = HealthHistory()
    for sample in samples:
        history.add(sample.step, by_layer(sample), sample.attention_entropy)
    return history


def test_tables_are_layer_by_sample():
    history = history_of([healthy(10), healthy(20, **with_value(healthy(1), "update_norm", "blocks.1.weight", 0.5))])
    layers, table = history.table("update_ratio")
    assert layers == LAYERS
    assert table == pytest.approx(np.array([[0.001, 0.001]] * 3 + [[0.001, 0.05]] + [[0.001, 0.001]] * 2))
    layers, table = history.table("attention_entropy")
    assert layers == ["blocks.0", "blocks.1", "query_layer"]
    assert table.shape == (3, 2)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "samples",
    [
        [],
        [healthy(10)],
        [healthy(10), healthy(20)],
        [HealthSample(5, gradient_norm={"blocks.0.a": 0.0})],
        [HealthSample(step, gradient_norm={f"blocks.{layer}.a": 0.1 for layer in range(64)}) for step in range(1, 900)],
    ],
)
def test_any_history_can_be_drawn(tmp_path, samples):
    draw_health(history_of(samples), tmp_path / "health.png", "a title")
    with Image.open(tmp_path / "health.png") as picture:
        assert picture.width >= 1500
    assert [path.name for path in tmp_path.iterdir()] == ["health.png"]


def test_an_ill_layer_is_seen_in_the_picture(tmp_path):
    well = [healthy(step) for step in range(10, 60, 10)]
    ill = [healthy(step, **with_value(healthy(1), "update_norm", "blocks.1.weight", 0.9)) for step in range(10, 60, 10)]
    draw_health(history_of(well), tmp_path / "well.png")
    draw_health(history_of(ill), tmp_path / "ill.png")

    def dark_red(name: str) -> int:
        with Image.open(tmp_path / name) as picture:
            pixels = np.asarray(picture.convert("RGB")).astype(int)
        half = pixels[: pixels.shape[0] // 2, pixels.shape[1] // 3 : 2 * pixels.shape[1] // 3]
        return int(((half[..., 0] > 140) & (half[..., 1] < 20) & (half[..., 2] < 60)).sum())

    assert dark_red("ill.png") > dark_red("well.png") + 5000
