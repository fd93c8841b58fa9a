"""`pangu-alpha checkpoint ACTION`: what can be done with checkpoints beside training and using them."""

from __future__ import annotations

import argparse

from pangu_alpha.cli import published

EXAMPLES = published.EXAMPLES


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the job."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    published.add_actions(actions)


def run(arguments: argparse.Namespace) -> int:
    """Do the action."""
    code: int = arguments.act(arguments)
    return code
