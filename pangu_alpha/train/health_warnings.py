"""What is wrong with a layer, in plain words."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping

from pangu_alpha.train.health import HealthSample, LayerHealth

WEAK_GRADIENT = 1e-3
"""A layer barely learns whose gradient is below this share of the median layer's."""
UPDATE_RATIO = (1e-5, 1e-1)
"""Between these, a step at the highest learning rate moves a layer neither too little nor too much."""
ENTROPY = (0.02, 0.995)
"""Between these, attention neither stares at one position nor ignores what it sees."""
ACTIVATION_LIMIT = 30_000.0
"""Half of what float16 holds (65,504)."""


def findings(sample: HealthSample, layers: Mapping[str, LayerHealth]) -> dict[tuple[str, str], str]:
    """Everything in a sample that is out of bounds: (kind, layer or parameter) -> a sentence without the step."""
    found: dict[tuple[str, str], str] = {}
    norms = {layer: health.gradient_norm for layer, health in layers.items() if health.gradient_norm >= 0}
    median = statistics.median(norms.values()) if norms else 0.0
    for layer, value in norms.items():
        if value < WEAK_GRADIENT * median:
            found["gradient", layer] = (
                f"{layer} gets {value / median:.1e} of the median layer's gradient: it barely learns"
            )
    for name, value in sample.gradient_norm.items():
        # The bias of the keys adds the same to all scores of a row, and softmax does not notice: its gradient is zero.
        if value == 0 and not name.endswith("key.bias"):
            found["zero", name] = f"{name} gets no gradient at all: nothing depends on it"
    for layer, health in layers.items():
        # Gammas start at 1 and move by about the learning rate: a norm alone is always slow.
        if layer != "final_norm" and health.update_ratio < UPDATE_RATIO[0] * sample.learning_rate_share:
            found["slow", layer] = (
                f"a step changes {layer} by {health.update_ratio:.1e} of its size: it hardly moves"
                " (learning rate too small?)"
            )
        if health.update_ratio > UPDATE_RATIO[1]:
            found["fast", layer] = (
                f"a step changes {layer} by {health.update_ratio:.2f} of its size: it forgets what it learnt"
                " (learning rate too large?)"
            )
        if health.activation_max > ACTIVATION_LIMIT:
            found["activation", layer] = (
                f"the output of {layer} reaches {health.activation_max:,.0f}; float16 ends at 65,504"
            )
        if health.activation_rms == 0:
            found["silent", layer] = f"the output of {layer} is zero everywhere: the signal is lost"
    for layer, heads in sample.attention_entropy.items():
        collapsed = [str(head) for head, value in enumerate(heads) if value < ENTROPY[0]]
        uniform = [str(head) for head, value in enumerate(heads) if value > ENTROPY[1]]
        if collapsed:
            found["collapsed", layer] = (
                f"attention of {layer} stares at one position (heads {', '.join(collapsed)}): it collapsed"
            )
        if len(uniform) == len(heads) > 0:
            found["uniform", layer] = f"no head of {layer} prefers any position: its attention does not choose"
    return found


PATIENCE = 3
"""Samples in a row after which a finding becomes a warning: one odd batch and the first steps of a warmup are none."""
PATIENCE_UNIFORM = 10
"""The same for attention that does not choose: every fresh model's does not."""


class HealthWarnings:
    """Lets a finding through once it has stood long enough, and not again while it stands."""

    def __init__(self) -> None:
        self._standing: Counter[tuple[str, str]] = Counter()

    def update(self, sample: HealthSample, layers: Mapping[str, LayerHealth]) -> list[str]:
        """The warnings that `sample` (gathered into `layers`) makes due, each with its step."""
        found = findings(sample, layers)
        self._standing = Counter({key: self._standing[key] + 1 for key in found})
        return [
            f"step {sample.step}: {sentence}"
            for (kind, place), sentence in found.items()
            if self._standing[kind, place] == (PATIENCE_UNIFORM if kind == "uniform" else PATIENCE)
        ]
