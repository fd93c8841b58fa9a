"""Real graphs of all ranks, run beside one device: what the issue of this emulator is about.

Compiling takes about ten seconds a rank, so few layouts are compiled, and each serves many tests.
"""

from __future__ import annotations

import re

import numpy as np
import pytest

from pangu_alpha.config_file import load_config
from pangu_alpha.errors import PanguError, UsageError
from pangu_alpha.rehearsal.calls import Calls
from pangu_alpha.rehearsal.communication import bytes_by_group, read_communication
from pangu_alpha.rehearsal.emulator.batches import batch_of_step
from pangu_alpha.rehearsal.emulator.disagreement import disagreements
from pangu_alpha.rehearsal.emulator.emulation import (
    STEP,
    EmulatedRun,
    check_emulated,
    compare_run,
    compile_run,
    compile_with_reference,
)
from pangu_alpha.rehearsal.emulator.matrix_product import LEFT, RIGHT, STRATEGIES, run_product
from pangu_alpha.rehearsal.emulator.plant import PLANTS, plant_named
from pangu_alpha.rehearsal.emulator.reference import reference_steps

SGD = ("optimizer.kind=sgd", "optimizer.learning_rate=0.5", "optimizer.clip_norm=0.5")


def _config(repository, *overrides: str):
    return load_config(repository / "configs" / "twins" / "all_five.yaml", ["model.num_layers=2", *overrides]).config


# -- the seed of it all -----------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", STRATEGIES)
def test_a_product_on_four_devices(tmp_path, name):
    parts = run_product(name, tmp_path)
    (rows, inner), (_, columns) = STRATEGIES[name]
    for rank, part in enumerate(parts):
        left = np.split(np.split(LEFT, rows)[rank // columns if rows > 1 else 0], inner, 1)[rank % inner]
        right = np.split(np.split(RIGHT, inner)[rank % inner], columns, 1)[rank % columns]
        np.testing.assert_array_equal(part.left, left)
        np.testing.assert_array_equal(part.right, right)
        np.testing.assert_array_equal(part.product, left @ right)
        assert len(part.calls) == (inner > 1)
        if inner > 1:
            np.testing.assert_array_equal(part.result, LEFT @ RIGHT)


# -- all five dimensions ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def all_five(repository, tmp_path_factory):
    """Data, model and pipeline parallelism of 2, optimizer shards, recomputation, 4 micro batches, dropout; AdamW."""
    return compile_with_reference(_config(repository), tmp_path_factory.mktemp("all_five"), 3)


@pytest.mark.slow
def test_all_ranks_do_what_one_device_does(all_five):
    run, references = all_five
    emulated = EmulatedRun(run)
    comparisons = list(compare_run(emulated, references))
    assert [comparison.too_large for comparison in comparisons] == [[], [], []]
    assert emulated.cluster.device_deadlocks == []
    losses = [comparison.reference["loss"] for comparison in comparisons]
    assert len(set(losses)) == 3, "weights move"
    for comparison in comparisons:
        names = {difference.name for difference in comparison.parameters}
        assert {"word_table", "adam_v.word_table", "accu_grads.word_table", "blocks.0.attention.output.weight"} <= names
        assert {(rank, name.rpartition(".")[2]) for rank, name in comparison.idle} == {
            (rank, "word_table") for rank in range(4, 8)
        }


@pytest.mark.slow
def test_masks_come_from_the_counter(all_five):
    """Otherwise equal losses would prove nothing: dropout and recomputation are on, and masks change with the step."""
    run, references = all_five
    assert run.config.model.dropout > 0 and run.config.parallel.recompute == "full"
    emulated = EmulatedRun(run)
    batch = batch_of_step(run.config, 0)
    emulated.step(batch)  # the learning rate is still 0
    again = emulated.step(batch)[0][0]["loss"]
    assert abs(again - references[0].metrics["loss"]) > 1e-3


@pytest.mark.slow
def test_traffic_is_what_dry_run_reads(all_five):
    run, _ = all_five
    emulated = EmulatedRun(run)
    emulated.step(batch_of_step(run.config, 0))
    for rank, graph in enumerate(run.graphs[STEP]):
        planned = read_communication(Calls(graph), run.groups(rank), rank)
        counted = emulated.traffic(rank)
        assert {key: traffic.bytes for key, traffic in counted.items()} == bytes_by_group(planned)
        calls = {key: sum(item.times for item in planned if (item.operator, item.ranks) == key) for key in counted}
        assert {key: traffic.calls for key, traffic in counted.items()} == calls


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "mismatched_collective",
            r"do not match in group \S+ .*rank 0 at AllReduce sum .*, but rank 1 at AllReduce max",
        ),
        ("receive_without_send", r"rank 4 at Receive from rank 0 .*Default/.*no matching Send in the graph of rank 0"),
        ("circular_wait", r"in a circle: rank 0 at Receive from rank 1 .*; then rank 1 at Receive from rank 0"),
        ("different_order", r"in another order.*: rank 1 at \w+ .*\(\S+\), but rank 3 at \w+ .*\(\S+\)"),
    ],
)
def test_planted_errors_are_explained(all_five, name, words):
    run, references = all_five
    with pytest.raises(PanguError, match=words):
        list(compare_run(EmulatedRun(run.with_error(plant_named(name, run.config))), references))


