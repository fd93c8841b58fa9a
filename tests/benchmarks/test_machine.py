"""What a benchmark tells of the machine, and of who else worked on it."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest
from machine import OtherWork, describe_machine

BUSY = "import time; end = time.monotonic() + 0.5\nwhile time.monotonic() < end: pass"


def test_the_machine_is_named():
    machine = describe_machine()
    assert machine.processor
    assert 1 <= machine.cores <= (os.cpu_count() or 1)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_work_of_other_processes_counts_and_own_work_does_not():
    own, whole_machine_cores = OtherWork(os.getpid()), os.cpu_count() or 1
    end = time.monotonic() + 0.5
    while time.monotonic() < end:
        pass
    alone = own.share()
    seen_by_another = OtherWork(1)
    subprocess.run([sys.executable, "-c", BUSY], check=True)
    share = seen_by_another.share()
    assert share is not None
    assert share > 0.3 / whole_machine_cores  # this machine may be busy, so there is no upper limit to test
    assert alone is not None
    assert 0.0 <= alone <= 1.1


def test_of_a_process_that_is_gone_nothing_can_be_told():
    assert OtherWork(2**22 + 1).share() is None
