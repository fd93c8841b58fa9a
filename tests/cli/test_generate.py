"""The job `generate`: what it prints, what it refuses before MindSpore starts, and how a session at a terminal goes."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pangu_alpha.cli.main import main
from pangu_alpha.inference.language_model import PanguAlpha
from tests.tiny_model import model, run_directory, tokenizer, vocabulary  # noqa: F401


@pytest.fixture
def generate(run_directory: Path, model: PanguAlpha, capsys, monkeypatch):  # noqa: F811
    """Run the job in this process with a model that is already compiled: (exit code, stdout, stderr)."""
    monkeypatch.setattr(
        PanguAlpha, "load", lambda directory, device: model if directory == str(run_directory) else None
    )

    def call(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(logging.getLogger("pangu_alpha"), "handlers", [])  # one that writes to this test's stderr
        code = main(["generate", "--checkpoint", str(run_directory), *words])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def test_a_prompt_is_continued(generate, model: PanguAlpha) -> None:  # noqa: F811
    expected = model.generate("今天", max_new_tokens=20, seed=5, temperature=1.0)
    words = ("今天", "--max-new-tokens", "20", "--seed", "5", "--temperature", "1")
    for more in ((), ("--no-cache",)):
        code, out, _ = generate(*words, *more)
        assert (code, out) == (0, f"今天{expected}\n")


def test_the_drawn_seed_is_told(generate) -> None:
    _, out, err = generate("今天", "--temperature", "1")
    assert generate("今天", "--temperature", "1", "--seed", err.split("seed ")[1].split()[0])[1] == out


def test_greedy_and_stop(generate, model: PanguAlpha) -> None:  # noqa: F811
    text = model.generate("今天", max_new_tokens=20, temperature=0)
    _, out, _ = generate("今天", "--greedy", "--max-new-tokens", "20")
    assert out == f"今天{text}\n"
    _, out, _ = generate("今天", "--greedy", "--max-new-tokens", "20", "--stop", text[3])
    assert out == f"今天{text[: text.index(text[3])]}\n"


def test_a_file_is_continued(generate, tmp_path: Path) -> None:
    file = tmp_path / "beginning.txt"
    file.write_bytes("\ufeff今天是\n一个\n".encode())
    code, out, _ = generate("--file", str(file), "--greedy", "--max-new-tokens", "3")
    assert code == 0
    assert out.startswith("今天是\n一个")
    assert out == "今天是\n一个" + generate("今天是\n一个", "--greedy", "--max-new-tokens", "3")[1][6:]


def test_masks_are_filled_in_a_table(generate, model: PanguAlpha) -> None:  # noqa: F811
    code, out, _ = generate("--infill", "今天是[MASK]天气", "--candidates", "3")
    lines = out.splitlines()
    assert code == 0
    assert lines[0].split() == ["rank", "probability", "mean", "a", "token", "tokens", "fill", "text"]
    for line, filling in zip(lines[2:], model.infill("今天是[MASK]天气", number=3), strict=True):
        assert line.endswith(f"  {filling.text}")
        assert f"{filling.probability:.4f}" in line
    _, out, _ = generate("--infill", "今天是[MASK]天气", "--length", "1..2")
    assert "among lengths 1 to 2" in out


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["今天", "--infill", "今[MASK]"], 2, "prompt and infill were given"),
        (["--length", "2", "今天"], 2, "--length belongs to --infill"),
        (["--candidates", "5", "今天"], 2, "--candidates belongs to --infill"),
        (["--candidates", "5"], 2, "--candidates belongs to --infill"),
        (["--infill", "今天[MASK]", "--candidates", "0"], 2, "--candidates is 0"),
        (["--infill", "今天[MASK]", "--seed", "1"], 2, "--seed belongs to a text that is continued"),
        (["--infill", "今天[MASK]", "--greedy"], 2, "--greedy belongs to a text that is continued"),
        (["--infill", "今天[MASK]", "--max-new-tokens", "100"], 2, "--max-new-tokens belongs to"),
        (["--infill", "今天[MASK]", "--temperature", "0"], 2, "--temperature belongs to"),
        (["--infill", "今天[MASK]", "--top-k", "0"], 2, "--top-k belongs to"),
        (["--infill", "今天[MASK]", "--top-p", "1"], 2, "--top-p belongs to"),
        (["--infill", "今天[MASK]", "--stop", "。"], 2, "--stop belongs to"),
        (["今天", "--greedy", "--temperature", "0.5"], 2, "--greedy and --temperature 0.5 were given; give one"),
        (["\udcbd\udcf1"], 2, r"prompt is not UTF-8: its character 1 is '\udcbd'"),
        (["--infill", "今\udcff[MASK]"], 2, "infill is not UTF-8: its character 2"),
        (["今天", "--stop", "\udcff"], 2, "stop is not UTF-8: its character 1"),
        (["--infill", "今天"], 2, "[MASK]"),
        (["--infill", "今天[MASK]", "--length", "4-1"], 2, "1..4"),
        (["今天", "--top-p", "0"], 2, "top_p is 0.0"),
        (["今天", "--max-new-tokens", "0"], 2, "--max-new-tokens is 0"),
        (["今天", "--max-new-tokens", "x"], 2, "--max-new-tokens"),
        (["今天", "--temperature", "-1"], 2, "temperature is -1.0"),
        (["今天", "--stop", ""], 2, "stop"),
        (["--file", "no-such-file"], 1, "cannot read no-such-file"),
        (["--file", "gbk.txt"], 1, "iconv -f gbk -t utf-8"),
        (["--file", "empty.txt"], 1, "holds no text"),
        (["今天", "--checkpoint", "nowhere"], 1, "no such directory"),
        (["今天"], 1, "run_train.sh"),
    ],
)
def test_bad_use_is_one_line(tmp_path: Path, monkeypatch, capsys, words, code: int, message: str) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(logging.getLogger("pangu_alpha"), "handlers", [])
    Path("gbk.txt").write_bytes(("今天是一个好天气，我们去公园。" * 3).encode("gbk"))
    Path("empty.txt").write_text(" \n")
    assert main(["generate", *words]) == code
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_piped_prompts_are_continued_line_by_line(run_directory: Path, model: PanguAlpha) -> None:  # noqa: F811
    words = ["--checkpoint", str(run_directory), "--greedy", "--max-new-tokens", "4"]
    done = subprocess.run(
        [sys.executable, "-m", "pangu_alpha.cli.main", "generate", *words],
        input="今天\n\n中国\n".encode(),
        capture_output=True,
        check=True,
        env={**os.environ, "PYTHONUTF8": "1"},
    )
    expected = [prompt + model.generate(prompt, max_new_tokens=4, temperature=0) for prompt in ("今天", "中国")]
    assert done.stdout.decode().splitlines() == expected


@pytest.mark.parametrize("locale", ["C", "ascii"])
def test_piped_utf8_is_read_in_every_locale(run_directory: Path, model: PanguAlpha, locale: str) -> None:  # noqa: F811
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG", "PYTHON"))}
    environment |= {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}
    environment |= {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"} if locale == "ascii" else {}
    environment |= {"LC_ALL": locale} if locale != "ascii" else {}
    words = ["--checkpoint", str(run_directory), "--greedy", "--max-new-tokens", "4"]
    done = subprocess.run(
        [sys.executable, "-m", "pangu_alpha.cli.main", "generate", *words],
        input="\ufeff今天\r\n".encode() + b"\xff\xfe\n",
        capture_output=True,
        env=environment,
    )
    expected = "今天" + model.generate("今天", max_new_tokens=4, temperature=0) + "\n"
    if locale == "ascii":  # what is read is right; what is shown lacks the characters
        expected = "".join(character if character.isascii() else "?" for character in expected)
    assert done.stdout.decode() == expected
    assert done.returncode == 1
    told = "pangu-alpha: line 2 of the standard input is not UTF-8, as a text must be; mend it, or convert the text"
    assert done.stderr.decode().splitlines()[1:] == [told]


def test_piped_gbk_is_named(generate, monkeypatch) -> None:
    text = "今天是一个好天气，我们去公园。\n".encode("gbk")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text)))
    code, out, err = generate("--greedy")
    assert (code, out) == (1, "")
    assert "line 1 of the standard input is not UTF-8, as a text must be; it looks like GBK: iconv -f gbk" in err


class Terminal:
    """The job at a terminal of its own."""

    def __init__(self, *words: str) -> None:
        self.screen, inner = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pangu_alpha.cli.main", "generate", *words],
            stdin=inner,
            stdout=inner,
            stderr=inner,
            start_new_session=True,
            env={**os.environ, "PYTHONUTF8": "1", "TERM": "dumb"},
        )
        os.close(inner)
        self.seen = b""

    def wait_for(self, words: str, seconds: float = 60.0) -> str:
        """What was shown up to `words`, which are taken off."""
        end = time.monotonic() + seconds
        while words.encode() not in self.seen:
            assert time.monotonic() < end, f"{words!r} did not come; seen: {self.seen.decode(errors='replace')[-500:]}"
            ready, _, _ = select.select([self.screen], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"{words!r} did not come; seen: {self.seen.decode(errors='replace')}"
            try:
                self.seen += os.read(self.screen, 4096)
            except OSError:
                raise AssertionError(f"it ended before {words!r}; seen: {self.seen.decode(errors='replace')}") from None
        before, _, self.seen = self.seen.partition(words.encode())
        return before.decode()

    def wait_for_anything(self, seconds: float = 60.0) -> None:
        """Return once something stands on the screen that no `wait_for` has taken off."""
        if not self.seen:
            ready, _, _ = select.select([self.screen], [], [], seconds)
            assert ready, "nothing came"
            self.seen += os.read(self.screen, 4096)

    def interrupt(self) -> str:
        """Press Ctrl-C and give what was shown until the next prompt.

        Beside another process that takes all of the machine, MindSpore was seen to lose one; it is pressed again then.
        """
        for _ in range(3):
            self.process.send_signal(signal.SIGINT)
            with contextlib.suppress(AssertionError):
                return self.wait_for("› ", 10.0)
        return self.wait_for("› ", 1.0)

    def type(self, text: str) -> None:
        os.write(self.screen, text.encode())


def test_a_session_at_a_terminal(run_directory: Path) -> None:  # noqa: F811
    # Context 32 and no end token at this temperature: the text goes on until it is stopped.
    terminal = Terminal(
        "--checkpoint", str(run_directory), "--max-new-tokens", "1000000", "--temperature", "1", "--no-cache"
    )
    try:
        terminal.wait_for("› ")
        for _ in range(2):
            terminal.type("今天\n")
            terminal.wait_for("今天\r\n")
            terminal.wait_for_anything()  # the graphs are compiled, the text has begun
            time.sleep(1.0)
            shown = terminal.interrupt()
        assert "�" not in shown  # no broken character
        time.sleep(0.5)  # a Ctrl-C between the prompt's appearance and its wait for keys is noticed with the next key
        terminal.interrupt()  # at the prompt: a new one
        terminal.type("\x04")
        assert terminal.process.wait(30) == 0
        assert b"Traceback" not in terminal.seen
    finally:
        terminal.process.kill()
        os.close(terminal.screen)
