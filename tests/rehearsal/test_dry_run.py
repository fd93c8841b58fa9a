"""Choosing ranks, and dry runs from the command line to their reports."""

from __future__ import annotations

import ast
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import pytest

from pangu_alpha.config_file import load_config
from pangu_alpha.errors import PanguError, UsageError
from pangu_alpha.parallel.layout import Layout
from pangu_alpha.rehearsal import communication
from pangu_alpha.rehearsal import dry_run as dry_runs
from pangu_alpha.rehearsal.dry_run import choose_ranks, dry_run

LAYOUT = Layout(data_parallel=2, model_parallel=4, pipeline_stages=3, micro_batches=3)
TINY = [
    "model.vocab_size=64", "model.hidden_size=32", "model.num_layers=2", "model.num_heads=4", "model.seq_length=16",
    "train.batch_size=4", "parallel.data_parallel=2", "parallel.model_parallel=2",
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "ranks"),
    [
        ("5", [5]),
        ("first,middle,last", [0, 12, 23]),
        ("stages", [0, 8, 16]),
        ("last, 3,first,3", [0, 3, 23]),
        ("all", list(range(24))),
    ],
)
def test_ranks_are_numbers_or_words(text, ranks):
    assert choose_ranks(text, LAYOUT) == ranks


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("24", "there is no rank 24 in a run of 24 devices; allowed: 0 to 23"),
        ("first,-1", "there is no rank -1"),
        ("front", "'front' is no rank; allowed: numbers and first, middle, last"),
        ("1.5", "'1.5' is no rank"),
        (" , ", "names no rank"),
    ],
)
def test_other_ranks_are_one_line(text, message):
    with pytest.raises(UsageError, match=message):
        choose_ranks(text, LAYOUT)


def small(monkeypatch, program: str, keep: Path | None = None):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    return dry_run(load_config(None, TINY).config, [1], "gpu", keep=keep, program=f"small_program:{program}")


def test_files_are_kept_where_asked_or_where_a_compile_failed(monkeypatch, tmp_path):
    monkeypatch.setattr(dry_runs.tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    run = small(monkeypatch, "good", tmp_path / "kept")
    assert (tmp_path / "kept" / "rank_0001" / "step" / "graph.mindir").stat().st_size > 1000
    assert run.ranks[0].rank == 1
    assert run.mindspore
    small(monkeypatch, "good")
    assert not list((tmp_path / "temporary").iterdir())
    with pytest.raises(PanguError, match="GeLU") as caught:
        small(monkeypatch, "impossible_strategy")
    log = Path(re.search(r"said: (\S+)", str(caught.value))[1])
    assert "PARALLEL" in log.read_text()


def test_a_run_is_in_order_only_without_findings(monkeypatch):
    assert not small(monkeypatch, "without_strategy").in_order


def command(*words: str, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pangu_alpha.cli.main", "dry-run", *words],
        capture_output=True, text=True, timeout=300, **options,
    )  # fmt: skip


@pytest.mark.slow
def test_the_job_reports_in_three_forms(tmp_path):
    page, numbers = tmp_path / "page.html", tmp_path / "numbers.json"
    config = tmp_path / "tiny.yaml"
    config.write_text("name: tiny\n")
    words = [str(config), *TINY]
    done = command("--config", *words, "--ranks", "last", "--html", str(page), "--json", str(numbers), "--strict")
    assert done.returncode == 0, done.stderr
    assert "compiling rank 3 of 4 for ascend" in done.stderr
    assert "tiny for ascend, 4 ranks: data 2, model 2" in done.stdout
    assert re.search(r"unplanned redistributions\s+0", done.stdout)
    assert re.search(r"without a strategy\s+0", done.stdout)
    content = json.loads(numbers.read_text())
    assert content["in_order"] is True
    assert content["layout"]["devices"] == 4
    (rank,) = content["ranks"]
    assert rank["rank"] == 3
    assert (
        rank["memory"]["total"] == rank["memory"]["static"] + rank["memory"]["inputs"] + rank["memory"]["activations"]
    )
    assert sum(row["bytes"] for row in rank["communication"]) == sum(
        item["times"] * item["bytes"] for item in rank["communication_operators"]
    )
    text = page.read_text()
    assert text.count("<svg") == 3
    assert not re.search(r"https?://|<script|<link|<img|url\(", text)
    ElementTree.fromstring(text.partition("\n")[2])  # well formed


def test_what_its_user_gets_wrong_is_one_line(tmp_path):
    for words, message in [
        (["--ranks", "99", *TINY], "there is no rank 99 in a run of 4 devices"),
        ([*TINY, "parallel.model_parallel=3"], "model_parallel"),
        (["--target", "tpu"], "invalid choice: 'tpu'"),
        (["--at-once", "0"], "at least 1"),
    ]:
        done = command("--config", str(_empty(tmp_path)), *words)
        assert done.returncode == 2, done.stderr
        assert message in done.stderr
        assert done.stderr.strip().count("\n") == 0
    (tmp_path / "temporary").mkdir()
    without_compiler = {**os.environ, "PATH": str(tmp_path), "CC": "", "XDG_CACHE_HOME": str(tmp_path / "cache")}
    without_compiler["TMPDIR"] = str(tmp_path / "temporary")
    done = command("--config", str(_empty(tmp_path)), *TINY, env=without_compiler)
    assert done.returncode == 1
    assert "no C compiler found" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "temporary").iterdir())


