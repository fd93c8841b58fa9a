"""`pangu-alpha config show`: the merged configuration as YAML, each line with where its value came from."""

from __future__ import annotations

import argparse

from pangu_alpha.cli.common import add_config_arguments, load_run
from pangu_alpha.config_file import format_config

EXAMPLES = """
pangu-alpha config show --config configs/quickstart.yaml
pangu-alpha config show --config configs/quickstart.yaml train.steps=100 'data.sources=[my.txt]'
pangu-alpha config show
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the job."""
    parser.add_argument("action", metavar="show", choices=["show"], help="print the configuration that a run would use")
    add_config_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the merged configuration; it reads back as a configuration file."""
    loaded, _ = load_run(arguments.config, arguments.overrides)
    print(format_config(loaded.config, loaded.sources), end="")
    return 0
