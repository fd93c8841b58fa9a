"""Finding the checkpoint that a user means, and one writer a run."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from pangu_alpha.checkpoint.format import MANIFEST
from pangu_alpha.checkpoint.load import list_checkpoints, newest_good_checkpoint
from pangu_alpha.checkpoint.run_directory import RunDirectory, RunLock, find_checkpoint, find_tokenizer, newest_run
from pangu_alpha.checkpoint.save import save_checkpoint
from pangu_alpha.config import Config
from pangu_alpha.errors import PanguError

VOCABULARY = b"the vocabulary"


def make_run(path: Path, *steps: int) -> Path:
    import hashlib

    digest = hashlib.sha256(VOCABULARY).hexdigest()
    for step in steps:
        save_checkpoint(RunDirectory(path).checkpoints, step, {"w": np.zeros(3, np.float32)}, {}, Config(), digest)
    tokenizer = RunDirectory(path).tokenizer
    tokenizer.parent.mkdir(parents=True)
    tokenizer.write_bytes(VOCABULARY)
    return path


def test_the_newest_run_is_the_one_saved_last(tmp_path: Path) -> None:
    assert newest_run(tmp_path / "nowhere") is None
    assert newest_run(tmp_path) is None
    make_run(tmp_path / "b", 900)
    time.sleep(0.01)
    make_run(tmp_path / "a", 100, 200)
    (tmp_path / "z" / "checkpoints").mkdir(parents=True)  # not trained yet
    (tmp_path / "a-file").write_text("")
    assert newest_run(tmp_path).path == tmp_path / "a"
    assert find_checkpoint(None, tmp_path).directory == tmp_path / "a" / "checkpoints" / "step_00000200"
    (RunDirectory(tmp_path / "a").checkpoints / "step_00000200" / MANIFEST).write_text("{}")
    assert find_checkpoint(None, tmp_path).step == 100  # the damaged one counts for nothing


def test_every_way_to_name_a_checkpoint(tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs" / "a", 100, 200)
    old = run / "checkpoints" / "step_00000100"
    for name, step in [
        (run, 200),
        (run / "checkpoints", 200),
        (old, 100),
        (old / MANIFEST, 100),
        (old / "rank_0000.safetensors", 100),
        (tmp_path / "runs", 200),
        (str(run), 200),
    ]:
        assert find_checkpoint(name).step == step


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("runs/quickstrat-1", "no such directory; trained models here: {}/runs/quickstart-1"),
        ("runs/begun", "no complete checkpoint yet"),
        ("runs/quickstart-1/checkpoints/step_00000300", "never completed"),
        ("runs/quickstart-1/tokenizer", "neither a run"),
    ],
)
def test_what_is_not_there_is_one_helpful_line(tmp_path: Path, name: str, words: str) -> None:
    make_run(tmp_path / "runs" / "quickstart-1", 100)
    (tmp_path / "runs" / "begun" / "checkpoints").mkdir(parents=True)
    (tmp_path / "runs" / "quickstart-1" / "checkpoints" / "step_00000300").mkdir()
    with pytest.raises(PanguError) as error:
        find_checkpoint(tmp_path / name, tmp_path / "runs")
    assert words.format(tmp_path) in str(error.value)
    assert "\n" not in str(error.value)


def test_nothing_trained_says_how(tmp_path: Path) -> None:
    for directory in (None, tmp_path / "x"):
        with pytest.raises(PanguError, match=r"\./run_train\.sh"):
            find_checkpoint(directory, tmp_path)


def test_a_damaged_checkpoint_that_was_named_is_an_error(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a", 100, 200)
    path = run / "checkpoints" / "step_00000200" / "rank_0000.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(PanguError, match="tensor w differs"):
        find_checkpoint(path.parent)
    assert find_checkpoint(run).step == 100


def test_the_vocabulary_of_a_checkpoint(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a", 100)
    checkpoint = find_checkpoint(run)
    place = RunDirectory(run).tokenizer
    assert find_tokenizer(checkpoint) == place.absolute()
    place.write_bytes(b"another")
    with pytest.raises(PanguError, match="is not that of the vocabulary"):
        find_tokenizer(checkpoint)
    place.unlink()
    with pytest.raises(PanguError, match="its vocabulary is missing; put vocab.model at"):
        find_tokenizer(checkpoint)
    own = checkpoint.directory / "tokenizer" / "vocab.model"  # a checkpoint that travels alone
    own.parent.mkdir()
    own.write_bytes(VOCABULARY)
    assert find_tokenizer(checkpoint) == own.absolute()


HOLD = """
import sys
from pathlib import Path
from pangu_alpha.checkpoint.run_directory import RunLock
with RunLock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def hold(run: Path) -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, run], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_writer_is_told_who_writes(tmp_path: Path) -> None:
    run = tmp_path / "a"
    with hold(run) as process:
        with pytest.raises(PanguError, match=rf"is being written by process {process.pid} on .*train\.output"):
            RunLock(run).__enter__()
        process.stdin.close()
        process.wait()
    with RunLock(run):
        pass


def test_the_lock_goes_with_a_killed_process(tmp_path: Path) -> None:
    with hold(tmp_path) as process:
        process.kill()
        process.wait()
    with RunLock(tmp_path):
        pass


def test_one_process_cannot_take_it_twice(tmp_path: Path) -> None:
    with RunLock(tmp_path):
        with pytest.raises(PanguError, match="by this process"):
            RunLock(tmp_path).__enter__()
        with RunLock(tmp_path / "other"):
            pass
    with RunLock(tmp_path):
        assert "process" in (tmp_path / "lock").read_text()
    assert (tmp_path / "lock").read_text() == ""


def test_the_lock_clears_what_a_killed_process_left(tmp_path: Path) -> None:
    checkpoints = RunDirectory(make_run(tmp_path / "a", 100, 200)).checkpoints
    half = checkpoints / ".step_00000300.host.1.partial"
    half.mkdir()
    (half / "rank_0000.safetensors").write_bytes(b"abc")
    (checkpoints / "step_00000200").rename(checkpoints / ".step_00000200.host.1.partial.old")
    without_manifest = checkpoints / "step_00000050"
    without_manifest.mkdir()
    (checkpoints / "notes.txt").write_text("mine")
    with RunLock(tmp_path / "a"):
        assert sorted(path.name for path in checkpoints.iterdir()) == ["notes.txt", "step_00000100", "step_00000200"]
    assert [path.name for path in list_checkpoints(checkpoints)] == ["step_00000200", "step_00000100"]
    assert newest_good_checkpoint(checkpoints)[0].step == 200


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PanguError, match="cannot"):
        RunLock(tmp_path / "file" / "run").__enter__()
