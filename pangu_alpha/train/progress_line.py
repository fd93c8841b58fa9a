"""What a person sees while a model trains: a bar on a terminal, a log line every few steps elsewhere."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from typing import Any

from pangu_alpha.progress import format_duration
from pangu_alpha.train.metrics import RunScale, StepMetrics, peak_memory

logger = logging.getLogger(__name__)


class TrainingProgress:
    """Step, loss, tokens/s, model-FLOPs utilisation, memory and time left of a run.

    Where standard error is a terminal, one bar that is drawn anew, and log messages of other parts appear above it;
    elsewhere a log line after every `log_every` steps, with mean loss and speed of those steps.

    Args:
        steps: steps of the whole run.
        scale: turns times into rates.
        done: steps that were done before this process started.
        log_every: steps between log lines where there is no terminal.
        skipped: steps among them that were not applied.
    """

    def __init__(self, steps: int, scale: RunScale, done: int = 0, log_every: int = 10, skipped: int = 0) -> None:
        self.steps, self.scale, self.log_every = steps, scale, log_every
        self._recent: list[StepMetrics] = []
        self._skipped = skipped
        # The first step of a process also compiles; the time left is judged by the wall time after it.
        self._first: tuple[int, float] | None = None
        self._bar: Any = None
        self._above_bar = contextlib.ExitStack()
        if sys.stderr.isatty():
            from tqdm import tqdm
            from tqdm.contrib.logging import logging_redirect_tqdm

            self._above_bar.enter_context(
                logging_redirect_tqdm([logging.getLogger(), logging.getLogger("pangu_alpha")])
            )
            self._bar = tqdm(
                total=steps,
                initial=done,
                file=sys.stderr,
                dynamic_ncols=True,
                leave=True,
                # {desc}, as tqdm puts ", " before its {postfix}.
                bar_format="step {n_fmt}/{total_fmt} {percentage:3.0f}% |{bar}| {desc}",
            )

    def step(self, metrics: StepMetrics) -> None:
        """Show one finished step."""
        if self._first is None:
            self._first = (metrics.step, time.monotonic())
        self._skipped += not metrics.applied
        self._recent.append(metrics)
        if self._bar is not None:
            self._recent = self._recent[-20:]
            self._bar.set_description_str(self.text(metrics, mean_loss=False), refresh=False)
            self._bar.update(metrics.step - self._bar.n)
        elif metrics.step % self.log_every == 0 or metrics.step == self.steps:
            logger.info("step %d/%d  %s", metrics.step, self.steps, self.text(metrics, mean_loss=True))
            self._recent = []

    def validation(self, step: int, perplexity: float) -> None:
        """Show a held-out perplexity."""
        logger.info("step %d/%d  held-out perplexity %.2f", step, self.steps, perplexity)

    def text(self, metrics: StepMetrics, mean_loss: bool) -> str:
        """The state after a step; speed over the recent steps, loss of this step or their mean."""
        recent = self._recent or [metrics]
        tokens, seconds = sum(item.tokens for item in recent), sum(item.seconds for item in recent)
        loss = sum(item.loss for item in recent) / len(recent) if mean_loss else metrics.loss
        parts = [f"loss {loss:.3f}"]
        if mean_loss:
            parts += [f"lr {metrics.learning_rate:.2e}", f"norm {metrics.gradient_norm:.2f}"]
            if metrics.loss_scale != 1:
                parts.append(f"scale {metrics.loss_scale:g}")
        parts.append(f"{self.scale.tokens_per_second(tokens, seconds):,.0f} tokens/s")
        share = self.scale.utilisation(tokens, seconds)
        if share is not None:
            parts.append(f"MFU {share:.0%}")
        parts.append(f"{peak_memory(self.scale.device) / 2**30:.1f} GiB")
        if self._skipped:
            parts.append(f"{self._skipped} skipped")
        left = self._seconds_left(metrics.step)
        if left is not None:
            parts.append(f"{format_duration(left)} left")
        return "  ".join(parts)

    def _seconds_left(self, step: int) -> float | None:
        """Judged by all that happened since the first step: validations and checkpoints take their share."""
        if self._first is None or step <= self._first[0]:
            return None
        first_step, since = self._first
        return (time.monotonic() - since) / (step - first_step) * (self.steps - step)

    def close(self) -> None:
        """Leave the bar as it stands; safe to call twice."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        self._above_bar.close()
