"""Preparation end to end on small real files: what comes out, what is reused, what fails and leaves nothing."""

from __future__ import annotations

import functools
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pangu_alpha.checkpoint.format import canonical_sha256
from pangu_alpha.config import Config, TokenizerConfig, to_dict
from pangu_alpha.data import prepare as preparation
from pangu_alpha.data.dataset import iterate_batches, read_records, validation_batches
from pangu_alpha.data.held_out import is_held_out
from pangu_alpha.data.packing import write_records
from pangu_alpha.data.prepare import prepare
from pangu_alpha.data.prepared import HELD_OUT, TRAINING, Prepared, load_prepared
from pangu_alpha.data.recipe import Recipe
from pangu_alpha.data.tokenizer import END_OF_TEXT, PAD, Tokenizer
from pangu_alpha.errors import PanguError, UsageError
from pangu_alpha.files import shown_name
from tests.data.conftest import some_documents

MakeConfig = Callable[..., Config]


def stream_of(prepared: Prepared, side: str) -> list[int]:
    """All tokens of a side in order, as the samples hold them."""
    files = prepared.train if side == TRAINING else prepared.valid
    samples = np.concatenate(list(read_records(files.files, 64)))
    return (samples if side == TRAINING else samples[:, 1:]).reshape(-1).tolist()


def texts_of(stream: list[int], tokenizer: Tokenizer) -> list[str]:
    texts, start = [], 0
    for end, token in enumerate(stream):
        if token == END_OF_TEXT:
            texts.append(tokenizer.decode(stream[start:end]))
            start = end + 1
    return texts


def test_text_becomes_samples(make_config: MakeConfig, text_file: Path, tmp_path: Path) -> None:
    config = make_config(text_file, held_out_share=0.1)
    prepared = prepare(config, tmp_path / "prepared")
    tokenizer = Tokenizer.load(prepared.tokenizer_path)
    documents = list(dict.fromkeys(text_file.read_text(encoding="utf-8").split("\n\n")))
    held_out = {text for text in documents if is_held_out(text, 0.1)}
    assert 20 < len(held_out) < 60
    # Every held-out document is measured whole; every training document but the last, cut one, is trained on.
    valid = stream_of(prepared, HELD_OUT)
    assert sorted(texts_of(valid, tokenizer)) == sorted(held_out)
    train = texts_of(stream_of(prepared, TRAINING), tokenizer)
    assert len(set(documents) - held_out - set(train)) <= 1 and not set(train) & held_out
    assert len(train) == len(set(train))
    # The counts say what was counted here.
    assert prepared.documents == 400 and sum(count.duplicates for count in prepared.counts) == 10
    assert prepared.valid_tokens == sum(token != PAD for token in valid)
    assert prepared.valid_characters == sum(len(text) + 1 for text in held_out)
    counts = {count.side: count for count in prepared.counts}
    assert counts[HELD_OUT].documents == len(held_out) and counts[HELD_OUT].source == str(text_file)
    assert counts[TRAINING].characters == sum(len(text) for text in set(documents) - held_out)
    assert prepared.train_samples == counts[TRAINING].tokens // 17
    # Both sides feed the model.
    assert next(iterate_batches(prepared.train, config, 4)).tokens.shape == (4, 16)
    measured = sum((batch.tokens != PAD).sum() for batch in validation_batches(prepared.valid, config, 4))
    assert measured == prepared.valid_tokens
    assert [path.name for path in (tmp_path / "prepared").iterdir()] == [prepared.directory.name]


def test_documents_may_come_twice_if_wanted(make_config: MakeConfig, text_file: Path, tmp_path: Path) -> None:
    prepared = prepare(make_config(text_file, drop_duplicates=False), tmp_path / "prepared")
    assert prepared.documents == 410


def test_what_is_there_and_unchanged_is_taken(make_config: MakeConfig, text_file: Path, tmp_path: Path) -> None:
    root = tmp_path / "prepared"
    config = make_config(text_file)
    first = prepare(config, root)
    made = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    assert prepare(config, root) == first == load_prepared(first.directory)
    # Another name, another order of entry, a source touched but unchanged: the same data.
    os.utime(text_file)
    assert prepare(replace(config, name="other"), root) == first
    assert prepare(make_config(text_file, order="permuted", workers=2), root) == first
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == made
    # Another text, length, share: other data, beside the first.
    text_file.write_text(text_file.read_text(encoding="utf-8") + "\n\n今天是个好天气", encoding="utf-8")
    others = [
        prepare(config, root),
        prepare(make_config(text_file, seq_length=8), root),
        prepare(make_config(text_file, held_out_share=0.5), root),
    ]
    assert len({first.fingerprint, *(other.fingerprint for other in others)}) == 4
    assert len(list(root.iterdir())) == 4


