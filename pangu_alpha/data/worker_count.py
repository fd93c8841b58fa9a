"""How many processes work on data."""

from __future__ import annotations

import os


def worker_count(workers: int) -> int:
    """Processes for `data.workers`: as given, or one for each core that this process may use."""
    if workers:
        return workers
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
