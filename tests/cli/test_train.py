"""`pangu-alpha train` as a user meets it: the summary at the end, and one line for everything that can be wrong."""

from __future__ import annotations

import gzip
import logging
import os
import re
import resource
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pangu_alpha.checkpoint.load import list_checkpoints
from pangu_alpha.cli.main import main
from pangu_alpha.config_file import load_config
from pangu_alpha.data.prepare import prepare
from pangu_alpha.train.run_identity import output_directory, run_identity
from tests.train.small_run import STEPS, finish, finished_run, rows, start

REVIEW = "这家酒店的服务很好，房间也很干净，下次来还会选择这里。" * 20


# -- when all goes well ----------------------------------------------------------------------------------------------


def test_the_last_screen(folder: Path) -> None:
    run, out, err = finished_run(folder)
    patterns = [
        r"small: 12 steps, 0\.00 M tokens, [\d,]+ tokens/s",
        r"  held-out perplexity   [\d,]+ before, [\d.]+ after \([\d,]+ tokens\)",
        r"  bits per character    [\d.]+; a smoothed character 3-gram model of the same text: [\d.]+ \(the .* wins\)",
        rf"  checkpoint            whole/checkpoints/step_{STEPS:08d}",
        r"  loss curve            whole/loss\.png",
        r"  TensorBoard           tensorboard --logdir whole/tensorboard",
        r"it writes:",
        r"  服务\|.+",
        r"  房间\|.+",
        r"  很\[MASK\]: .+ \d+%, .+ \d+%, .+ \d+%",
        r"next:",
        r"  .*pangu-alpha generate --checkpoint whole +\(.*",
        r"  .*pangu-alpha generate --checkpoint whole --infill .*",
        r"  .*pangu-alpha train --help .*",
    ]
    lines = [line for line in out.splitlines() if line]
    for line, pattern in zip(lines, patterns, strict=True):
        assert re.fullmatch(pattern, line), line
    # Where there is no terminal the progress is plain lines.
    assert re.search(rf"^step 10/{STEPS}  loss [\d.]+ .* tokens/s", err, re.MULTILINE)
    assert "\r" not in err
    assert "\x1b" not in out + err


def test_what_a_run_leaves(folder: Path) -> None:
    run, _, _ = finished_run(folder)
    names = {path.name for path in run.iterdir()}
    assert names == {
        "checkpoints",
        "config.yaml",
        "lock",
        "loss.png",
        "metrics.jsonl",
        "summary.json",
        "tensorboard",
        "tokenizer",
    }
    assert [path.name for path in list_checkpoints(run / "checkpoints")] == ["step_00000012", "step_00000010"]
    assert (run / "tokenizer" / "vocab.model").read_bytes() == (folder / "vocab.model").read_bytes()
    # The merged configuration stands by itself: the same command with it trains nothing more.
    assert "permuted_share: 0.5" in (run / "config.yaml").read_text("utf-8")


