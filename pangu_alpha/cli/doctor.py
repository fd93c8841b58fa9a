"""`pangu-alpha doctor`: whether training would start on this machine, a line a question."""

from __future__ import annotations

import argparse
from pathlib import Path

from pangu_alpha.cli.common import format_table

EXAMPLES = """
pangu-alpha doctor
pangu-alpha doctor --device ascend --rank-table hccl.json
pangu-alpha doctor --device gpu --output runs
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the job."""
    parser.add_argument(
        "--device", choices=["cpu", "gpu", "ascend"], default="cpu", help="what to train on (%(default)s)"
    )
    parser.add_argument("--rank-table", metavar="FILE", default="", help="the rank table of the launch")
    parser.add_argument("--master", metavar="ADDRESS", default="127.0.0.1", help="the first node (%(default)s)")
    parser.add_argument("--port", type=int, metavar="PORT", default=8118, help="its port (%(default)s)")
    parser.add_argument("--output", metavar="DIR", default="runs", help="where runs go (%(default)s)")


def run(arguments: argparse.Namespace) -> int:
    """Print the findings; 1 if training would fail."""
    from pangu_alpha.launch.doctor import FAILED, Patient, examine

    findings = examine(
        Patient(arguments.device, arguments.rank_table, arguments.master, arguments.port, Path(arguments.output))
    )
    print(format_table(["", "state", "found"], [[item.name, item.state, item.text] for item in findings]))
    failed = sum(item.state == FAILED for item in findings)
    print(f"\n{failed} of {len(findings)} failed: training would not start" if failed else "\ntraining can start")
    return 1 if failed else 0
