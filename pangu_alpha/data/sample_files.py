"""The packed samples of one side (training or held out): MindRecord files, and which of their samples count."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pangu_alpha.data.mixture import MixturePart, mixed_samples
from pangu_alpha.data.sample_order import visited_samples


@dataclass(frozen=True)
class SampleFiles:
    """Samples in MindRecord files with the one column `input_ids` (int32, S + 1 each)."""

    files: tuple[Path, ...]
    """The files, in order; each has its index beside it (.db)."""
    samples: int
    """How many samples count."""
    excluded: Path | None = None
    """A .npy file of int64 with the rising row numbers, over all files, of samples that do not count: those held out
    of a user's own MindRecord files, which are used as they lie."""

    mixture: tuple[MixturePart, ...] = ()
    """Sources whose samples lie one after the other, with their weights; empty: one epoch visits every sample once."""

    def visited(
        self, positions: npt.NDArray[np.int64], seed: int, shuffle: bool
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Epoch and number of the sample at each position of the endless sequence of visits, int64 [n] each."""
        if self.mixture:
            return mixed_samples(positions, self.mixture, seed, shuffle)
        return visited_samples(positions, self.samples, seed, shuffle)

    def rows(self, samples: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Row numbers over all files of samples given by their number among those that count."""
        if self.excluded is None:
            return samples
        # The k-th sample that counts lies behind as many excluded ones as have at most k counting ones before them.
        excluded = np.load(self.excluded)
        return samples + np.searchsorted(excluded - np.arange(len(excluded)), samples, side="right")
