"""`pangu-alpha train …` that is killed the hard way as soon as a step is logged: `killed_training.py STEP train …`."""

from __future__ import annotations

import os
import signal
import sys
import time

from pangu_alpha.cli.main import main
from pangu_alpha.train.metrics import StepMetrics
from pangu_alpha.train.monitor import Monitor

last_step = int(sys.argv[1])
on_step = Monitor.on_step


def kill_after(monitor: Monitor, metrics: StepMetrics) -> None:
    on_step(monitor, metrics)
    if metrics.step == last_step:
        # The save of an earlier step runs in the background; what is tested is what comes after it.
        while not list(monitor.directory.glob("checkpoints/step_00000005/manifest.json")):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    Monitor.on_step = kill_after
    sys.exit(main(sys.argv[2:]))
