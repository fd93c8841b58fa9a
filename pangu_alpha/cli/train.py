"""`pangu-alpha train`: prepare text, train, evaluate, save, write samples."""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pangu_alpha.cli.common import add_config_arguments, load_run
from pangu_alpha.interrupts import unbroken_import

if TYPE_CHECKING:
    from pangu_alpha.config import Config
    from pangu_alpha.train.summary import Summary
    from pangu_alpha.train.trainer import TrainResult

EXAMPLES = """
pangu-alpha train --config configs/quickstart.yaml
pangu-alpha train --config configs/quickstart.yaml data.sources=[my_texts/] train.output=runs/mine
pangu-alpha train --config configs/quickstart.yaml name=profiled train.steps=20 --profile 10-12
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the job."""
    add_config_arguments(parser, "configs/quickstart.yaml")
    parser.add_argument("--profile", metavar="FIRST-LAST", help="write a trace of these steps, e.g. 3-5")


def run(arguments: argparse.Namespace) -> int:
    """Train; 0 also when a signal stopped the run after a checkpoint."""
    overrides = list(arguments.overrides)
    if arguments.profile:
        overrides.append(f"train.profile={arguments.profile}")
    config = load_run(arguments.config, overrides)[0].config

    with unbroken_import():
        from pangu_alpha.train.trainer import train

    result = train(config)
    if result.after is None or not result.is_first_rank:
        return 0

    with unbroken_import():
        from pangu_alpha.train.summary import summarize

    print(format_summary(config, result, summarize(config, result, result.after)))
    return 0


def format_summary(config: Config, result: TrainResult, summary: Summary) -> str:
    """The last screen of a run."""
    speed = f"{summary.tokens_per_second:,.0f} tokens/s"
    lines = [
        "",
        f"{config.name}: {summary.steps} steps, {summary.tokens / 1e6:.2f} M tokens, {speed}{_skipped(summary)}",
    ]
    if summary.held_out_tokens:
        perplexities = f"{summary.perplexity_before:,.0f} before, {summary.perplexity_after:.1f} after"
        lines += [
            f"  held-out perplexity   {perplexities} ({summary.held_out_tokens:,} tokens)",
            f"  bits per character    {summary.bits_per_character:.3f}{_against(summary)}",
        ]
    lines += [
        f"  checkpoint            {summary.checkpoint}",
        f"  loss curve            {summary.loss_curve}",
        f"  TensorBoard           tensorboard --logdir {summary.tensorboard}",
    ]
    if summary.continuations or summary.fillings:
        lines += ["", "it writes:"]
    lines += [f"  {prompt}|{_one_line(text)}" for prompt, text in summary.continuations]
    for text, fillings in summary.fillings:
        lines.append(f"  {text}: " + ", ".join(f"{filling} {probability:.0%}" for filling, probability in fillings))
    program, directory = _program(), result.run.path
    lines += [
        "",
        "next:",
        f"  {program} generate --checkpoint {directory}        (write with it)",
    ]
    if config.model.query_layer:  # a plain GPT can't be asked for a chosen position
        lines.append(f"  {program} generate --checkpoint {directory} --infill '他[MASK]北京'")
    lines.append(f"  {program} train --help        (your own text, more steps)")
    return "\n".join(lines)


def _program() -> str:
    """How to call this program: by its name, or by its path where the environment is not active."""
    if shutil.which("pangu-alpha"):
        return "pangu-alpha"
    installed = Path(sys.executable).parent / "pangu-alpha"
    here = Path.cwd()
    return str(installed.relative_to(here) if installed.is_relative_to(here) else installed)


def _skipped(summary: Summary) -> str:
    return f", {summary.skipped_steps} steps skipped" if summary.skipped_steps else ""


def _against(summary: Summary) -> str:
    baseline = summary.baseline_bits_per_character
    if baseline is None:
        return ""
    verdict = "the model wins" if summary.bits_per_character < baseline else "the 3-gram model wins"
    return f"; a smoothed character 3-gram model of the same text: {baseline:.3f} ({verdict})"


def _one_line(text: str) -> str:
    return text.replace("\n", "⏎")
