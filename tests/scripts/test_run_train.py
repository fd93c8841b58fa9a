"""run_train.sh before anything is installed: its help, and the Pythons that it takes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess

import pytest

TOOLS = ("bash", "basename", "cat", "dirname", "env", "grep", "mktemp", "rm", "sed")


@pytest.fixture
def checkout(tmp_path, repository):
    """A copy of the scripts, without .venv, and a folder `tools` that can stand alone in PATH."""
    for name in ("run_train.sh", "pyproject.toml", "constraints.txt", "scripts"):
        source = repository / name
        (shutil.copytree if source.is_dir() else shutil.copy2)(source, tmp_path / name)
    tools = tmp_path / "tools"
    tools.mkdir()
    for tool in TOOLS:
        (tools / tool).symlink_to(shutil.which(tool))
    return tmp_path


def python_that_says(checkout, name, version):
    path = checkout / "tools" / name
    path.write_text(f"#!/bin/sh\necho {version}\n")
    path.chmod(0o755)
    return path


def run(checkout, *words, **environment):
    command = ["bash", str(checkout / "run_train.sh"), *words]
    variables = {"PATH": str(checkout / "tools"), "HOME": os.environ.get("HOME", "/"), **environment}
    return subprocess.run(command, env=variables, capture_output=True, text=True, cwd=checkout)


def test_help_installs_nothing(checkout):
    done = run(checkout, "--help")
    assert done.returncode == 0
    assert done.stdout.startswith("usage: ./run_train.sh [--config FILE]")
    assert not (checkout / ".venv").exists()


@pytest.mark.parametrize("version", ["3.9", "3.13", "2.7"])
def test_a_python_without_wheels_is_one_line_that_names_those_with(checkout, version):
    python_that_says(checkout, "python3", version)
    done = run(checkout)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert f"python3 is Python {version}; MindSpore has wheels for Python 3.10, 3.11, 3.12" in done.stderr
    assert not (checkout / ".venv").exists()


def test_no_python_is_one_line(checkout):
    done = run(checkout)
    assert done.returncode == 1
    assert done.stderr.startswith("run_train.sh: no python3 found; MindSpore has wheels for Python 3.10, 3.11, 3.12")
    assert done.stderr.count("\n") == 1


def test_a_named_python_without_wheels_is_refused(checkout):
    wrong = python_that_says(checkout, "my-python", "3.13")
    done = run(checkout, PYTHON=str(wrong))
    assert done.returncode == 1
    assert done.stderr == (
        f"run_train.sh: PYTHON={wrong} is Python 3.13; MindSpore has wheels for Python 3.10, 3.11, 3.12\n"
    )


def test_the_scripts_and_the_package_name_the_same_pythons(repository):
    script = (repository / "scripts" / "environment.sh").read_text()
    listed = re.search(r'^wheels="(.*)"', script, re.MULTILINE)[1]
    minors = [int(version.removeprefix("3.")) for version in listed.split(", ")]
    project = (repository / "pyproject.toml").read_text()
    assert f'requires-python = ">=3.{min(minors)},<3.{max(minors) + 1}"' in project
