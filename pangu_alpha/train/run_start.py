"""Where a run begins: at the newest good checkpoint of its directory, another run's weights, or initial values."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from pangu_alpha.checkpoint.load import newest_good_checkpoint
from pangu_alpha.checkpoint.run_directory import find_checkpoint, find_tokenizer
from pangu_alpha.config_file import format_config
from pangu_alpha.errors import PanguError
from pangu_alpha.files import atomic_write
from pangu_alpha.train.first_values import give_initial_values, give_saved_values, give_saved_weights
from pangu_alpha.train.run_identity import require_same_run
from pangu_alpha.train.validation import HeldOutScore

if TYPE_CHECKING:
    from pangu_alpha.train.trainer import Trainer

logger = logging.getLogger(__name__)


def restore_or_begin(trainer: Trainer) -> None:
    """Take up the newest good checkpoint of the run directory, or give the weights their initial values."""
    if trainer.share and trainer.ranks.is_first:
        trainer.share.remove_leftovers(trainer.run.checkpoints)
    checkpoint, _ = newest_good_checkpoint(
        trainer.run.checkpoints, turn=trainer.ranks.rank, turns=trainer.ranks.count, any_rank=trainer.ranks.any
    )
    if checkpoint is None:
        if trainer.config.train.init_from:
            _take_weights(trainer, trainer.config.train.init_from)
        else:
            give_initial_values(trainer.stepper.step, trainer.config, trainer.ranks.rank)
        if trainer.ranks.is_first:
            _write_run_files(trainer)
        return
    if trainer.config.train.resume == "never":
        raise PanguError(
            f"train.resume is never, but {trainer.run.path} already holds checkpoints; remove it or give another "
            "train.output"
        )
    trainer.restored_from = checkpoint.directory
    state = checkpoint.train_state
    require_same_run(trainer.run.path, state["identity"], trainer.identity)
    give_saved_values(trainer.stepper.step, checkpoint, trainer.config, trainer.ranks.rank)
    trainer.guard.from_state(state["norm_guard"])
    trainer.step, trainer.samples, trainer.seconds = state["step"], state["samples"], state["seconds"]
    trainer.saved_step = trainer.step
    trainer.scores = {name: HeldOutScore(**score) for name, score in state["held_out"].items()}
    trainer.best = state.get("best") or trainer.best
    steps = trainer.config.train.steps
    if trainer.step < steps:
        trainer.scores.pop("after", None)  # an earlier call had fewer steps to do
        logger.info("%s: continuing after step %d of %d", trainer.run.path, trainer.step, steps)
    else:
        logger.info(
            "%s: finished at step %d of %d, nothing is left to do; a larger train.steps goes on, another train.output "
            "or name begins a new run",
            trainer.run.path, trainer.step, steps,
        )  # fmt: skip


def _take_weights(trainer: Trainer, directory: str) -> None:
    """Start from another run's weights: the model's alone, no moments, no counters."""
    checkpoint = find_checkpoint(directory)
    there, here = checkpoint.manifest.tokenizer_sha256, trainer.prepared.tokenizer_sha256
    if there != here:
        raise PanguError(
            f"train.init_from: {checkpoint.directory} has another vocabulary (SHA-256 {there[:12]}…, this text has "
            f"{here[:12]}…); prepare the text with tokenizer.kind=file tokenizer.path={find_tokenizer(checkpoint)}"
        )
    give_saved_weights(trainer.stepper.step, checkpoint, trainer.config, trainer.ranks.rank)
    logger.info("weights taken from %s, step %d", checkpoint.directory, checkpoint.step)


def _write_run_files(trainer: Trainer) -> None:
    trainer.run.tokenizer.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(trainer.run.tokenizer) as file:
        file.write(trainer.prepared.tokenizer_path.read_bytes())
    with atomic_write(trainer.run.path / "config.yaml", "w") as file:
        file.write(format_config(trainer.config))
