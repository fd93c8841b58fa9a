"""How long a dry run takes and how much memory, against the limits that one rank of the 200B run is to keep.

    python benchmarks/dry_run.py [--runs 200b_2048,13b_512] [--ranks first,middle,last] [--target ascend]

Compiles ranks of the published runs in configs/runs, all of them unless some are named, one at a time, and prints a
Markdown table: what each rank holds and sends, and what compiling it took.  The ratios at the end are to the limits of
45 seconds and 3 GiB a rank on a machine with 2 cores; above 1 they are exceeded.  With other programs at work the
processor's seconds tell more than the clock's.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from machine import describe_machine

from pangu_alpha.config_file import load_config
from pangu_alpha.errors import PanguError
from pangu_alpha.parallel.layout import layout_of
from pangu_alpha.rehearsal.dry_run import DryRun, choose_ranks, dry_run
from pangu_alpha.rehearsal.report import sent, size_text, weights_of

RUNS = Path(__file__).resolve().parent.parent / "configs" / "runs"
LIMIT_SECONDS, LIMIT_GIB = 45.0, 3.0
HEADER = (
    "run", "target", "rank", "stage", "weights", "device memory", "sent a step", "unplanned", "no strategy", "s",
    "CPU s", "GiB",
)  # fmt: skip


def rows(run: DryRun) -> list[str]:
    """A Markdown line for each rank."""
    result = []
    for rank in run.ranks:
        memory = rank.memory
        cells = (
            run.config.name, run.target, rank.rank, rank.stage, f"{weights_of(rank):,}",
            f"{size_text(memory.total)} of {size_text(memory.device)}", size_text(sent(rank)), len(rank.unplanned),
            len(rank.without_strategy), f"{rank.seconds:.0f}", f"{rank.processor_seconds:.0f}",
            f"{rank.peak_bytes / 2**30:.2f}",
        )  # fmt: skip
        result.append(f"| {' | '.join(map(str, cells))} |")
    return result


def main() -> int:
    """Compile and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = ",".join(path.stem for path in sorted(RUNS.glob("*.yaml")))
    parser.add_argument("--runs", default=names, help="names of files in configs/runs (default: all)")
    parser.add_argument("--ranks", default="first,middle,last")
    parser.add_argument("--target", default="ascend", choices=("ascend", "gpu"))
    arguments = parser.parse_args()
    print(describe_machine())
    print(f"| {' | '.join(HEADER)} |\n|{'---|' * len(HEADER)}")
    slowest, largest = 0.0, 0
    for name in arguments.runs.split(","):
        try:
            config = load_config(RUNS / f"{name}.yaml").config
            run = dry_run(config, choose_ranks(arguments.ranks, layout_of(config)), arguments.target)
        except PanguError as error:
            print(f"{name}: {error}", file=sys.stderr)
            return error.exit_code
        print("\n".join(rows(run)), flush=True)
        slowest = max(slowest, *(rank.seconds for rank in run.ranks))
        largest = max(largest, *(rank.peak_bytes for rank in run.ranks))
    print(f"\nslowest rank: {slowest / LIMIT_SECONDS:.2f} of {LIMIT_SECONDS:.0f} s; ", end="")
    print(f"largest: {largest / 2**30 / LIMIT_GIB:.2f} of {LIMIT_GIB:.0f} GiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
