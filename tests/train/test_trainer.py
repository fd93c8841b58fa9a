"""The loop's own decisions: what a second call does, what it refuses, and how it ends when numbers go wrong."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import ParameterTuple, Tensor, ops

from pangu_alpha.checkpoint.load import Checkpoint, list_checkpoints
from pangu_alpha.checkpoint.parameters import fill_parameters
from pangu_alpha.checkpoint.save import save_checkpoint
from pangu_alpha.config import Config
from pangu_alpha.config_file import load_config
from pangu_alpha.data.dataset import read_records
from pangu_alpha.data.order import arrange_samples
from pangu_alpha.data.prepare import prepare
from pangu_alpha.errors import PanguError
from pangu_alpha.model.numerics import Numerics
from pangu_alpha.model.pangu_alpha import PanguAlphaLoss, PanguAlphaModel
from pangu_alpha.train.step import Stepper
from pangu_alpha.train.trainer import TrainResult, train
from pangu_alpha.train.validation import HeldOutScore
from tests.train.small_run import STEPS, finished_run, rows


@pytest.fixture
def call(folder: Path, monkeypatch: pytest.MonkeyPatch):
    """Train in this process, with settings that lie over those of small.yaml."""
    monkeypatch.chdir(folder)

    def call(*overrides: str) -> TrainResult:
        return train(load_config("small.yaml", overrides).config)

    return call


@pytest.fixture(scope="module")
def whole(folder: Path) -> Path:
    return finished_run(folder)[0]


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> str:
    """The override that names a copy of the finished run."""
    shutil.copytree(whole, tmp_path / "copy")
    return f"train.output={tmp_path / 'copy'}"


def contents(directory: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_a_finished_run_trains_nothing(call, whole: Path) -> None:
    before = contents(whole)
    result = call("train.output=whole")
    assert (result.step, result.finished) == (STEPS, True)
    validations = rows(whole, "validation")
    assert result.before.loss == validations[0]["loss"]
    assert result.after.loss == validations[-1]["loss"]
    assert result.tokens == STEPS * 4 * 32
    assert result.seconds == pytest.approx(sum(row["seconds"] for row in rows(whole)))
    assert {path: value for path, value in contents(whole).items() if path.name != "lock"} == {
        path: value for path, value in before.items() if path.name != "lock"
    }


def test_a_finished_run_with_fewer_steps_asked_for_is_finished(call, copy: str) -> None:
    result = call(copy, "train.steps=6")
    assert (result.step, result.finished) == (STEPS, True)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["train.resume=never"], "train.resume is never, but .* already holds checkpoints"),
        (["model.dropout=0.2"], r"holds a run with model\.dropout 0\.1, and 0\.2 is asked for now"),
        (["model.hidden_size=64"], r"holds a run with model\.hidden_size 32, and 64 is asked for now"),
        (["train.seed=4"], r"holds a run with train\.seed 3, and 4 is asked for now"),
        (["data.order=permuted"], r"holds a run with data\.order 'mixed', and 'permuted' is asked for now"),
        (["data.held_out_share=0.2"], "holds a run with other text or another vocabulary"),
    ],
)
def test_a_used_directory_is_not_taken_for_another_run(call, copy: str, overrides: list[str], message: str) -> None:
    directory = Path(copy.partition("=")[2])
    before = contents(directory)
    with pytest.raises(PanguError, match=message) as error:
        call(copy, *overrides)
    assert str(directory) in str(error.value)
    assert "train.output" in str(error.value)
    assert "\n" not in str(error.value)
    assert {path: value for path, value in contents(directory).items() if path.name != "lock"} == {
        path: value for path, value in before.items() if path.name != "lock"
    }


def test_a_checkpoint_of_another_shape_is_one_line(call, copy: str) -> None:
    # A checkpoint that claims to be of this run, whose tensors are not.
    directory = Path(copy.partition("=")[2])
    checkpoint = Checkpoint(directory / "checkpoints" / f"step_{STEPS:08d}")
    state = dict(checkpoint.train_state)
    state["identity"]["model"]["feed_forward_ratio"] = 2.0
    tensors, config = dict(checkpoint.tensors()), load_config("small.yaml", []).config
    save_checkpoint(directory / "checkpoints", STEPS, tensors, state, config, checkpoint.manifest.tokenizer_sha256)
    with pytest.raises(PanguError) as error:
        call(copy, "model.feed_forward_ratio=2")
    message = str(error.value)
    assert "\n" not in message
    assert "feed_forward.inner.weight has shape [32, 128] there and [32, 64] here" in message
    assert "model.feed_forward_ratio is 4.0 there and 2.0 here" in message


def test_another_batch_goes_on_at_the_exact_next_sample(call, tmp_path: Path, monkeypatch) -> None:
    import pangu_alpha.data.dataset as dataset

    visited: list[int] = []
    arrange = dataset.arrange_samples

    def noting(ids, epochs, samples, seed, data):
        visited.extend(samples.tolist())
        return arrange(ids, epochs, samples, seed, data)

    monkeypatch.setattr(dataset, "arrange_samples", noting)
    same = [f"train.output={tmp_path / 'run'}", "train.validate_every=0", "data.held_out_share=0"]
    call(*same, "train.steps=3")
    first = list(visited)
    visited.clear()
    result = call(*same, "train.steps=5", "train.batch_size=8", "train.micro_batches=1")
    assert result.step == 5 and result.tokens == (3 * 4 + 2 * 8) * 32
    last = Checkpoint(tmp_path / "run" / "checkpoints" / "step_00000005")
    assert last.train_state["samples"] == 28
    whole, samples = result.prepared.train.visited(np.arange(28), 3, True)
    assert (whole == 0).all()
    assert first[:12] + visited[:16] == samples.tolist()  # none skipped, none twice


def test_a_run_starts_from_anothers_weights(call, whole: Path, tmp_path: Path) -> None:
    output = tmp_path / "warm"
    result = call(f"train.init_from={whole}", f"train.output={output}", "train.steps=1", "optimizer.warmup_steps=1")
    after = Checkpoint(whole / "checkpoints" / f"step_{STEPS:08d}")
    # The other run's end is this one's start.
    assert result.before.nats == pytest.approx(after.train_state["held_out"]["after"]["nats"], rel=1e-6)
    assert result.step == 1  # and the optimizer's count begins anew
    assert (
        dict(Checkpoint(output / "checkpoints" / "step_00000001").tensors(["global_step"]))["global_step"].item() == 1
    )


def test_weights_of_another_vocabulary_are_one_line(call, whole: Path, copy: str, tmp_path: Path) -> None:
    directory = Path(copy.partition("=")[2])
    manifest = directory / "checkpoints" / f"step_{STEPS:08d}"
    arrays = dict(Checkpoint(manifest).tensors())
    save_checkpoint(directory / "checkpoints", STEPS + 1, arrays, {}, load_config("small.yaml", []).config, "0" * 64)
    vocabulary = directory / "checkpoints" / f"step_{STEPS + 1:08d}" / "tokenizer"
    vocabulary.mkdir()
    (vocabulary / "vocab.model").write_bytes(b"other")
    with pytest.raises(PanguError, match=r"vocab\.model: SHA-256 .* is not that|has another vocabulary"):
        call(f"train.init_from={directory}", f"train.output={tmp_path / 'no'}", "train.steps=1")


def test_sink_mode_on_a_cpu_is_one_line_and_makes_no_directory(call, tmp_path: Path) -> None:
    place = tmp_path / "run"
    words = [f"train.output={place}", "train.sink_size=2", "train.micro_batches=1", "train.steps=4"]
    with pytest.raises(PanguError, match="train.sink_size is 2, but the CPU has no queue") as error:
        call(*words, "train.checkpoint_every=2", "train.validate_every=2")
    assert "\n" not in str(error.value)
    assert not place.exists()


def test_a_loss_that_is_no_number_stops_the_run_and_names_step_and_checkpoint(call, tmp_path: Path) -> None:
    words = [f"train.output={tmp_path / 'run'}", "optimizer.learning_rate=1e30", "optimizer.clip_norm=0"]
    words += ["train.micro_batches=1", "train.checkpoint_every=1", "train.validate_every=0", "model.dropout=0"]
    messages = []
    for _ in range(2):  # the same command again goes on from the checkpoint, and meets the same step
        with pytest.raises(PanguError) as error:
            call(*words)
        messages.append(str(error.value))
    steps = rows(tmp_path / "run")
    assert steps[-1]["loss"] is None
    assert all(math.isfinite(row["loss"]) for row in steps[:-1])
    newest, good = list_checkpoints(tmp_path / "run" / "checkpoints")
    assert Checkpoint(newest).step == steps[-2]["step"]
    for message in messages:
        assert message.startswith(f"the loss of step {steps[-1]['step']} is nan: training stops")
        assert f"the last good checkpoint is {good}" in message  # the newest one has the weights that were thrown off
        assert "\n" not in message
    # What the message advises goes on from there.
    result = call(f"train.init_from={good}", f"train.output={tmp_path / 'on'}", "train.steps=3")
    assert math.isfinite(result.after.loss)


def test_a_batch_without_a_loss_does_not_make_the_checkpoint_before_it_bad(
    call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole_call = Stepper.__call__

    steps = []

    def counted(stepper: Stepper, batch: object) -> tuple[dict[str, float], np.ndarray]:
        steps.append(batch)
        values, norms = whole_call(stepper, batch)
        return ({**values, "loss": math.nan} if len(steps) == 4 else values), norms

    monkeypatch.setattr(Stepper, "__call__", counted)
    with pytest.raises(PanguError, match=r"the loss of step 4 is nan.*last good checkpoint is .*step_00000003;"):
        call(f"train.output={tmp_path / 'run'}", "train.checkpoint_every=1", "train.validate_every=0")


def test_batches_far_off_are_skipped_and_can_be_found_again(call, tmp_path: Path) -> None:
    # A factor below 1 makes every batch far off, once there are 20 norms to compare with; after ten the run stops.
    run = tmp_path / "run"
    words = [f"train.output={run}", "train.skip_norm_factor=0.01", "train.steps=40", "train.validate_every=0"]
    words += ["train.checkpoint_every=20", "data.held_out_share=0", "train.micro_batches=1"]
    with pytest.raises(PanguError, match="10 batches in a row, up to step 30") as error:
        call(*words)
    assert "\n" not in str(error.value)
    steps = rows(run)
    assert [row["applied"] for row in steps] == [True] * 20 + [False] * 10
    assert rows(run, "validation") == []  # nothing is held out
    skipped = [json.loads(line) for line in (run / "skipped.jsonl").read_text("utf-8").splitlines()]
    assert [row["step"] for row in skipped] == list(range(21, 31))
    for row in skipped:
        assert row["gradient_norm"] == steps[row["step"] - 1]["gradient_norm"] > row["limit"] > 0
    # The rows name the samples: the norm of the first skipped batch comes out again from the weights of step 20.
    # (To the last digits: one operator of the CPU adds one by one in float32, and was off by 1e-4 here.)
    config = load_config("small.yaml", words).config
    assert replayed_norm(config, run, skipped[0]) == pytest.approx(skipped[0]["gradient_norm"], rel=2e-6)


def test_a_batch_across_the_border_of_two_epochs_is_named_sample_by_sample(call, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = [f"train.output={run}", "train.skip_norm_factor=0.01", "train.steps=40", "train.validate_every=0"]
    words += ["train.checkpoint_every=20", "train.batch_size=21", "train.micro_batches=1", "data.held_out_share=0"]
    with pytest.raises(PanguError, match="10 batches in a row"):
        call(*words)
    skipped = [json.loads(line) for line in (run / "skipped.jsonl").read_text("utf-8").splitlines()]
    border = next(row for row in skipped if len(set(row["epochs"])) == 2)
    assert border["epochs"] == sorted(border["epochs"])
    config = load_config("small.yaml", words).config
    assert replayed_norm(config, run, border) == pytest.approx(border["gradient_norm"], rel=2e-6)


def test_the_same_command_goes_on_with_other_words(call, copy: str, caplog) -> None:
    result = call(copy, f"train.steps={STEPS + 1}", "train.skip_norm_factor=50", "train.profile=3-5")
    assert (result.step, result.finished) == (STEPS + 1, True)
    assert "train.skip_norm_factor was 0.0, and is 50.0 from now on" in caplog.text
    assert f"train.profile is 3-5, but this call does steps {STEPS + 1} to {STEPS + 1}: no trace" in caplog.text


def test_a_finished_run_says_that_nothing_is_left_to_do(call, copy: str, caplog) -> None:
    caplog.set_level("INFO", "pangu_alpha")
    call(copy, "train.profile=3-5")
    assert f"finished at step {STEPS} of {STEPS}, nothing is left to do" in caplog.text


def test_health_of_a_run_without_moments(call, tmp_path: Path) -> None:
    words = [f"train.output={tmp_path / 'run'}", "optimizer.kind=sgd", "train.health_every=2", "train.steps=4"]
    words += ["data.held_out_share=0", "train.validate_every=0"]
    call(*words)
    samples = [json.loads(line) for line in (tmp_path / "run" / "health.jsonl").read_text("utf-8").splitlines()]
    assert [sample["step"] for sample in samples] == [2, 4]
    for sample in samples:
        assert set(sample["gradient_norm"]) == set(sample["weight_norm"])
        assert "adam_m_norm" not in sample


def test_refused_weights_leave_no_directory(call, whole: Path, tmp_path: Path) -> None:
    with pytest.raises(PanguError):
        call(f"train.output={tmp_path / 'run'}", f"train.init_from={whole}", "model.hidden_size=64")
    assert not (tmp_path / "run").exists()


def replayed_norm(config: Config, run: Path, row: dict) -> float:
    """Gradient norm of a batch that skipped.jsonl names, without any of the trainer."""
    prepared = prepare(config, Path("runs/prepared"))
    samples = np.array(row["samples"], np.int64)
    ids = next(read_records(prepared.train.files, len(samples), samples))
    batch = arrange_samples(ids, row["epochs"], samples, config.train.seed, config.data)
    model = PanguAlphaModel(config.model, Numerics(), dropout_seed=config.train.seed)
    fill_parameters(list(model.get_parameters()), Checkpoint(run / "checkpoints" / "step_00000020"), config, False)
    network = PanguAlphaLoss(model, config.model.vocab_size)
    micro_step = Tensor([row["step"] - 1], ms.int32)
    gradients = ops.grad(network, None, ParameterTuple(network.trainable_params()))(*map(Tensor, batch), micro_step)
    return float(np.sqrt(sum((gradient.asnumpy().astype(np.float64) ** 2).sum() for gradient in gradients)))


def test_a_score_survives_the_way_through_a_checkpoint(whole: Path) -> None:
    state = Checkpoint(whole / "checkpoints" / f"step_{STEPS:08d}").train_state
    scores = {name: HeldOutScore(**score) for name, score in state["held_out"].items()}
    assert set(scores) == {"before", "after"}
    assert scores["before"].tokens == scores["after"].tokens > 1000
    assert scores["after"].loss < scores["before"].loss
