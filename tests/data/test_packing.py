from __future__ import annotations

import shutil
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pangu_alpha.data.dataset import read_records
from pangu_alpha.data.packing import bytes_needed, pack_held_out, pack_training, write_records
from pangu_alpha.data.tokenizer import END_OF_TEXT, PAD
from pangu_alpha.errors import PanguError


@given(st.integers(0, 100), st.integers(1, 12))
def test_training_samples_follow_one_another(count: int, seq_length: int) -> None:
    ids = np.arange(10, 10 + count, dtype=np.int32)
    dropped = pack_training(ids, seq_length, "drop")
    padded = pack_training(ids, seq_length, "pad")
    whole = count // (seq_length + 1) * (seq_length + 1)
    assert dropped.shape == (count // (seq_length + 1), seq_length + 1)
    assert dropped.reshape(-1).tolist() == ids[:whole].tolist()
    assert (padded[: len(dropped)] == dropped).all()
    rest = count - whole
    assert len(padded) == len(dropped) + (rest > 1)
    if rest > 1:
        assert padded[-1].tolist() == ids[whole:].tolist() + [PAD] * (seq_length + 1 - rest)


@given(st.integers(0, 100), st.integers(1, 12))
def test_each_held_out_token_is_asked_for_once(count: int, seq_length: int) -> None:
    ids = np.arange(10, 10 + count, dtype=np.int32)
    samples = pack_held_out(ids, seq_length)
    assert samples.shape[1] == seq_length + 1
    asked = samples[:, 1:].reshape(-1)
    assert asked[asked != PAD].tolist() == ids.tolist()
    if count:
        assert samples[0, 0] == END_OF_TEXT
        assert (samples[1:, 0] == samples[:-1, -1]).all()
        assert (samples[-1, 1:] != PAD).any()  # no sample of padding alone


def test_records_come_back_as_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pangu_alpha.data.packing as packing

    monkeypatch.setattr(packing, "SAMPLES_OF_A_FILE", 40)
    samples = np.random.default_rng(1).integers(0, 40_000, (100, 33)).astype(np.int32)
    samples[0] = 0
    samples[1] = 39_999
    files = write_records(samples, tmp_path, "train")
    assert [path.name for path in files] == [f"train_0000{number}.mindrecord" for number in range(3)]
    assert all(path.stat().st_mode & 0o044 for path in files)
    assert (np.concatenate(list(read_records(tuple(files), 7))) == samples).all()
    rows = np.array([99, 0, 0, 41, 39, 40])
    assert (np.concatenate(list(read_records(tuple(files), 4, rows))) == samples[rows]).all()
    size = sum(path.stat().st_size for path in tmp_path.iterdir())
    assert size < bytes_needed(100, 33) < 100e6


def test_the_directory_may_be_renamed(tmp_path: Path) -> None:
    """What `atomic_directory` does when it is complete."""
    samples = np.arange(66, dtype=np.int32).reshape(2, 33)
    (tmp_path / "partial").mkdir()
    files = write_records(samples, tmp_path / "partial", "train")
    (tmp_path / "partial").rename(tmp_path / "whole")
    moved = tuple(tmp_path / "whole" / path.name for path in files)
    assert (np.concatenate(list(read_records(moved, 2))) == samples).all()


def test_a_full_disk_is_one_line_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**7, 10**7 - 300_000, 300_000))
    with pytest.raises(PanguError, match=r"^no space for the packed text in .*: \d+ MB are needed, 0\.3 MB are free$"):
        write_records(np.zeros((10, 33), np.int32), tmp_path, "train")
    assert not list(tmp_path.iterdir())


def test_files_that_are_not_what_they_seem(tmp_path: Path) -> None:
    samples = np.zeros((10, 33), np.int32)
    (path,) = write_records(samples, tmp_path, "train")
    index = path.with_name(path.name + ".db")
    kept = index.read_bytes()
    index.unlink()
    with pytest.raises(PanguError, match=r"^cannot read .*train_00000\.mindrecord as MindRecord: .*\.db"):
        list(read_records((path,), 2))
    index.write_bytes(kept)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(PanguError, match=r"^cannot read .*train_00000\.mindrecord as MindRecord: ") as caught:
        list(read_records((path,), 2))
    assert "\n" not in str(caught.value) and "C++" not in str(caught.value)