@pytest.mark.slow
def test_a_missing_all_reduce_shows_in_the_norm(all_five):
    run, references = all_five
    wrong = run.with_error(PLANTS["missing_all_reduce"])
    emulated = EmulatedRun(wrong)
    (first,) = compare_run(emulated, references[:1])
    assert {"gradient_norm", "loss"} <= {difference.name for difference in first.too_large}
    assert "ranks 0 and 4 disagree on loss" in disagreements(first, emulated.cluster.ranks)[0], "first and last stage"


@pytest.mark.slow
def test_a_disturbed_weight_of_one_rank_is_found(all_five):
    """Equal losses would not do: one rank's optimizer shard of one weight is wrong by little, and only after a step."""
    run, references = all_five
    emulated = EmulatedRun(run)
    name = "adam_m.blocks.0.attention.query.bias"
    emulated.set_parameter(2, name, emulated.parameters(2)[name] + np.float32(1e-3))
    (first,) = compare_run(emulated, references[:1])
    assert {(difference.name, difference.rank) for difference in first.too_large} == {(name, 2)}


def test_a_wrong_strategy_shows_in_the_norm(repository, tmp_path):
    plant = PLANTS["wrong_strategy"]
    overrides = [f"parallel.{key}=1" for key in ("data_parallel", "pipeline_stages", "optimizer_shards")]
    run, references = compile_with_reference(_config(repository, *overrides), tmp_path, 1, plant=plant)
    (first,) = compare_run(EmulatedRun(run), references)
    names = {difference.name for difference in first.too_large}
    assert "gradient_norm" in names
    assert any(re.fullmatch(r"norm of gradient of .*\.output\.weight", name) for name in names)


# -- loss scale, overflow ---------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_one_ranks_overflow_skips_the_step_on_all(repository, tmp_path):
    """float16 with a dynamic loss scale; before the second step one gradient of one rank is made infinite."""
    config = _config(repository, "model.compute_dtype=float16", "loss_scale.initial=1024", "model.dropout=0")
    name = "accu_grads.blocks.0.feed_forward.inner.bias"

    def disturb(number, values):
        if number == 1:
            values[name] = np.full_like(values[name], np.inf)

    run = compile_run(config, tmp_path)
    references = list(reference_steps(config, [batch_of_step(config, number) for number in range(3)], disturb))
    emulated = EmulatedRun(run)
    for number, reference in enumerate(references):
        before = [emulated.parameters(rank) for rank in range(8)]
        if number == 1:
            value = before[1][name].copy()
            value[0] = np.inf
            emulated.set_parameter(1, name, value)
        results = emulated.step(batch_of_step(config, number))
        for rank, (metrics, _) in enumerate(results):
            after = emulated.parameters(rank)
            assert metrics["applied"] == (number != 1) == reference.metrics["applied"]
            assert metrics["loss"] == pytest.approx(reference.metrics["loss"], rel=2e-3)
            assert float(after["loss_scale"]) == float(reference.parameters["loss_scale"]) == (1024, 512, 512)[number]
            sums = {key: value for key, value in after.items() if key.startswith("accu_grads")}
            assert sums and all((value == 0).all() for value in sums.values()), "nothing infinite is left behind"
            if number == 1:
                kept = [key for key in after if key not in ("micro_step", "loss_scale") and key not in sums]
                moved = [key for key in kept if not np.array_equal(after[key], before[rank][key])]
                assert all("scale" in key or "step" in key for key in moved), moved


# -- gradients, not hidden by Adam ------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("target", ["ascend", "gpu"])
def test_plain_descent_with_clipping_and_whole_optimizer_states(repository, tmp_path, target):
    """SGD shows a wrong scale, and without optimizer shards the tied table's gradient could count twice."""
    config = _config(repository, *SGD, "parallel.optimizer_shards=1", "parallel.recompute=none")
    run, references = compile_with_reference(config, tmp_path, 3, target)
    emulated = EmulatedRun(run)
    comparisons = list(compare_run(emulated, references))
    assert [comparison.too_large for comparison in comparisons] == [[], [], []]
    assert all(comparison.reference["gradient_norm"] > 0.5 for comparison in comparisons), "clipped"
    assert emulated.cluster.device_deadlocks == []


@pytest.mark.slow
def test_gradients_accumulated_without_a_pipeline(repository, tmp_path):
    """Two graphs a step, which share their parameters."""
    config = _config(
        repository, *SGD, "parallel.pipeline_stages=1", "train.micro_batches=2", "parallel.model_parallel=1"
    )
    run, references = compile_with_reference(config, tmp_path, 2)
    assert set(run.graphs) == {"accumulate", "step"}
    assert [comparison.too_large for comparison in compare_run(EmulatedRun(run), references)] == [[], []]


# -- bad input --------------------------------------------------------------------------------------------------------


def test_number_of_devices(repository):
    alone = [f"parallel.{key}=1" for key in ("data_parallel", "model_parallel", "pipeline_stages", "optimizer_shards")]
    with pytest.raises(UsageError, match="this run has one device, so there is nothing to emulate; take one of"):
        check_emulated(_config(repository, *alone))
    with pytest.raises(UsageError, match="this run has 2048 devices, and at most 16 are emulated; take its twin"):
        check_emulated(load_config(repository / "configs" / "runs" / "200b_2048.yaml").config)
    check_emulated(_config(repository))
