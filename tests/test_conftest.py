"""The skip rule of conftest.py, seen by a pytest of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

TESTS = """
import pytest
def test_passes(): pass
def test_needs_a_gpu(): pytest.skip("no GPU in this machine")
def test_lacks_data(): pytest.skip("the file is not there")
@pytest.mark.skip(reason="later")
def test_marked(): pass
@pytest.mark.xfail(reason="known")
def test_known_failure(): raise ValueError
"""


@pytest.mark.parametrize(
    ("setting", "expected"),
    [("true", "1 failed, 1 passed, 1 skipped, 1 xfailed, 1 error"), ("", "1 passed, 3 skipped, 1 xfailed")],
)
def test_in_ci_only_an_accelerator_excuses_a_skip(tmp_path, repository, setting, expected):
    shutil.copy(repository / "tests" / "conftest.py", tmp_path)
    (tmp_path / "test_sample.py").write_text(TESTS)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, env={**os.environ, "CI": setting}, capture_output=True, text=True)
    assert expected in done.stdout


def test_in_ci_a_skipped_file_fails(tmp_path, repository):
    shutil.copy(repository / "tests" / "conftest.py", tmp_path)
    (tmp_path / "test_sample.py").write_text("import pytest\npytest.importorskip('no_such_module')\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, env={**os.environ, "CI": "true"}, capture_output=True, text=True)
    assert done.returncode != 0
    assert "which CI does not allow" in done.stdout
