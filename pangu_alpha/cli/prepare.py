"""`pangu-alpha prepare`: raw text to training samples, and a table of what came out."""

from __future__ import annotations

import argparse
from pathlib import Path

from pangu_alpha.cli.common import add_config_arguments, format_table
from pangu_alpha.config_file import load_config
from pangu_alpha.data.prepared import HELD_OUT, TRAINING, Prepared, SideCount

EXAMPLES = """
pangu-alpha prepare
pangu-alpha prepare --config configs/quickstart.yaml 'data.sources=[my.txt, folder]'
pangu-alpha prepare data.sources=[corpus.jsonl.gz] data.text_key=content tokenizer.kind=official
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the job."""
    add_config_arguments(parser, "configs/quickstart.yaml")
    parser.add_argument(
        "--root",
        metavar="DIRECTORY",
        default="runs/prepared",
        help="where prepared data lies, one directory for each set (default: runs/prepared)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Prepare, and print documents, characters, tokens and samples by source and side."""
    from pangu_alpha.data.prepare import prepare

    config = load_config(arguments.config, arguments.overrides).config
    prepared = prepare(config, Path(arguments.root))
    print(describe(prepared, config.model.seq_length))
    return 0


def describe(prepared: Prepared, seq_length: int) -> str:
    """The table of prepared data, and the lines below it."""
    rows = [_row(count, f"{count.tokens / (seq_length + 1):,.1f}") for count in prepared.counts]
    for side, samples in ((TRAINING, prepared.train_samples), (HELD_OUT, prepared.valid_samples)):
        counts = [count for count in prepared.counts if count.side == side]
        total = SideCount(
            "all",
            side,
            sum(count.documents for count in counts),
            sum(count.characters for count in counts),
            sum(count.tokens for count in counts),
            sum(count.duplicates for count in counts),
        )
        rows.append(_row(total, f"{samples:,}"))
    header = [
        "source",
        "side",
        "documents",
        "duplicates left out",
        "characters",
        "tokens",
        "samples",
        "characters a token",
    ]
    held_out = sum(count.documents for count in prepared.counts if count.side == HELD_OUT)
    share = f"{held_out / max(1, prepared.documents):.2%}"
    return "\n".join(
        [
            format_table(header, rows, right=range(2, 8)),
            "",
            f"held out    {held_out:,} of {prepared.documents:,} documents ({share}), by a hash of their content",
            f"vocabulary  {prepared.tokenizer_path}",
            f"directory   {prepared.directory}",
        ]
    )


def _row(count: SideCount, samples: str) -> list[str]:
    ratio = f"{count.characters / count.tokens:.2f}" if count.characters and count.tokens else "-"
    return [
        count.source,
        count.side,
        f"{count.documents:,}",
        f"{count.duplicates:,}",
        f"{count.characters:,}",
        f"{count.tokens:,}",
        samples,
        ratio,
    ]
