"""Ranks that do not agree with each other on what all of them should know."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pangu_alpha.rehearsal.emulator.comparison import StepComparison
    from pangu_alpha.rehearsal.emulator.interpreter import Rank


def disagreements(comparison: StepComparison, ranks: Sequence[Rank]) -> list[str]:
    """One line for each metric on which ranks disagree: two of them, and what they last did together.

    What they should have summed since then, they did not.

    Args:
        comparison: of the step that the ranks did last.
        ranks: in order.
    """
    lines = []
    for name in comparison.reference:
        values = [float(metrics[name]) for metrics in comparison.ranks]
        other = next((rank for rank, value in enumerate(values) if not np.isclose(value, values[0], 1e-6, 0)), None)
        if other is not None:
            common = [call for call in ranks[0].calls if call.is_collective and other in call.ranks]
            joined = (
                f"the last collective that they both took part in: {common[-1]}"
                if common
                else "no collective joins them"
            )
            lines.append(f"ranks 0 and {other} disagree on {name} ({values[0]:g}, {values[other]:g}); {joined}")
    return lines
