"""`pangu-alpha data`: the data factory, from raw dirty text to a training set."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

from pangu_alpha.cli.common import format_table
from pangu_alpha.errors import PanguError, UsageError

EXAMPLES = """
pangu-alpha data run --config configs/data/demo.yaml
pangu-alpha data run --config configs/data/demo.yaml corpus=my-texts output=runs/data/mine workers=2
pangu-alpha data run --config configs/data/demo.yaml packing.seq_length=256 duplicates.threshold=0.7
pangu-alpha data show runs/data/demo
pangu-alpha data rules
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the job."""
    jobs = parser.add_subparsers(dest="action", required=True, metavar="run|show|rules")
    run = jobs.add_parser(
        "run",
        help="read, clean, leave out duplicates, tokenize, pack, report",
        description="Read, clean, leave out duplicates, tokenize, pack, report. A run that was stopped goes on.",
        examples=EXAMPLES.partition("pangu-alpha data show")[0],
    )
    run.add_argument("--config", metavar="FILE", default="configs/data/demo.yaml", help="recipe (default: %(default)s)")
    run.add_argument(
        "words",
        metavar="key=value",
        nargs="*",
        help="corpus=DIR (each of its folders is a source), output=DIR, workers=N, or a setting: packing.tail=pad",
    )
    show = jobs.add_parser(
        "show", help="print the table of a finished run", examples="pangu-alpha data show runs/data/demo"
    )
    show.add_argument("directory", help="what `run` wrote into")
    jobs.add_parser("rules", help="list all rules, their settings and defaults", examples="pangu-alpha data rules")


def run(arguments: argparse.Namespace) -> int:
    """Run, show, or list."""
    if arguments.action == "rules":
        print(_rules())
        return 0
    if arguments.action == "show":
        print(_table(_report(Path(arguments.directory))))
        return 0
    return _run(arguments.config, arguments.words)


def _run(config: str, words: list[str]) -> int:
    from pangu_alpha.data.factory_run import run_factory
    from pangu_alpha.data.recipe import load_recipe, with_corpus

    own = {"corpus": "", "output": "", "workers": "0"}
    overrides = []
    for word in words:
        key, separator, value = word.partition("=")
        if not separator:
            raise UsageError(f"{word!r} is no key=value, such as corpus=my-texts or packing.seq_length=256")
        if key in own:
            own[key] = value
        else:
            overrides.append(word)
    if not re.fullmatch(r"[0-9]{1,9}", own["workers"]):
        raise UsageError(f"workers is {own['workers']!r}; allowed: 0 (one a core) or more")
    recipe = load_recipe(config, overrides)
    if own["corpus"]:
        recipe = with_corpus(recipe, Path(own["corpus"]).expanduser())
    output = Path(own["output"]).expanduser() if own["output"] else Path("runs/data") / recipe.name
    result = run_factory(recipe, output, int(own["workers"]))
    print(_table(_report(output)))
    print(f"\nreport      {result.report}\ndirectory   {output}")
    print(f"train on it: pangu-alpha train --config configs/quickstart.yaml data.prepared={output} …")
    for line in result.broken_files:
        print(f"not read    {line}")
    return 1 if result.broken_files else 0


def _report(directory: Path) -> dict[str, Any]:
    path = directory / "report.json"
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise PanguError(
            f"{directory} holds no report.json; `pangu-alpha data run output={directory}` makes it"
        ) from None
    return content


def _table(report: dict[str, Any]) -> str:
    rows = [
        [
            row["source"],
            row["stage"],
            f"{row['documents']:,}" if "documents" in row else "0",
            f"{row['characters']:,}" if "characters" in row else "",
            f"{row['bytes'] / 1e6:,.2f}" if "bytes" in row else "",
            f"{row['tokens']:,}" if "tokens" in row else "",
        ]
        for row in report["stages"]
    ]
    rules = [
        [rule["rule"], f"{rule['documents']:,}", f"{rule['dropped']:,}", f"{rule['changed']:,}", f"{rule['pieces']:,}"]
        for rule in report["rules"]
    ]
    found, samples = report["duplicates"], report["samples"]
    return "\n".join(
        [
            format_table(["source", "stage", "documents", "characters", "MB", "tokens"], rows, right=range(2, 6)),
            "",
            format_table(["rule", "documents in", "dropped", "changed", "pieces taken out"], rules, right=range(1, 5)),
            "",
            f"duplicates  {found['exact']:,} exact, {found['near']:,} near, {found['paragraphs']:,} paragraphs",
            f"samples     {samples['training']:,} for training, {samples['held out']:,} held out",
        ]
    )


def _rules() -> str:
    import dataclasses

    from pangu_alpha.data.rules import RULES

    rows = []
    for name, kind in RULES.items():
        settings = ", ".join(f"{item.name}: {item.default}" for item in dataclasses.fields(kind))
        rows.append(
            [name, settings if len(settings) < 70 else settings[:67] + "...", (kind.__doc__ or "").split("\n")[0]]
        )
    return format_table(["rule", "settings and defaults", "what it does"], rows)
