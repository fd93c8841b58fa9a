"""Entry point of `pangu-alpha <job> …`: finds the job, imports that job alone, turns errors into one line.

A job is a module of this package with `EXAMPLES` (text to paste), `add_arguments(parser)` and
`run(arguments) -> int`, the exit code: 0 done, 1 failed, 2 bad use.  What interrupts a job ends it with 130 or 143.
"""

from __future__ import annotations

import importlib
import io
import logging
import os
import sys
from collections.abc import Sequence

from pangu_alpha.cli.common import JobParser
from pangu_alpha.errors import PanguError, Terminated, UsageError

JOBS: dict[str, tuple[str, str]] = {
    "train": ("pangu_alpha.cli.train", "train a model: prepare text, train, evaluate, save, write samples"),
    "launch": ("pangu_alpha.cli.launch", "start all processes of a run on this node, and see them to their end"),
    "generate": ("pangu_alpha.cli.generate", "continue a prompt, or fill [MASK] inside a text"),
    "tokenizer": ("pangu_alpha.cli.tokenizer", "fetch or train a vocabulary; encode, decode and inspect with it"),
    "checkpoint": ("pangu_alpha.cli.checkpoint", "show, verify, compare, convert checkpoints; published weights in"),
    "data": ("pangu_alpha.cli.data", "the data factory: raw, dirty text to a clean, weighted training set"),
    "prepare": ("pangu_alpha.cli.prepare", "turn raw text into training samples, without training"),
    "doctor": ("pangu_alpha.cli.doctor", "check whether training would start on this machine"),
    "topology": ("pangu_alpha.cli.topology", "show where each rank of a run sits; check and write rank tables"),
    "config": ("pangu_alpha.cli.config", "show a merged configuration and where each value came from"),
    "model": ("pangu_alpha.cli.model", "show a model's parts, shapes and parameters, without building it"),
    "dry-run": (
        "pangu_alpha.cli.dry_run",
        "compile what ranks of a cluster will run, without the cluster; report on it",
    ),
    "emulate": ("pangu_alpha.cli.emulate", "run all ranks of a small cluster run in one process, beside one device"),
}
"""Job -> (module, what it does in one line).  The module is imported only when its job is called."""

INTERRUPTED = 130
TERMINATED = 143
BROKEN_PIPE = 141


def main(words: Sequence[str] | None = None) -> int:
    """Run one job with the words of the command line; the exit code."""
    words = list(sys.argv[1:] if words is None else words)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A terminal or file whose encoding lacks a character gets ? in its place; stderr is lenient as Python opens it.
        sys.stdout.reconfigure(errors="replace")
    try:
        code = _dispatch(words)
        sys.stdout.flush()
        return code
    except PanguError as error:
        print(f"pangu-alpha: {error}", file=sys.stderr)
        return error.exit_code
    except Terminated:
        print("pangu-alpha: ended by SIGTERM", file=sys.stderr)
        return TERMINATED
    except KeyboardInterrupt:
        print("pangu-alpha: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read the output has left, as `| head` does; without this Python complains once more at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE


def _dispatch(words: list[str]) -> int:
    if not words:
        print(_overview(), file=sys.stderr)
        return UsageError.exit_code
    if words[0] in ("-h", "--help"):
        print(_overview())
        return 0
    if words[0] == "--version":
        print(_versions())
        return 0
    if words[0] not in JOBS:
        raise UsageError(f"there is no job {words[0]!r}; {_nearest(words[0])}allowed: {', '.join(JOBS)}")
    name, help_line = JOBS[words[0]]
    _log_to_terminal()
    job = importlib.import_module(name)
    parser = JobParser(prog=f"pangu-alpha {words[0]}", description=help_line, examples=job.EXAMPLES)
    job.add_arguments(parser)
    code: int = job.run(parser.parse_words(words[1:]))
    return code


def _overview() -> str:
    width = max(map(len, JOBS))
    jobs = "\n".join(f"  {job:{width}}  {line}" for job, (_, line) in JOBS.items())
    return (
        "usage: pangu-alpha JOB [options] [key.sub=value ...]\n\n"
        f"PanGu-α: train, examine and run the Chinese language model with MindSpore.\n\njobs:\n{jobs}\n\n"
        "`pangu-alpha JOB --help` shows a job's options and examples; `pangu-alpha --version` the versions.\n"
        "Exit codes: 0 done, 1 failed, 2 bad use, 130 interrupted, 143 ended by SIGTERM."
    )


def _versions() -> str:
    from importlib.metadata import PackageNotFoundError, version

    words = []
    for package in ("pangu-alpha", "mindspore", "numpy"):
        try:
            words.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            words.append(f"{package} not installed")
    return f"{', '.join(words)}, Python {sys.version.split()[0]}"


def _nearest(word: str) -> str:
    from difflib import get_close_matches

    near = get_close_matches(word, JOBS, 1)
    return f"nearest: {near[0]}; " if near else ""


class _ToStandardError(logging.StreamHandler):
    """Writes to what sys.stderr is when a line is logged: whoever calls `main` may have put another one there since."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


def _log_to_terminal() -> None:
    """Show what the library logs, and only that: other packages' loggers are left alone."""
    logger = logging.getLogger("pangu_alpha")
    if not logger.handlers:
        handler = _ToStandardError()
        handler.setFormatter(logging.Formatter("%(message)s"))
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False


if __name__ == "__main__":
    sys.exit(main())
