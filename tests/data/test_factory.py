"""The data factory as a whole: the same bytes however it runs, also after kills; what is broken is told."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from pangu_alpha.cli.main import main
from pangu_alpha.data.dataset import iterate_batches, read_records
from pangu_alpha.data.demo_pages import write_demo_pages
from pangu_alpha.data.prepared import load_prepared
from tests.data.conftest import some_documents

ROOT = Path(__file__).parents[2]
RECIPE = """
name: small
sources:
  - {name: lines, paths: [CORPUS/lines], weight: 0.5, licence: MIT}
  - {name: pages, paths: [CORPUS/pages], weight: 0.3}
  - {name: texts, paths: [CORPUS/texts], weight: 0.2}
rules:
  - normalise
  - traditional_to_simplified
  - navigation: {sources: [pages]}
  - advertisements: {sources: [pages]}
  - chinese_share
  - length: {least: 20}
  - repetition
  - personal_data
duplicates: {threshold: 0.6, paragraphs: 30, audit: 200}
tokenizer: {kind: train, vocab_size: 1200}
packing: {seq_length: 32, held_out_share: 0.1}
batch_bytes: 20000
samples: 3
"""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three sources of one corpus: JSON lines (one broken, some twice), pages, texts with near duplicates."""
    folder = tmp_path_factory.mktemp("corpus")
    for name in ("lines", "texts"):
        (folder / name).mkdir()
    draw = random.Random(2)
    documents = [" ".join(draw.choices(some_documents(200), k=6)) for _ in range(400)]
    lines = [json.dumps({"text": text}, ensure_ascii=False) for text in [*documents[:250], *documents[100:130]]]
    lines.insert(17, '{"text": ')
    with gzip.open(folder / "lines" / "a.jsonl.gz", "wt", encoding="utf-8") as file:
        file.write("\n".join(lines))
    changed = [text[:-3] + "。电话13812345678" for text in documents[:40]]
    (folder / "texts" / "a.txt").write_text("\n\n".join([*documents[250:], *changed]), encoding="utf-8")
    (folder / "texts" / "b.txt").write_text("短\n\n" + "english words only, nothing else at all " * 3, encoding="utf-8")
    write_demo_pages(folder / "pages", 20)
    return folder


@pytest.fixture(scope="module")
def recipe(corpus: Path) -> Path:
    path = corpus / "recipe.yaml"
    path.write_text(RECIPE.replace("CORPUS", str(corpus)), encoding="utf-8")
    return path


def run(recipe: Path, output: Path, *words: str) -> int:
    return main(["data", "run", "--config", str(recipe), f"output={output}", *words])


def content_of(output: Path) -> dict[str, str]:
    """SHA-256 of every result: documents, decisions, ids, samples."""
    found = {}
    for path in sorted(output.rglob("*")):
        if path.is_file() and path.suffix in (".parquet", ".arrow", ".npy", ".npz"):
            found[str(path.relative_to(output))] = hashlib.sha256(path.read_bytes()).hexdigest()
    prepared = load_prepared(output)
    assert prepared is not None
    for side, files in (("train", prepared.train_files), ("valid", prepared.valid_files)):
        samples = np.concatenate(list(read_records(files, 64)))
        found[side] = hashlib.sha256(samples.tobytes()).hexdigest()
    return found