def test_the_same_in_any_number_of_processes(
    make_config: MakeConfig, text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparation, "Recipe", functools.partial(Recipe, batch_bytes=5000))
    config = make_config(text_file)
    one = prepare(config, tmp_path / "one")
    two = prepare(replace(config, data=replace(config.data, workers=2)), tmp_path / "two")
    assert one.fingerprint == two.fingerprint
    assert stream_of(one, TRAINING) == stream_of(two, TRAINING)


@pytest.mark.parametrize("damage", ["removed", "cut", "manifest"])
def test_damaged_data_is_made_again(make_config: MakeConfig, text_file: Path, tmp_path: Path, damage: str) -> None:
    root = tmp_path / "prepared"
    first = prepare(make_config(text_file), root)
    victim = first.directory / "manifest.json" if damage == "manifest" else first.train_files[0]
    if damage == "removed":
        victim.unlink()
    else:
        victim.write_bytes(victim.read_bytes()[:1000])
    assert load_prepared(first.directory) is None
    again = prepare(make_config(text_file), root)
    assert again == first and stream_of(again, TRAINING)


def test_a_text_too_small(make_config: MakeConfig, tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("今天是好天气", encoding="utf-8")
    root = tmp_path / "prepared"
    with pytest.raises(
        PanguError,
        match=r"^the training text gives \d+ tokens, but one sample of model.seq_length 64 "
        r"needs 65: add about \d+ characters, lower model.seq_length, or set",
    ):
        prepare(make_config(path, seq_length=64, held_out_share=0.0), root)
    assert not list(root.iterdir())
    padded = prepare(make_config(path, seq_length=64, held_out_share=0.0, tail="pad"), root)
    assert padded.train_samples == 1 and padded.valid_samples == 0 and padded.valid_files == ()
    assert stream_of(padded, TRAINING)[-1] == PAD


def test_everything_on_one_side(make_config: MakeConfig, tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("今天是好天气", encoding="utf-8")
    share = next(share / 100 for share in range(1, 100) if is_held_out("今天是好天气", share / 100))
    with pytest.raises(PanguError, match=r"^all 1 documents fell to the held-out side; lower data\.held_out_share"):
        prepare(make_config(path, held_out_share=share), tmp_path / "prepared")
    prepared = prepare(make_config(path, held_out_share=share - 0.01, tail="pad"), tmp_path / "prepared")
    assert prepared.valid_samples == 0


def test_a_vocabulary_larger_than_the_model(make_config: MakeConfig, text_file: Path, tmp_path: Path) -> None:
    with pytest.raises(PanguError, match=r"the vocabulary has \d+ pieces, but model\.vocab_size is 20; set model"):
        prepare(make_config(text_file, vocab_size=20), tmp_path / "prepared")
    missing = replace(make_config(text_file), tokenizer=TokenizerConfig("file", str(tmp_path / "no.model")))
    with pytest.raises(PanguError, match=r"no\.model"):
        prepare(missing, tmp_path / "prepared")


def test_no_space_is_one_line_and_leaves_nothing(
    make_config: MakeConfig, text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9, 0))
    with pytest.raises(PanguError, match="no space for the packed text"):
        prepare(make_config(text_file), tmp_path / "prepared")
    assert not list((tmp_path / "prepared").iterdir())


SLOW_PREPARATION = """
import sys, time
from pangu_alpha.cli.main import main
from pangu_alpha.data import packing
write_records = packing.write_records
def slowly(samples, directory, name, *rest):
    files = write_records(samples, directory, name, *rest)
    print("written", flush=True)
    time.sleep(60)
    return files
packing.write_records = slowly
sys.exit(main(["prepare", *sys.argv[1:]]))
"""


@pytest.mark.parametrize(
    ("how", "code", "said"),
    [
        (signal.SIGKILL, -signal.SIGKILL, None),
        (signal.SIGINT, 130, "pangu-alpha: interrupted"),
        (signal.SIGTERM, 143, "pangu-alpha: ended by SIGTERM"),
    ],
)
def test_an_interrupted_preparation_leaves_nothing_that_counts(
    make_config: MakeConfig,
    text_file: Path,
    repository: Path,
    tmp_path: Path,
    how: signal.Signals,
    code: int,
    said: str | None,
) -> None:
    config = make_config(text_file)
    root = tmp_path / "prepared"
    words = [
        "--config",
        str(repository / "configs" / "quickstart.yaml"),
        "--root",
        str(root),
        "name=small",
        f"data.sources=[{text_file}]",
        "data.workers=2",
        "model.seq_length=16",
        "model.hidden_size=32",
        "model.num_heads=2",
        "model.num_layers=2",
        "model.vocab_size=100",
        "tokenizer.kind=file",
        f"tokenizer.path={config.tokenizer.path}",
    ]
    with subprocess.Popen(
        [sys.executable, "-c", SLOW_PREPARATION, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "written\n"
        time.sleep(0.1)
        os.killpg(process.pid, how)  # as a terminal does, the workers included
        sent = time.monotonic()
        errors = process.communicate(timeout=30)[1]
    assert time.monotonic() - sent < 10
    assert process.returncode == code
    assert "Traceback" not in errors
    assert said is None or errors.splitlines()[-1] == said
    left = [path.name for path in root.iterdir()]
    assert all(name.startswith(".") for name in left)
    assert bool(left) == (how == signal.SIGKILL)
    prepared = prepare(config, root)
    assert [path.name for path in root.iterdir()] == [prepared.directory.name]


def test_a_vocabulary_of_its_own_text(
    make_config: MakeConfig, text_file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = replace(make_config(text_file, vocab_size=8000), tokenizer=TokenizerConfig(kind="train"))
    with pytest.raises(PanguError, match="give more text, or set model.vocab_size=([0-9]+) or less$") as caught:
        prepare(config, tmp_path / "prepared")
    size = int(str(caught.value).split("model.vocab_size=")[1].split()[0])
    with caplog.at_level(logging.INFO):
        prepare(replace(config, model=replace(config.model, vocab_size=size)), tmp_path / "prepared")
    (told,) = [record.getMessage() for record in caplog.records if record.getMessage().startswith("vocabulary of ")]
    assert Path(told.rpartition(": ")[2]).is_file()


def test_names_that_are_not_utf8_are_no_obstacle(make_config: MakeConfig, text_file: Path, tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode("文本".encode("gbk"))
    folder.mkdir()
    text_file.rename(folder / os.fsdecode("小说.txt".encode("gbk")))
    config = make_config(folder, tail="pad")
    prepared = prepare(config, tmp_path / "prepared")
    assert {count.source for count in prepared.counts} == {shown_name(folder)}
    assert prepare(config, tmp_path / "prepared") == prepared
    saved = canonical_sha256(to_dict(config))  # as a checkpoint names its configuration
    assert saved == canonical_sha256(json.loads(json.dumps(to_dict(config))))


@pytest.fixture()
def records(tmp_path: Path) -> Path:
    """A folder as the official preprocessing leaves it: samples of 17 ids in two files."""
    rng = np.random.default_rng(3)
    ids = rng.integers(10, 50, (120, 17)).astype(np.int32)
    ids[:, 0] = END_OF_TEXT
    ids[-1, 9:] = PAD
    folder = tmp_path / "records"
    folder.mkdir()
    write_records(ids[:70], folder, "first")
    write_records(ids[70:], folder, "second")
    return folder


def test_official_records_train_as_they_are(make_config: MakeConfig, records: Path, tmp_path: Path) -> None:
    config = make_config(records, held_out_share=0.1, order="mixed")
    prepared = prepare(config, tmp_path / "prepared")
    everything = np.concatenate(list(read_records(tuple(sorted(records.glob("*.mindrecord"))), 8)))
    held_out = np.concatenate(list(read_records(prepared.valid_files, 8)))
    assert prepared.train_samples + prepared.valid_samples == 120 and 2 < prepared.valid_samples < 30
    seen = {
        tuple(sorted([*tokens, *labels]))
        for batch in iterate_batches(prepared.train, config, 4, 0, 60)
        for tokens, labels in zip(batch.tokens.tolist(), batch.labels.tolist(), strict=True)
    }
    rows = [row for row in everything.tolist() if row not in held_out.tolist()]
    assert seen == {tuple(sorted([*row[:-1], *row[1:]])) for row in rows}
    assert prepare(config, tmp_path / "prepared") == prepared
    asked = held_out[:, 1:]
    assert prepared.valid_tokens == (asked != PAD).sum()
    assert 0 < prepared.valid_characters <= 2 * prepared.valid_tokens
    assert all(path.is_relative_to(records) for path in prepared.train_files)


def test_records_that_do_not_fit(make_config: MakeConfig, records: Path, text_file: Path, tmp_path: Path) -> None:
    root = tmp_path / "prepared"
    with pytest.raises(
        PanguError,
        match=r"first_00000\.mindrecord holds samples of 17 ids, but model\.seq_length 32 "
        r"needs 33; set model\.seq_length=16",
    ):
        prepare(make_config(records, seq_length=32), root)
    first = records / "first_00000.mindrecord"
    write_records(np.full((3, 17), 55, np.int32), records, "third")
    assert prepare(make_config(records), root).train_samples > 100
    write_records(np.full((3, 17), 99, np.int32), records, "worse")
    with pytest.raises(PanguError, match=r"worse_00000\.mindrecord holds the id 99 \(sample \d+\), but the vocab"):
        prepare(make_config(records), root)
    with pytest.raises(UsageError, match=r"^data\.sources mixes MindRecord files with text"):
        prepare(make_config(first, text_file), root)
    with pytest.raises(UsageError, match=r"^tokenizer\.kind is 'train', but data\.sources are MindRecord files"):
        prepare(replace(make_config(first), tokenizer=TokenizerConfig("train")), root)
    first.with_name(first.name + ".db").unlink()
    with pytest.raises(PanguError, match=r"^cannot read .*first_00000\.mindrecord as MindRecord"):
        prepare(make_config(first), root)
    assert len(list(root.iterdir())) == 1


def test_a_trained_vocabulary_serves_every_packing(make_config: MakeConfig, text_file: Path, tmp_path: Path) -> None:
    """It is trained on the training side alone, and only once for one text."""
    root = tmp_path / "prepared"
    training = TokenizerConfig("train")
    config = replace(make_config(text_file, held_out_share=0.1, vocab_size=70), tokenizer=training)
    first = prepare(config, root)
    (vocabulary,) = root.glob("vocabulary-*")
    made = (vocabulary / "vocab.model").stat().st_mtime_ns
    other = prepare(replace(config, model=replace(config.model, seq_length=8)), root)
    assert other.tokenizer_sha256 == first.tokenizer_sha256 and other.fingerprint != first.fingerprint
    assert [path.stat().st_mtime_ns for path in root.glob("vocabulary-*/vocab.model")] == [made]
    assert Tokenizer.load(first.tokenizer_path).vocab_size == 70
    fewer = TokenizerConfig("train", train_characters=1000)
    assert prepare(replace(config, tokenizer=fewer), root).fingerprint != first.fingerprint
    assert len(list(root.glob("vocabulary-*"))) == 2


def test_the_vocabulary_never_sees_held_out_text(make_config: MakeConfig, tmp_path: Path) -> None:
    """A character that only held-out documents have is unknown to it."""
    rare = next(f"今天是好天气囧{number}" for number in range(1000) if is_held_out(f"今天是好天气囧{number}", 0.1))
    path = tmp_path / "text.txt"
    path.write_text("\n\n".join([*some_documents(300), rare]), encoding="utf-8")
    config = replace(make_config(path, held_out_share=0.1, vocab_size=70), tokenizer=TokenizerConfig("train"))
    tokenizer = Tokenizer.load(prepare(config, tmp_path / "prepared").tokenizer_path)
    assert tokenizer.decode(tokenizer.encode("天囧气")) == "天⁇气"


def test_the_official_vocabulary(
    make_config: MakeConfig, text_file: Path, tmp_path: Path, shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    config = replace(make_config(text_file, vocab_size=40_000), tokenizer=TokenizerConfig("official"))
    with pytest.raises(PanguError, match=r"pangu-alpha tokenizer official"):
        prepare(config, tmp_path / "prepared")
    assert not (tmp_path / "prepared").exists()
    place = tmp_path / "cache" / "pangu_alpha" / "official"
    place.mkdir(parents=True)
    shutil.copy(shared_data / "tokenizer" / "vocab.model", place)
    prepared = prepare(config, tmp_path / "prepared")
    assert prepared.tokenizer_path.read_bytes() == (place / "vocab.model").read_bytes()
    first = texts_of(stream_of(prepared, TRAINING), Tokenizer.load(prepared.tokenizer_path))[0]
    assert first in text_file.read_text(encoding="utf-8")