def test_ctrl_c_ends_the_compilers_too(tmp_path):
    words = [
        "--config",
        str(_empty(tmp_path)),
        *TINY,
        "--ranks",
        "all",
        "--at-once",
        "2",
        "--keep",
        str(tmp_path / "kept"),
    ]
    started = subprocess.Popen(
        [sys.executable, "-m", "pangu_alpha.cli.main", "dry-run", *words],
        stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    log = tmp_path / "kept" / "rank_0001" / "step" / "log.txt"
    deadline = time.monotonic() + 60
    while not (log.exists() and log.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(started.pid, signal.SIGINT)  # the job alone: a terminal would send it to the compilers as well
    _, said = started.communicate(timeout=60)
    assert started.returncode == 130
    assert said.splitlines()[-1] == "pangu-alpha: interrupted"
    with pytest.raises(ProcessLookupError):
        os.killpg(started.pid, 0)  # nobody of its session is left


def _empty(folder: Path) -> Path:
    path = folder / "empty.yaml"
    path.write_text("name: empty\n")
    return path


def test_no_second_model_or_step_is_built_here(repository):
    """A cell of its own in rehearsal/ would compile something that nobody trains; the step comes from the trainer."""
    for path in (repository / "pangu_alpha" / "rehearsal").rglob("*.py"):
        source = path.read_text(encoding="utf-8")
        if path.name == "matrix_product.py":  # one product of matrices, the first example of all: no part of a model
            assert "pangu_alpha.model" not in source
            continue
        for node in ast.walk(ast.parse(source)):
            bases = [ast.unparse(base) for base in node.bases] if isinstance(node, ast.ClassDef) else []
            assert not any(base.endswith("Cell") for base in bases), f"{path}: class {node.name} is a cell"
    text = (repository / "pangu_alpha" / "rehearsal" / "program.py").read_text(encoding="utf-8")
    trainer = (repository / "pangu_alpha" / "train" / "trainer.py").read_text(encoding="utf-8")
    assert "build_training_step(" in text
    assert "build_training_step(" in trainer


@pytest.mark.slow
def test_micro_batches_that_the_host_cuts_count_all():
    words = ["parallel.optimizer_shards=1", "model.dropout=0.0"]
    once = dry_run(load_config(None, [*TINY, *words]).config, [0], "ascend").ranks[0]
    four = ["train.batch_size=16", "train.micro_batches=4"]
    often = dry_run(load_config(None, [*TINY, *words, *four]).config, [0], "ascend").ranks[0]
    assert not often.unplanned
    for purpose in (communication.PRODUCT, communication.PRODUCT_BACKWARD, communication.WEIGHT_GRADIENT):
        first, second = (
            sum(item.bytes_a_step for item in rank.communication if item.purpose == purpose) for rank in (once, often)
        )
        assert second == 4 * first > 0
    assert often.operators["Softmax"] == 4 * once.operators["Softmax"]
    assert often.operators["AdamWeightDecay"] == once.operators["AdamWeightDecay"]
    assert once.memory.gradients == 0
    assert often.memory.gradients == often.memory.weights


@pytest.mark.slow
def test_a_rank_of_200_billion_parameters_compiles_on_a_laptop(repository, tmp_path):
    config = load_config(repository / "configs" / "runs" / "200b_2048.yaml").config
    run = dry_run(config, [1024], "ascend", keep=tmp_path)
    (rank,) = run.ranks
    assert run.in_order
    assert rank.stage == 8
    assert rank.peak_bytes < 3 * 2**30
    assert rank.memory.kept_at_once == 8
    # Four layers of 12 h² + 13 h over 16 model-parallel ranks, norms and output biases whole.
    hidden, m = 16384, 16
    layer = 12 * hidden**2 // m + 7 * hidden // m + 6 * hidden
    assert rank.memory.weights == 4 * 4 * layer
    assert rank.memory.moments == 2 * rank.memory.weights
    assert rank.memory.gradients == rank.memory.weights


def test_the_parent_needs_no_mindspore():
    """It waits beside compilers that need the memory."""
    code = (
        "import sys, pangu_alpha.rehearsal.dry_run, pangu_alpha.rehearsal.report_page;"
        "from pangu_alpha.rehearsal.mindir import _model_proto; _model_proto();"
        "sys.exit('mindspore' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
