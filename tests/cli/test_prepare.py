from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pangu_alpha.cli.main import main
from pangu_alpha.config import Config


def words(repository: Path, config: Config, root: Path) -> list[str]:
    return [
        "prepare",
        "--config",
        str(repository / "configs" / "quickstart.yaml"),
        "--root",
        str(root),
        f"data.sources=[{','.join(config.data.sources)}]",
        "data.workers=1",
        "model.seq_length=16",
        "model.vocab_size=100",
        "tokenizer.kind=file",
        f"tokenizer.path={config.tokenizer.path}",
    ]


def test_a_table_of_what_came_out(
    repository: Path,
    make_config: Callable[..., Config],
    text_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(words(repository, make_config(text_file), tmp_path / "prepared")) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split("  ")[0] == "source"
    total, held_out = (
        next(line for line in lines if line.startswith("all") and side in line).split()
        for side in ("training", "held out")
    )
    assert int(total[2]) + int(held_out[3]) == 400 and total[3] == "10"
    assert f"held out    {held_out[3]} of 400 documents" in "\n".join(lines)
    assert lines[-1] == f"directory   {next((tmp_path / 'prepared').iterdir())}"


def test_a_missing_source_is_one_line(
    repository: Path,
    make_config: Callable[..., Config],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(words(repository, make_config(tmp_path / "no.txt"), tmp_path / "prepared")) == 1
    assert capsys.readouterr().err == f"pangu-alpha: data.sources: there is no file or folder {tmp_path / 'no.txt'}\n"
