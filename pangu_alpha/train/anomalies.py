"""When a step is not like the others: a loss that is no number, a gradient far off.  Pure logic, no MindSpore."""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pangu_alpha.errors import PanguError
from pangu_alpha.train.json_lines import JsonLines


def require_finite_loss(step: int, loss: float, checkpoint: str | Path | None) -> None:
    """Stop the run when the loss of `step` is not a finite number.

    `checkpoint` is the last good one, for the message.

    Raises:
        PanguError: one line that names the step and where to go on from.
    """
    if math.isfinite(loss):
        return
    rescue = f"the last good checkpoint is {checkpoint}" if checkpoint else "no good checkpoint had been written yet"
    start = f" with train.init_from={checkpoint}" if checkpoint else ""
    raise PanguError(
        f"the loss of step {step} is {loss}: training stops, and the weights of this step are not saved; {rescue}; "
        "the same settings would meet the same step, so try a smaller optimizer.learning_rate, a longer "
        f"optimizer.warmup_steps, or train.skip_norm_factor=5, in another train.output{start}"
    )


class NormGuard:
    """Which gradient norm is too far off to be trusted.

    The limit is `factor` times the median norm of the last `window` batches that were used, and infinite until there
    are `minimum` of them.  Neither skipped batches nor overflows enter the median: one outlier must not open the door
    for the next.

    Args:
        factor: how many times the median a norm may be; 0 turns the guard off.
        window: norms that are remembered.
        minimum: norms needed before any batch is skipped.
        patience: skipped batches in a row after which the run stops: then it is not the data that is odd.
    """

    def __init__(self, factor: float, window: int = 100, minimum: int = 20, patience: int = 10) -> None:
        self.factor, self.minimum, self.patience = factor, minimum, patience
        self._norms: deque[float] = deque(maxlen=window)
        self._skipped_in_a_row = self._overflows_in_a_row = 0

    @property
    def limit(self) -> float:
        """Largest gradient norm that the next step may apply; infinite while the guard is not active."""
        if self.factor <= 0 or len(self._norms) < self.minimum:
            return math.inf
        return self.factor * statistics.median(self._norms)

    def observe(self, step: int, gradient_norm: float, skipped: bool, loss_scale: float = math.inf) -> None:
        """Take note of a finished step: its global norm, and whether it was skipped for exceeding the limit.

        An overflow (a norm that is not finite) is the loss scale's matter as long as the scale can fall.

        Raises:
            PanguError: `patience` batches were skipped in a row, or as many overflowed with a scale of 1, as float32
                always has: then no later step would be better.
        """
        self._observe_overflow(step, gradient_norm, loss_scale)
        if not skipped:
            if math.isfinite(gradient_norm):
                self._norms.append(float(gradient_norm))
                self._skipped_in_a_row = 0
            return
        self._skipped_in_a_row += 1
        if self._skipped_in_a_row >= self.patience:
            raise PanguError(
                f"{self.patience} batches in a row, up to step {step}, had a gradient norm beyond {self.limit:.3g} "
                f"({self.factor:g} times the recent median; the last one {gradient_norm:.3g}): training stops; "
                "skipped.jsonl in the run directory lists them; the same command goes on with a larger "
                "train.skip_norm_factor, or with 0, which skips none"
            )

    def _observe_overflow(self, step: int, gradient_norm: float, loss_scale: float) -> None:
        overflow = not math.isfinite(gradient_norm) and loss_scale <= 1.0
        self._overflows_in_a_row = self._overflows_in_a_row + 1 if overflow else 0
        if self._overflows_in_a_row >= self.patience:
            raise PanguError(
                f"the gradient of {self.patience} steps in a row, up to step {step}, is not finite although their loss "
                "is, and the loss scale is 1: no update would ever be applied again, so training stops; try a smaller "
                "optimizer.learning_rate or a longer optimizer.warmup_steps from an earlier checkpoint"
            )

    def to_state(self) -> dict[str, Any]:
        """What a checkpoint keeps, as plain JSON; `from_state` restores it exactly."""
        return {
            "norms": list(self._norms),
            "skipped_in_a_row": self._skipped_in_a_row,
            "overflows_in_a_row": self._overflows_in_a_row,
        }

    def from_state(self, state: dict[str, Any]) -> None:
        """Continue where `to_state` was taken."""
        self._norms.clear()
        self._norms.extend(state["norms"])
        self._skipped_in_a_row = state["skipped_in_a_row"]
        self._overflows_in_a_row = state.get("overflows_in_a_row", 0)  # not in checkpoints of version 0.1


class SkippedBatches:
    """skipped.jsonl: every batch that was left out, so that it can be found and replayed.

    Args:
        run_directory: where the file lies; it is made with the first skipped batch.
        resume_step: last step of the checkpoint that the run continues from, 0 for a new run.
    """

    def __init__(self, run_directory: str | Path, resume_step: int = 0) -> None:
        self.path = Path(run_directory) / "skipped.jsonl"
        self._resume_step = resume_step
        self._rows = JsonLines(self.path, resume_step) if self.path.exists() else None

    def append(
        self, step: int, epochs: Sequence[int], samples: Sequence[int], gradient_norm: float, limit: float
    ) -> None:
        """Log one batch: epoch and index in the training set of each sample; `limit` is the norm that it exceeded.

        Raises:
            PanguError: the disk is full, read-only or closed to this user.
        """
        if self._rows is None:
            self._rows = JsonLines(self.path, self._resume_step)
        row = {"step": step, "epochs": [int(epoch) for epoch in epochs], "samples": [int(item) for item in samples]}
        self._rows.append({**row, "gradient_norm": gradient_norm, "limit": limit})

    def close(self) -> None:
        """Close the file; safe to call twice."""
        if self._rows is not None:
            self._rows.close()