@pytest.fixture(scope="module")
def finished(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("output") / "one"
    assert run(recipe, output, "workers=1") == 0
    return output


def test_what_comes_out(finished: Path) -> None:
    report = json.loads((finished / "report.json").read_text(encoding="utf-8"))
    rows = {(row["source"], row["stage"]): row for row in report["stages"]}
    assert rows["lines", "read"]["documents"] == 280 and rows["pages", "read"]["documents"] == 20
    assert rows["lines", "kept"]["lost"]["exact duplicates"] >= 25
    assert sum(row["lost"]["near duplicates"] for row in report["stages"] if "lost" in row) >= 30
    assert report["broken"]["records"] == 1 and report["broken"]["shown"][0]["place"] == "lines/a.jsonl.gz#000000017"
    audit = report["duplicates"]["audit"]
    assert audit["documents"] == 200 and audit["planted"] == 12 and audit["true_pairs"] >= 12
    assert audit["precision"] >= 0.95 and audit["recall"] >= 0.95
    assert f"precision {audit['precision']:.3f}" in (finished / "report.html").read_text(encoding="utf-8")
    rules = {rule["rule"]: rule for rule in report["rules"]}
    assert rules["length"]["dropped"] >= 1 and rules["chinese_share"]["dropped"] >= 1
    assert rules["personal_data"]["pieces"] >= 1 and rules["navigation"]["pieces"] > 100
    shown = rules["chinese_share"]["samples"]["dropped"][0]
    assert shown["value"] < shown["threshold"] == 0.6 and "english" in shown["text"]
    prepared = load_prepared(finished)
    assert prepared is not None and prepared.train_samples > 100 and prepared.valid_samples > 5
    assert [part.source for part in prepared.train.mixture] == ["lines", "pages", "texts"]
    assert report["samples"]["training"] == prepared.train_samples


def test_training_takes_it(finished: Path, recipe: Path) -> None:
    from pangu_alpha.config_file import load_config
    from pangu_alpha.data.prepare import prepare
    from pangu_alpha.errors import PanguError

    words = [
        f"data.prepared={finished}",
        "model.seq_length=32",
        "model.hidden_size=32",
        "model.num_heads=2",
        "model.num_layers=2",
    ]
    config = load_config(None, [*words, "model.vocab_size=1200", "tokenizer.kind=train"]).config
    prepared = prepare(config, finished / "unused")
    whole = list(iterate_batches(prepared.train, config, 8, 0, 20))
    resumed = list(iterate_batches(prepared.train, config, 8, 8 * 12, 8))
    assert all(
        (a == b).all() for one, two in zip(whole[12:], resumed, strict=True) for a, b in zip(one, two, strict=True)
    )
    halves = [list(iterate_batches(prepared.train, config, 8, 0, 20, rank, 2)) for rank in range(2)]
    for step in range(20):
        both = np.concatenate([halves[rank][step].tokens for rank in range(2)])
        assert (both == whole[step].tokens).all()
    for word, complaint in [
        ("model.seq_length=64", "have 33 tokens, and model.seq_length is 64"),
        ("model.vocab_size=100", "the vocabulary has 1200 pieces"),
    ]:
        with pytest.raises(PanguError, match=complaint):
            prepare(load_config(None, [*words, "model.vocab_size=1200", word]).config, finished / "unused")
    with pytest.raises(PanguError, match="holds no prepared data"):
        prepare(load_config(None, [*words, f"data.prepared={recipe.parent}"]).config, finished / "unused")


def test_the_same_bytes_for_any_number_of_workers(recipe: Path, finished: Path, tmp_path: Path) -> None:
    assert run(recipe, tmp_path / "two", "workers=2") == 0
    assert content_of(tmp_path / "two") == content_of(finished)


def killed_runs(recipe: Path, finished: Path, output: Path, kills: int, seed: int) -> None:
    """Kill a run again and again at random times, let the last one finish, and compare all results."""
    draw = random.Random(seed)
    command = [
        sys.executable,
        "-m",
        "pangu_alpha.cli.main",
        "data",
        "run",
        "--config",
        str(recipe),
        f"output={output}",
        "workers=1",
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    stages_seen = set()
    for _ in range(kills):
        with subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment
        ) as process:
            before = len(list(output.rglob("*.npz")))
            deadline = time.monotonic() + 60
            # Once it does something new, some time passes, and then it is gone.
            while process.poll() is None and time.monotonic() < deadline and len(list(output.rglob("*.npz"))) <= before:
                time.sleep(0.01)
            time.sleep(draw.uniform(0, 0.5))
            process.send_signal(signal.SIGKILL)
        stages_seen |= {path.parent.parent.parent.name for path in output.rglob("*.npz")}
    assert subprocess.run(command, stdout=subprocess.DEVNULL, env=environment, timeout=300, check=False).returncode == 0
    assert content_of(output) == content_of(finished)


def test_killed_and_run_again(recipe: Path, finished: Path, tmp_path: Path) -> None:
    killed_runs(recipe, finished, tmp_path / "out", kills=3, seed=1)


@pytest.mark.slow
def test_killed_twenty_times(recipe: Path, finished: Path, tmp_path: Path) -> None:
    killed_runs(recipe, finished, tmp_path / "out", kills=20, seed=2)


def test_only_what_is_missing_is_done_again(recipe: Path, finished: Path, caplog: pytest.LogCaptureFixture) -> None:
    units = sorted(path for path in (finished / "stages").glob("*/*/*") if path.is_dir())
    times = {path: path.stat().st_mtime_ns for path in units}
    assert run(recipe, finished, "workers=1") == 0
    assert {path: path.stat().st_mtime_ns for path in units} == times


def test_another_recipe_in_the_same_place(recipe: Path, finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(recipe, finished, "duplicates.threshold=0.9") == 1
    assert "was made of something else (differs: recipe)" in capsys.readouterr().err


def test_two_at_once(recipe: Path, finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = (
        f"import fcntl, time; f = open({str(finished / 'lock')!r}, 'a'); fcntl.lockf(f, fcntl.LOCK_EX); print('held')"
    )
    command = [sys.executable, "-u", "-c", f"{script}; time.sleep(60)"]
    holder = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        assert run(recipe, finished) == 1
        assert "is being written by" in capsys.readouterr().err
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()


def test_a_broken_file_is_named_and_the_rest_is_done(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "corpus" / "texts"
    broken.mkdir(parents=True)
    (broken / "a.txt").write_bytes((corpus / "texts" / "a.txt").read_bytes())
    whole = gzip.compress("去年秋天种了柳树。\n\n".encode() * 5000)
    (broken / "b.txt.gz").write_bytes(whole[:-20])
    code = main(
        [
            "data",
            "run",
            "--config",
            str(ROOT / "configs/data/demo.yaml"),
            f"corpus={tmp_path / 'corpus'}",
            f"output={tmp_path / 'out'}",
            "tokenizer.vocab_size=800",
            "packing.seq_length=32",
            "workers=1",
        ]
    )
    out = capsys.readouterr()
    assert code == 1 and "b.txt.gz is damaged or cut short" in out.out
    report = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert len(report["broken"]["files"]) == 1 and report["samples"]["training"] > 0


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["corpus=/no/such/folder"], "corpus is /no/such/folder; there is no such folder"),
        (["workers=many"], "workers is 'many'; allowed: 0"),
        (["nonsense"], "'nonsense' is no key=value"),
        (["tokenizer.kind=file", "tokenizer.path=/no/vocab.model"], "/no/vocab.model"),
        (["output=/proc/no"], "cannot"),
    ],
)
def test_bad_use_is_one_line(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], complaint: str
) -> None:
    given = words if any(word.startswith("output=") for word in words) else [*words, f"output={tmp_path / 'out'}"]
    assert main(
        ["data", "run", "--config", str(recipe), *given, "workers=1"]
        if "workers=many" not in words
        else ["data", "run", "--config", str(recipe), *given]
    ) in (1, 2)
    last = capsys.readouterr().err.strip().split("\n")[-1]
    assert complaint in last and last.startswith("pangu-alpha: ")


def test_a_full_disk_is_one_line_and_goes_on_later(recipe: Path, finished: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    script = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (30000, 30000));"
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "from pangu_alpha.cli.main import main; sys.exit(main(sys.argv[1:]))"
    )
    words = ["data", "run", "--config", str(recipe), f"output={output}", "workers=1"]
    full = subprocess.run(
        [sys.executable, "-c", script, *words],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert full.returncode == 1 and "Traceback" not in full.stderr
    assert full.stderr.strip().split("\n")[-1].startswith("pangu-alpha: cannot write")
    assert run(recipe, output, "workers=1") == 0
    assert content_of(output) == content_of(finished)
