"""The entry point: it starts at once, imports nothing heavy, and each ending has its exit code and its one line."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import logging
import os
import subprocess
import sys
import time
import types

import pytest

from pangu_alpha.cli import main as entry
from pangu_alpha.cli.common import JobParser
from pangu_alpha.errors import PanguError, Terminated, UsageError

PROBE = """
import sys
from pangu_alpha.cli.main import main
try:
    code = main({words!r})
except SystemExit as stop:
    code = stop.code
heavy = sorted({{"mindspore", "numpy", "pyarrow", "matplotlib", "jieba", "sentencepiece"}} & set(sys.modules))
print(f"code {{code}}, heavy {{heavy}}", file=sys.stderr)
"""


def probe(*words):
    command = [sys.executable, "-c", PROBE.format(words=list(words))]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.fixture
def job(monkeypatch):
    """Register the job `sample`, whose `run` is the function given."""

    def register(run):
        module = types.ModuleType("sample_job")
        module.EXAMPLES = "pangu-alpha sample"
        module.add_arguments = lambda parser: parser.add_argument("--number", type=int)
        module.run = run
        monkeypatch.setitem(sys.modules, "sample_job", module)
        monkeypatch.setitem(entry.JOBS, "sample", ("sample_job", "a job of this test"))

    return register


def test_help_lists_every_job_at_once_and_imports_nothing_heavy():
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        done = probe("--help")
        seconds.append(time.perf_counter() - start)
    assert "code 0, heavy []" in done.stderr
    width = max(map(len, entry.JOBS))
    for name, (_, line) in entry.JOBS.items():
        assert f"  {name:{width}}  {line}\n" in done.stdout
    assert min(seconds) < 0.5


@pytest.mark.parametrize("name", entry.JOBS)
def test_every_job_has_a_help_with_examples_that_imports_no_mindspore(name):
    done = probe(name, "--help")
    assert "code 0" in done.stderr, done.stderr
    assert "mindspore" not in done.stderr
    assert f"examples:\n  pangu-alpha {name}" in done.stdout


@pytest.mark.parametrize("name", entry.JOBS)
def test_every_job_of_a_job_has_examples_of_its_own(name):
    module = importlib.import_module(entry.JOBS[name][0])
    parser = JobParser(prog=f"pangu-alpha {name}", examples=module.EXAMPLES)
    module.add_arguments(parser)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for word, job in action.choices.items():
                assert f"examples:\n  pangu-alpha {name} {word}" in job.format_help()


def test_workers_of_the_data_factory_are_a_number(capsys):
    assert entry.main(["data", "run", "workers=²"]) == 2
    assert capsys.readouterr().err == "pangu-alpha: workers is '²'; allowed: 0 (one a core) or more\n"


def test_without_a_word_the_help_is_shown_as_bad_use(capsys):
    assert entry.main([]) == 2
    assert "usage: pangu-alpha JOB" in capsys.readouterr().err


def test_version_names_what_a_bug_report_needs(capsys):
    assert entry.main(["--version"]) == 0
    assert "mindspore 2." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["modle"], "there is no job 'modle'; nearest: model; allowed: train, "),
        (["model", "--wrong"], "unrecognized arguments: --wrong; see `pangu-alpha model --help`"),
        (["model", "--config"], "argument --config: expected one argument; see `pangu-alpha model --help`"),
        (["model", "--config", "nowhere.yaml"], "nowhere.yaml: no such file"),
        (["model", "model.layers=3"], "there is no key model.layers; nearest: model.num_layers;"),
        (["config"], "the following arguments are required: show; see `pangu-alpha config --help`"),
        (["config", "hide"], "argument show: invalid choice: 'hide'"),
    ],
)
def test_bad_use_is_one_line_and_exit_code_2(capsys, words, expected):
    assert entry.main(words) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("pangu-alpha: ")
    assert expected in captured.err
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize(("error", "code"), [(PanguError("the disk\nis full"), 1), (UsageError("no such thing"), 2)])
def test_an_error_of_the_user_is_one_line(capsys, job, error, code):
    def run(arguments):
        raise error

    job(run)
    assert entry.main(["sample"]) == code
    assert capsys.readouterr().err == f"pangu-alpha: {error}\n"


def test_a_bug_keeps_its_traceback(job):
    job(lambda arguments: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        entry.main(["sample"])


@pytest.mark.parametrize(
    ("how", "code", "said"), [(KeyboardInterrupt, 130, "interrupted"), (Terminated, 143, "ended by SIGTERM")]
)
def test_an_interrupt_is_one_line_and_has_its_exit_code(capsys, job, how, code, said):
    def run(arguments):
        raise how

    job(run)
    assert entry.main(["sample"]) == code
    assert capsys.readouterr().err == f"pangu-alpha: {said}\n"
    assert entry.main(["--help"]) == 0
    assert f"{code} {said}" in capsys.readouterr().out


@pytest.mark.parametrize("encoding", ["ascii", "gbk", "latin-1", "utf-8"])
@pytest.mark.parametrize("words", [["--help"], ["config", "show", "name=α⏎饕"], ["model"], ["α⏎饕"]], ids=str)
def test_a_terminal_of_any_encoding_takes_all_output(encoding, words):
    command = [sys.executable, "-m", "pangu_alpha.cli.main", *words]
    done = subprocess.run(command, capture_output=True, env={**os.environ, "PYTHONIOENCODING": encoding})
    assert done.returncode == (2 if words == ["α⏎饕"] else 0)
    assert b"Traceback" not in done.stderr
    shown = (done.stdout + done.stderr).decode(encoding)
    if words[-1] != "--help" and words != ["model"]:
        expected = "α⏎饕".encode(encoding, "backslashreplace" if done.returncode else "replace").decode(encoding)
        assert expected in shown.replace("\\\\", "\\")


def test_a_job_gets_its_arguments_and_its_code_is_returned(job):
    job(lambda arguments: arguments.number)
    assert entry.main(["sample", "--number", "1"]) == 1


def test_what_the_library_logs_is_shown_once(capsys, job):
    def run(arguments):
        logging.getLogger("pangu_alpha.train").info("step 1")
        logging.getLogger("another.package").info("unasked")
        return 0

    job(run)
    entry.main(["sample"])
    entry.main(["sample"])
    assert capsys.readouterr().err == "step 1\nstep 1\n"
    another = io.StringIO()  # a notebook's, for example
    with contextlib.redirect_stderr(another):
        entry.main(["sample"])
    assert another.getvalue() == "step 1\n"
    assert capsys.readouterr().err == ""


def test_a_reader_that_leaves_is_no_error():
    read_end, write_end = os.pipe()
    os.close(read_end)
    command = [sys.executable, "-m", "pangu_alpha.cli.main", "config", "show"]
    done = subprocess.run(command, stdout=write_end, stderr=subprocess.PIPE, text=True)
    os.close(write_end)
    assert done.returncode == 141
    assert done.stderr == ""
