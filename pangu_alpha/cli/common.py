"""What the jobs share: the parser, `--config` and trailing `key.sub=value` words, and tables."""

from __future__ import annotations

import argparse
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from pangu_alpha.config_checks import InvalidValue
from pangu_alpha.config_file import COMMAND_LINE, DEFAULT, LoadedConfig, load_config
from pangu_alpha.errors import UsageError
from pangu_alpha.parallel.layout import Layout, layout_of


class JobParser(argparse.ArgumentParser):
    """An argument parser whose mistakes are one line, and whose help ends with examples to paste."""

    def __init__(self, *, examples: str = "", **options: Any) -> None:
        if examples:
            options["epilog"] = f"examples:\n{_indent(examples)}"
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(**options)

    def error(self, message: str) -> NoReturn:
        """Raise UsageError instead of printing the usage and leaving."""
        raise UsageError(f"{message}; see `{self.prog} --help`")

    def parse_words(self, words: Sequence[str]) -> argparse.Namespace:
        """Parse the job's words; options may stand between `key.sub=value` words unless the job has jobs of its own."""
        if any(action.nargs == argparse.PARSER for action in self._actions):
            return self.parse_args(words)
        return self.parse_intermixed_args(words)


def add_config_arguments(parser: argparse.ArgumentParser, default: str | None = None) -> None:
    """Add `--config FILE` (arguments.config) and `key.sub=value …` (arguments.overrides).

    Feed both to `load_run`, or where no layout matters to `pangu_alpha.config_file.load_config`.
    """
    help_line = "configuration file" + (f" (default: {default})" if default else " (default: the built-in values)")
    parser.add_argument("--config", metavar="FILE", default=default, help=help_line)
    parser.add_argument(
        "overrides",
        metavar="key.sub=value",
        nargs="*",
        default=[],  # without it argparse would call the words required
        help="a setting that lies over the file's, e.g. train.steps=100",
    )


def load_run(path: str | None, overrides: Sequence[str]) -> tuple[LoadedConfig, Layout]:
    """The configuration of a run and its layout on a cluster, checked against the model.

    Raises UsageError: one line that names file and line, key, value and what is allowed.
    """
    loaded = load_config(path, overrides)
    try:
        return loaded, layout_of(loaded.config)
    except InvalidValue as error:
        source = loaded.sources[error.key]
        source, note = (path or COMMAND_LINE, " (the default)") if source == DEFAULT else (source, "")
        raise UsageError(f"{source}: {error.key} is {error.value!r}{note}; {error.allowed}") from None


def model_words(model: Mapping[str, Any]) -> list[str]:
    """The section `model` of a checkpoint as `key.sub=value` words."""
    return [f"model.{key}={value}" for key, value in model.items() if value != ""]


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    """Rows of text as aligned columns under `header`; the columns numbered in `right` lean to the right."""
    lines = [header, *rows]
    widths = [max(display_width(line[column]) for line in lines) for column in range(len(header))]
    ruled = [lines[0], ["-" * width for width in widths], *lines[1:]]
    return "\n".join(
        "  ".join(
            _padding(cell, width) + cell if column in right else cell + _padding(cell, width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in ruled
    )


def display_width(text: str) -> int:
    """Columns that `text` takes on a terminal: two for a Chinese character, none for a combining one."""
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in text)
    return len(text) + wide - sum(unicodedata.combining(character) > 0 for character in text)


def _padding(cell: str, width: int) -> str:
    return " " * (width - display_width(cell))


def _indent(text: str) -> str:
    return "\n".join(f"  {line.strip()}" for line in text.strip().splitlines())
