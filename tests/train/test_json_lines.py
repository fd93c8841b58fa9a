"""Append-only logs: torn lines, resumed runs, full disks."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time

import pytest

from pangu_alpha.errors import PanguError
from pangu_alpha.train.json_lines import JsonLines, read_json_lines


def write(path, steps, resume_step=0):
    log = JsonLines(path, resume_step)
    for step in steps:
        log.append({"step": step, "loss": step / 2})
    log.close()


def steps_of(path):
    return [row["step"] for row in read_json_lines(path)]


def test_rows_come_back(tmp_path):
    path = tmp_path / "new" / "log.jsonl"
    write(path, [1, 2, 3])
    assert read_json_lines(path) == [{"step": step, "loss": step / 2} for step in (1, 2, 3)]


def test_an_absent_file_has_no_rows(tmp_path):
    assert read_json_lines(tmp_path / "none.jsonl") == []


def test_what_is_not_finite_becomes_null(tmp_path):
    path = tmp_path / "log.jsonl"
    log = JsonLines(path, 0)
    log.append({"step": 1, "loss": math.nan, "norms": [1.0, math.inf], "by": {"x": -math.inf}})
    log.close()
    assert json.loads(path.read_text()) == {"step": 1, "loss": None, "norms": [1.0, None], "by": {"x": None}}


def test_resuming_removes_later_steps_only(tmp_path):
    path = tmp_path / "log.jsonl"
    write(path, range(1, 11))
    write(path, range(6, 9), resume_step=5)
    assert steps_of(path) == list(range(1, 9))


def test_a_new_run_in_an_old_directory_starts_empty(tmp_path):
    path = tmp_path / "log.jsonl"
    write(path, range(1, 4))
    write(path, [1], resume_step=0)
    assert steps_of(path) == [1]


def test_a_torn_last_line_is_removed(tmp_path):
    path = tmp_path / "log.jsonl"
    write(path, [1, 2])
    with path.open("ab") as file:
        file.write(b'{"step": 3, "lo')
    assert steps_of(path) == [1, 2]
    write(path, [3], resume_step=2)
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2, 3]


def test_a_killed_process_leaves_whole_lines(tmp_path):
    path = tmp_path / "log.jsonl"
    code = (
        "import itertools, sys\n"
        "from pangu_alpha.train.json_lines import JsonLines\n"
        "log = JsonLines(sys.argv[1], 0)\n"
        "for step in itertools.count(1):\n"
        "    log.append({'step': step, 'text': 'x' * 200})\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(path)])
    deadline = time.monotonic() + 60
    while (not path.exists() or path.stat().st_size < 20_000) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    steps = steps_of(path)
    assert steps == list(range(1, len(steps) + 1))
    assert len(steps) > 50


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full, a Linux device")  # noqa: PTH110
def test_a_full_disk_is_one_line(tmp_path):
    path = tmp_path / "log.jsonl"
    log = JsonLines(path, 0)
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, log._descriptor)
    os.close(full)
    with pytest.raises(PanguError, match=r"cannot write .*log\.jsonl: no space is left on the disk"):
        log.append({"step": 1})


def test_a_directory_in_the_way_is_one_line(tmp_path):
    (tmp_path / "log.jsonl").mkdir()
    with pytest.raises(PanguError, match=r"log\.jsonl.*directory"):
        JsonLines(tmp_path / "log.jsonl", 0)
