"""The page docs/tokenizer.md shows what its commands print, and its Chinese twin shows the same."""

from __future__ import annotations

import doctest
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pangu_alpha.cli.main import main


@pytest.fixture()
def page(repository: Path) -> str:
    return (repository / "docs" / "tokenizer.md").read_text(encoding="utf-8")


@pytest.fixture(autouse=True)
def your_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, official_model: Path) -> None:
    """A working directory whose user has fetched the official vocabulary."""
    place = tmp_path / ".cache" / "pangu_alpha" / "official" / "vocab.model"
    place.parent.mkdir(parents=True)
    shutil.copy(official_model, place)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.chdir(tmp_path)


def commands(page: str) -> list[tuple[str, str]]:
    """Each command of the page's console blocks, and what is shown below it."""
    blocks = re.findall(r"```console\n(.*?)```", page, re.DOTALL)
    return [
        (command, shown)
        for block in blocks
        for command, shown in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block, re.M)
    ]


def test_commands_print_what_the_page_shows(
    page: str, tmp_path: Path, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tried = 0
    for command, shown in commands(page):
        if " train " in command:
            continue
        if "|" in command:
            before, after = command.split(" | pangu-alpha ")
            shell = f"{before} | {sys.executable} -m pangu_alpha.cli.main {after}"
            done = subprocess.run(
                shell, shell=True, capture_output=True, text=True, check=True, env={"PYTHONPATH": str(repository),
                "HOME": str(tmp_path), "PYTHONUTF8": "1"}
            )  # fmt: skip
            printed = done.stdout
        else:
            assert main(shlex.split(command)[1:]) == 0
            printed = capsys.readouterr().out
        assert printed.replace(str(tmp_path), "/home/you") == shown, command
        tried += 1
    assert tried == 5


@pytest.mark.slow
def test_training_prints_what_the_page_shows(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    ((command, shown),) = [pair for pair in commands(page) if " train " in pair[0]]
    assert main(shlex.split(command)[1:]) == 0
    without_checksum = re.compile("sha256 [0-9a-f]{12}")  # another version of sentencepiece may round another way
    assert without_checksum.sub("", capsys.readouterr().out) == without_checksum.sub("", shown)


def test_python_prints_what_the_page_shows(page: str) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    test = doctest.DocTestParser().get_doctest(example, {}, "docs/tokenizer.md", None, 0)
    assert doctest.DocTestRunner().run(test).failed == 0


def test_chinese_twin_shows_the_same(page: str, repository: Path) -> None:
    twin = (repository / "docs" / "tokenizer.zh.md").read_text(encoding="utf-8")
    blocks = [re.findall(r"```.*?```", text, re.DOTALL) for text in (page, twin)]
    assert blocks[0] == blocks[1]
    numbers = [re.findall(r"(?m)^    (?:peer|ours|official|news|reviews) .*", text) for text in (page, twin)]
    assert numbers[0] == numbers[1]
    assert len(numbers[0]) == 5
    assert page.count("\n## ") == twin.count("\n## ")
    assert page.count("\n|") == twin.count("\n|")
