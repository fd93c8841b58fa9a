from __future__ import annotations

import os
from pathlib import Path

import pytest

import pangu_alpha.data.content_key as content_key
from pangu_alpha.data.content_key import digest_of_file, digest_of_texts, package_version
from pangu_alpha.errors import PanguError


def test_a_small_file_is_known_by_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"one")
    first = digest_of_file(path)
    os.utime(path, (1, 1))
    assert digest_of_file(path) == first
    path.write_bytes(b"two")
    assert digest_of_file(path) != first


def test_a_large_file_is_known_by_size_time_and_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(content_key, "_READ_WHOLE", 100)
    monkeypatch.setattr(content_key, "_END", 10)
    path = tmp_path / "file"

    def digest(content: bytes, time: int = 5) -> str:
        path.write_bytes(content)
        os.utime(path, (time, time))
        return digest_of_file(path)

    reference = digest(bytes(200))
    assert digest(bytes(200)) == reference
    others = [digest(bytes(201)), digest(bytes(200), 6), digest(b"x" + bytes(199)), digest(bytes(199) + b"x")]
    assert len({reference, *others}) == 5


def test_texts_are_not_run_together() -> None:
    assert digest_of_texts(["今天", "好"]) != digest_of_texts(["今", "天好"])
    assert digest_of_texts(["\ud800"])  # half a character is a text like any other here


def test_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(PanguError, match="cannot read"):
        digest_of_file(tmp_path / "none")
    assert package_version("no-such-package") == ""
    assert package_version("numpy")
