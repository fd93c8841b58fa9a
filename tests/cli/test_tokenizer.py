"""`pangu-alpha tokenizer`: what it prints, and the one line of each mistake."""

from __future__ import annotations

import io
import shutil
import sys
from pathlib import Path

import pytest

from pangu_alpha.cli.main import main


@pytest.fixture()
def with_official(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, official_model: Path) -> None:
    """A user's cache that holds the official vocabulary."""
    place = tmp_path / "cache" / "pangu_alpha" / "official" / "vocab.model"
    place.parent.mkdir(parents=True)
    shutil.copy(official_model, place)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def type_in(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("pangu-alpha: ")
    return captured.err


def test_encode_and_decode(official_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tokenizer", "encode", "--model", str(official_model), "今天是一个好天气"]) == 0
    assert capsys.readouterr().out == "465 16 46 70 2786\n"
    for words in (["465", "16", "46", "70", "2786"], ["[465, 16, 46, 70, 2786]"]):
        assert main(["tokenizer", "decode", "--model", str(official_model), *words]) == 0
        assert capsys.readouterr().out == "今天是一个好天气\n"


@pytest.mark.usefixtures("with_official")
def test_text_from_stdin_and_file_with_the_official_vocabulary(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for content in ("今天\n天气\n", "今天\n天气\r\n", "今天\n天气"):
        (tmp_path / "text.txt").write_bytes(content.encode())
        assert main(["tokenizer", "encode", "--file", str(tmp_path / "text.txt")]) == 0
        from_file = capsys.readouterr().out
        type_in(monkeypatch, content.encode())
        assert main(["tokenizer", "encode"]) == 0
        assert capsys.readouterr().out == from_file
        type_in(monkeypatch, from_file.encode())
        assert main(["tokenizer", "decode"]) == 0
        assert capsys.readouterr().out == "今天\n天气\n"


@pytest.mark.usefixtures("with_official")
def test_inspect_aligns_pieces_and_characters(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tokenizer", "inspect", "Hello，世界！\t①\n😀"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "     id  piece  characters",
        "-------  -----  ----------",
        "   2142  ▁H     H",
        "  12372  ell    ell",
        "   4541  o      o",
        "     10  ▁,     ，",
        "    267  ▁世界  世界",
        "     29  ▁!     ！",
        "dropped         ⇥",
        "     79  ▁1     ①",
        "     13  ▁",
        "      3  ▃      ⏎",
        "     13  ▁",
        "      0  <unk>  😀",
        "",
        "13 characters, 11 tokens, 1.18 characters a token; 1 unknown",
    ]


@pytest.mark.usefixtures("with_official")
def test_official_says_where_it_lies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tokenizer", "official"]) == 0
    place = tmp_path / "cache" / "pangu_alpha" / "official" / "vocab.model"
    assert capsys.readouterr().out == f"{place}: the official vocabulary, 40,000 pieces, sha256 18857e86783e…\n"


def test_train_then_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "one.txt").write_text("今天是一个好天气，我们去公园。\n\n" * 20, encoding="utf-8")
    (tmp_path / "two.jsonl").write_text('{"body": "你好，世界！"}\n' * 20, encoding="utf-8")
    output = tmp_path / "mine"
    words = ["tokenizer", "train", "--input", str(tmp_path / "one.txt"), str(tmp_path / "two.jsonl")]
    assert main([*words, "--text-key", "body", "--vocab-size", "36", "--output", str(output)]) == 0
    assert f"{output}/vocab.model: 36 pieces" in capsys.readouterr().out
    assert main(["tokenizer", "encode", "--model", str(output), "你好，天气"]) == 0
    ids = capsys.readouterr().out.split()
    assert main(["tokenizer", "decode", "--model", str(output / "vocab.model"), *ids]) == 0
    assert capsys.readouterr().out == "你好,天气\n"


@pytest.mark.parametrize("place", ["", "checkpoints/step_00000200"])
def test_model_may_be_a_run_or_its_checkpoint(
    tmp_path: Path, official_model: Path, place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / place).mkdir(parents=True, exist_ok=True)
    shutil.copy(official_model, tmp_path / "tokenizer" / "vocab.model")
    assert main(["tokenizer", "encode", "--model", str(tmp_path / place), "今天"]) == 0
    assert capsys.readouterr().out == "465\n"


@pytest.mark.usefixtures("with_official")
@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ([], 2, "required: ACTION"),
        (["encod"], 2, "invalid choice: 'encod'"),
        (["encode", "a", "--file", "b"], 2, "give a text or --file, not both"),
        (["encode", "--file", "/none"], 1, "cannot read /none"),
        (["encode", "--model", "/none", "a"], 1, "/none: there is no such vocabulary file"),
        (["encode", "--model", "/", "a"], 1, "this directory holds no vocabulary"),
        (["decode", "4x"], 2, "'4x' is no id"),
        (["decode", "40000"], 1, "there is no piece with id 40000; ids run from 0 to 39999"),
        (["decode", "-1"], 1, "there is no piece with id -1"),
        (["train", "--input", "a.txt", "--output", "b"], 2, "required: --vocab-size"),
        (["train", "--input", "/none.txt", "--output", "b", "--vocab-size", "100"], 1, "no file or folder /none.txt"),
        (["train", "--input", "a.txt", "--output", "b", "--vocab-size", "0"], 2, "--vocab-size is 0"),
        (
            ["train", "--input", "a.txt", "--output", "b", "--vocab-size", "2000000000"],
            2,
            "--vocab-size is 2000000000; it must lie between 1 and 1000000",
        ),
        (["decode", "9" * 5000], 2, "9...' is no id"),
        (["train", "--input", "a.txt", "--output", "b", "--vocab-size", "9", "--workers", "-2"], 2, "--workers is -2"),
        (["official", "--wheel", "/none.whl"], 1, "there is no file /none.whl"),
    ],
)
def test_mistakes_are_one_line(words: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tokenizer", *words]) == code
    assert message in one_line(capsys)


@pytest.mark.usefixtures("with_official")
def test_text_that_is_not_utf8_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    type_in(monkeypatch, "今天".encode("gbk"))
    assert main(["tokenizer", "encode"]) == 1
    assert "standard input is not UTF-8 (byte 0)" in one_line(capsys)


def test_ids_of_a_mindrecord_file_are_no_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.mindrecord").write_bytes(b"")
    words = ["train", "--input", str(tmp_path / "a.mindrecord"), "--output", str(tmp_path / "b"), "--vocab-size", "99"]
    assert main(["tokenizer", *words]) == 2
    assert "holds ids, not text" in one_line(capsys)


@pytest.mark.parametrize("action", ["official", "train", "encode", "decode", "inspect"])
def test_help_of_each_action_has_an_example(action: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["tokenizer", action, "--help"])
    assert f"pangu-alpha tokenizer {action}" in capsys.readouterr().out.split("examples:")[1]