def test_the_same_command_again_shows_the_same_and_trains_nothing(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _, out, _ = finished_run(folder)
    before = (folder / "whole" / "metrics.jsonl").read_bytes()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(logging.getLogger("pangu_alpha"), "handlers", [])
    words = ["report.prompts=[服务, 房间]", "report.infills=[很[MASK]]", "report.baseline=true"]
    assert main(["train", "--config", "whole/config.yaml", "train.output=whole", *words]) == 0
    captured = capsys.readouterr()
    assert captured.out == out
    assert f"whole: finished at step {STEPS} of {STEPS}" in captured.err
    assert (folder / "whole" / "metrics.jsonl").read_bytes() == before


# -- when something is wrong -----------------------------------------------------------------------------------------


@pytest.fixture
def refused(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Callable[..., str]:
    """The one line with which the job ends, in an empty directory that stays as it is."""

    def refused(code: int, *words: str) -> str:
        monkeypatch.chdir(tmp_path)
        # Handlers write to the stderr that they were made with.
        monkeypatch.setattr(logging.getLogger("pangu_alpha"), "handlers", [])
        before = {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")}
        assert main(["train", "--config", str(folder / "small.yaml"), *words]) == code
        captured = capsys.readouterr()
        assert captured.out == ""
        *rest, last = captured.err.splitlines()
        assert last.startswith("pangu-alpha: ")
        assert not [line for line in rest if line.startswith("pangu-alpha") or "Error" in line]
        places = (tmp_path / "runs", tmp_path / "runs" / "prepared")
        after = {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*") if path not in places}
        assert after == before
        return last.removeprefix("pangu-alpha: ")

    return refused


def test_missing_text(refused) -> None:
    assert refused(1, "data.sources=[no.txt]") == "data.sources: there is no file or folder no.txt"


def test_no_sources(refused) -> None:
    message = refused(2, "data.sources=[]")
    assert "data.sources" in message


@pytest.mark.parametrize("content", [b"", b" \n\n \t\n", "\ufeff".encode()], ids=["nothing", "spaces", "a mark"])
def test_empty_text(refused, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "empty.txt").write_bytes(content)
    message = refused(1, "data.sources=[empty.txt]")
    assert "empty.txt" in message
    assert "no text" in message


def test_too_little_text(refused, tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("今天天气很好。", encoding="utf-8")
    message = refused(1, "data.sources=[short.txt]", "data.held_out_share=0")
    assert "one sample of model.seq_length 32 needs 33" in message


def test_text_in_gbk(refused, tmp_path: Path) -> None:
    (tmp_path / "old.txt").write_bytes(REVIEW.encode("gbk"))
    message = refused(1, "data.sources=[old.txt]")
    assert "old.txt" in message
    assert "gb18030" in message.lower() or "gbk" in message.lower()
    assert "data.encoding=" in message or "iconv" in message


@pytest.mark.parametrize("damage", ["cut", "changed", "not gzip"])
def test_a_corrupt_gz(refused, tmp_path: Path, damage: str) -> None:
    content = bytearray(gzip.compress(os.urandom(500).hex().encode() + REVIEW.encode()))
    if damage == "cut":
        content = content[: len(content) // 2]
    elif damage == "changed":
        content[len(content) // 2] ^= 0xFF
    else:
        content = bytearray(REVIEW.encode())
    (tmp_path / "bad.txt.gz").write_bytes(bytes(content))
    message = refused(1, "data.sources=[bad.txt.gz]")
    assert "bad.txt.gz" in message


def test_a_missing_vocabulary(refused, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(REVIEW, encoding="utf-8")
    assert "no.model" in refused(1, "data.sources=[text.txt]", "tokenizer.path=no.model")


def test_a_vocabulary_larger_than_the_model(refused, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(REVIEW, encoding="utf-8")
    message = refused(1, "data.sources=[text.txt]", "data.held_out_share=0", "model.vocab_size=100")
    assert "the vocabulary has 2000 pieces, but model.vocab_size is 100; set model.vocab_size=2000" in message


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("train.step=5", "train.steps"),
        ("models.hidden_size=5", "model"),
        ("train.steps=many", "train.steps"),
        ("train.steps=0", "train.steps"),
        ("model.num_heads=5", "it must divide hidden_size 32"),
        ("train.micro_batches=3", "it must divide batch_size 4"),
        ("data.order=shuffled", "sequential, permuted, mixed"),
        ("optimizer.decay_steps=1", "it must be greater than warmup_steps"),
    ],
)
def test_a_setting_that_cannot_be(refused, word: str, message: str) -> None:
    assert message in refused(2, word)


def test_bad_use_of_the_command_line(refused) -> None:
    assert "--nonsense" in refused(2, "--nonsense")
    assert "first-last" in refused(2, "--profile", "ten")


def test_a_configuration_that_is_not_there(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--config", "no.yaml"]) in (1, 2)
    assert capsys.readouterr().err.count("\n") == 1


def test_a_device_and_a_run_that_are_refused_leave_nothing(
    folder: Path,
    tmp_path: Path,
    monkeypatch,
    capsys,
) -> None:
    finished_run(folder)
    monkeypatch.chdir(folder)
    for word, message in (
        ("train.device=gpu", "device gpu cannot be used"),
        ("train.sink_size=2", "the CPU has no queue for dataset sink mode"),
    ):
        monkeypatch.setattr(logging.getLogger("pangu_alpha"), "handlers", [])
        words = ["train.micro_batches=1", "train.checkpoint_every=2", f"train.output={tmp_path / 'run'}", word]
        assert main(["train", "--config", "small.yaml", *words]) == 1
        assert message in capsys.readouterr().err.splitlines()[-1]
        assert not list(tmp_path.iterdir())
    monkeypatch.setattr(logging.getLogger("pangu_alpha"), "handlers", [])
    assert main(["train", "--config", "small.yaml", "train.output=whole", "train.seed=5"]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("pangu-alpha: whole holds a run with train.seed 3, and 5 is asked for now")


def test_a_changed_setting_is_a_run_of_its_own(folder: Path, monkeypatch) -> None:
    # Where train.output is auto, as it is unless given; settings of the loop alone change nothing.
    monkeypatch.chdir(folder)
    places = set()
    for words in ([], ["train.seed=5"], ["optimizer.beta2=0.98"], ["train.steps=50"], ["train.log_every=1"]):
        config = load_config("small.yaml", words).config
        prepared = prepare(config, Path("runs/prepared"))
        places.add(output_directory(config, run_identity(config, prepared.fingerprint), Path("runs")))
    assert len(places) == 3
    assert all(re.fullmatch(r"runs/small-[0-9a-f]{8}", str(place)) for place in places)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[tuple[Path, str, Callable[[], None] | None]]:
    """A place for 600 KiB, what is said when it is full, and what limits the process where nobody may mount."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", place]
    if os.geteuid() == 0 and subprocess.run(mount, capture_output=True).returncode == 0:
        yield place, "no space is left on the disk; free some, or write elsewhere", None
        subprocess.run(["umount", place], check=True)
        return
    limit = 600 * 1024
    yield place, "the file would exceed the size", lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))


def test_no_disk_space_for_a_checkpoint(folder: Path, small_disk) -> None:
    place, message, limit = small_disk
    run = place / "run"
    out, err = finish(start(folder, f"train.output={run}", "train.validate_every=0", before=limit), 1)
    last = err.splitlines()[-1]
    assert last.startswith(f"pangu-alpha: cannot write {run}/checkpoints/step_00000005")
    assert message in last
    assert err.count("pangu-alpha:") == 1
    assert out == ""
    steps = [row["step"] for row in rows(run)]
    assert steps == list(range(1, len(steps) + 1))
    assert 5 <= len(steps) <= 10, "saving goes on beside the steps, but the next save waits for this one"
    assert not list((run / "checkpoints").iterdir())


def test_no_disk_space_for_the_text(folder: Path, small_disk) -> None:
    place, message, limit = small_disk
    (place / "filler").write_bytes(bytes(300 * 1024))
    words = ("--config", str(folder / "small.yaml"))
    out, err = finish(start(place, *words, before=limit), 1)
    last = err.splitlines()[-1]
    assert last.startswith("pangu-alpha: no space for the packed text in runs/prepared/small-") or message in last
    assert not [path for path in (place / "runs").rglob("*") if path.is_file()]
    assert out == ""
