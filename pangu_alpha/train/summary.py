"""What `train` shows when it ends: how good the model is, against what, where everything lies, and what it writes."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pangu_alpha.checkpoint.load import list_checkpoints
from pangu_alpha.config import Config
from pangu_alpha.data.baseline import measure_baseline
from pangu_alpha.files import atomic_write
from pangu_alpha.inference.language_model import PanguAlpha
from pangu_alpha.train.metrics import count_skipped
from pangu_alpha.train.trainer import TrainResult
from pangu_alpha.train.validation import HeldOutScore

logger = logging.getLogger(__name__)

SAMPLE_SEED = 1
SAMPLE_TOKENS = 60


@dataclass(frozen=True)
class Summary:
    """Numbers and texts of a finished run; `summary.json` in its directory."""

    steps: int
    tokens: int
    tokens_per_second: float
    skipped_steps: int
    """Steps that were not applied: overflows, and batches too far off."""
    held_out_tokens: int
    perplexity_before: float
    perplexity_after: float
    bits_per_character: float
    baseline_bits_per_character: float | None
    """Of a smoothed character 3-gram model of the same training text on the same held-out text."""
    continuations: list[tuple[str, str]] = field(default_factory=list)
    """Prompt and what the model wrote."""
    fillings: list[tuple[str, list[tuple[str, float]]]] = field(default_factory=list)
    """Text with [MASK], and the best fillings with their probabilities."""
    checkpoint: str = ""
    loss_curve: str = ""
    tensorboard: str = ""


def summarize(config: Config, result: TrainResult, after: HeldOutScore) -> Summary:
    """Measure a finished run, let its model write, and keep it all as `summary.json`; `after` is its final score."""
    prepared, directory = result.prepared, result.run.path
    baseline = measure_baseline(prepared) if config.report.baseline else None
    continuations, fillings = _let_it_write(directory, config.report.prompts, config.report.infills)
    summary = Summary(
        steps=result.step,
        tokens=result.tokens,
        tokens_per_second=result.tokens / result.seconds if result.seconds else 0.0,
        skipped_steps=count_skipped(directory),
        held_out_tokens=after.tokens,
        perplexity_before=result.before.perplexity,
        perplexity_after=after.perplexity,
        bits_per_character=after.bits_per_character(max(1, prepared.valid_characters)),
        baseline_bits_per_character=baseline.bits_per_character if baseline else None,
        continuations=continuations,
        fillings=fillings,
        checkpoint=str(list_checkpoints(result.run.checkpoints)[0]),
        loss_curve=str(directory / "loss.png"),
        tensorboard=str(directory / "tensorboard"),
    )
    with atomic_write(directory / "summary.json", "w") as file:
        json.dump(asdict(summary), file, ensure_ascii=False, indent=1)
    return summary


def _let_it_write(
    directory: Path, prompts: Sequence[str], infills: Sequence[str]
) -> tuple[list[tuple[str, str]], list[tuple[str, list[tuple[str, float]]]]]:
    if not prompts and not infills:
        return [], []
    model = PanguAlpha.load(directory)
    continuations = [(prompt, model.generate(prompt, SAMPLE_TOKENS, seed=SAMPLE_SEED)) for prompt in prompts]
    fillings = []
    for text in infills if model.config.model.query_layer else ():
        best = model.infill(text, number=3)
        fillings.append((text, [("".join(filling.fills), filling.probability) for filling in best]))
    return continuations, fillings
