"""`pangu-alpha dry-run`: what chosen ranks of a cluster run will compute, hold and send, without the cluster."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from textwrap import fill

from pangu_alpha.cli.common import add_config_arguments, format_table
from pangu_alpha.config_file import load_config
from pangu_alpha.errors import PanguError, UsageError

EXAMPLES = """
pangu-alpha dry-run --config configs/runs/200b_2048.yaml --ranks 1024
pangu-alpha dry-run --config configs/runs/2.6b_8.yaml --ranks first,middle,last --html report.html
pangu-alpha dry-run --config configs/runs/2.6b_8.yaml --target gpu --json report.json parallel.recompute=none
pangu-alpha dry-run --config configs/twins/all_five.yaml --target both --compare-search
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the job."""
    add_config_arguments(parser, "configs/runs/200b_2048.yaml")
    parser.add_argument(
        "--ranks",
        metavar="LIST",
        default="middle",
        help="numbers and the words first, middle, last, stages (the first of each), all (default: middle)",
    )
    parser.add_argument(
        "--target",
        choices=("ascend", "gpu", "both"),
        default="ascend",
        help="device; both reports on Ascend and shows where the GPU's graph differs (default: ascend)",
    )
    parser.add_argument(
        "--compare-search",
        action="store_true",
        help="compile the first of the ranks with MindSpore's own search of strategies, too, and show the differences",
    )
    parser.add_argument(
        "--at-once", metavar="N", type=_positive, default=1, help="ranks that compile at the same time (default: 1)"
    )
    parser.add_argument("--details", action="store_true", help="also show every parameter and its slice")
    parser.add_argument("--json", metavar="FILE", help="write everything as JSON")
    parser.add_argument("--html", metavar="FILE", help="write a page with pictures that needs no other file")
    parser.add_argument("--keep", metavar="DIRECTORY", help="keep graphs and MindSpore's logs there")
    parser.add_argument(
        "--strict",
        action="store_true",
        help="exit with 1 if a redistribution is unplanned, an operator has no strategy, or a rank does not fit",
    )


def run(arguments: argparse.Namespace) -> int:
    """Compile, read, and show."""
    config = load_config(arguments.config, arguments.overrides).config

    from pangu_alpha.files import atomic_write
    from pangu_alpha.parallel.layout import layout_of
    from pangu_alpha.rehearsal.dry_run import choose_ranks, dry_run
    from pangu_alpha.rehearsal.memory import METHOD
    from pangu_alpha.rehearsal.report import as_json, headline, search_table, tables, target_table, verdict
    from pangu_alpha.rehearsal.report_page import as_page

    for path in filter(None, (arguments.json, arguments.html)):
        if Path(path).is_dir():
            raise UsageError(f"{path} is a directory; name a file to write the report to")
    ranks = choose_ranks(arguments.ranks, layout_of(config))
    keep = Path(arguments.keep) if arguments.keep else None
    target = "ascend" if arguments.target == "both" else arguments.target
    result = dry_run(config, ranks, target, arguments.at_once, keep)
    print(headline(result))
    shown = tables(result, arguments.details)
    if arguments.target == "both":
        shown.append(target_table(result, dry_run(config, ranks, "gpu", arguments.at_once, keep and keep / "gpu")))
    if arguments.compare_search:
        parallel = dataclasses.replace(config.parallel, search="sharding_propagation")
        searched = dataclasses.replace(config, parallel=parallel)
        try:
            shown.append(search_table(result, dry_run(searched, ranks[:1], target, 1, keep and keep / "search")))
        except PanguError as error:  # that it refuses a model is a finding, too
            print(f"MindSpore's search refused: {error}")
    for table in shown:
        rows = format_table(table.header, table.rows, table.right) if table.rows else "none"
        print(f"\n{table.title}\n{rows}")
    print("\n" + "\n".join(verdict(result)))
    print("\n" + fill(METHOD, 120) + "\n")
    for path, content in ((arguments.json, as_json), (arguments.html, as_page)):
        if path:
            with atomic_write(path, "w") as file:
                file.write(content(result))
            print(f"written                    {path}")
    return 1 if arguments.strict and not result.in_order else 0


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number
