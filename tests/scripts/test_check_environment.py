"""The questions that the scripts ask a Python environment, answered for environments made here."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow  # each test makes a virtual environment


@pytest.fixture
def environment(tmp_path):
    """A new virtual environment, and a function that puts a package of a name and version into it."""
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    site = next((tmp_path / "venv" / "lib").glob("python3*")) / "site-packages"

    def add(name, version):
        folder = site / f"{name}-{version}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")

    return tmp_path / "venv" / "bin" / "python", add


def ask(python, repository, *words):
    command = [str(python), str(repository / "scripts" / "check_environment.py"), *words]
    return subprocess.run(command, capture_output=True, text=True)


def test_a_new_environment_lacks_everything(environment, repository):
    python, _ = environment
    assert ask(python, repository, "ready", "quickstart").returncode == 1
    assert ask(python, repository, "mindspore").returncode == 1
    assert ask(python, repository, "isolated").returncode == 0
    lacks = ask(python, repository, "missing", "quickstart").stdout
    assert "mindspore" in lacks
    assert "snownlp" in lacks
    assert "pytest" not in lacks


def test_an_environment_with_its_own_mindspore_keeps_it(environment, repository):
    python, add = environment
    add("mindspore", "2.7.0")
    add("numpy", "2.1.0")
    found = ask(python, repository, "mindspore")
    assert (found.returncode, found.stdout) == (0, "2.7.0\n")
    lacks = ask(python, repository, "missing", "quickstart").stdout
    assert "mindspore" not in lacks
    assert "numpy" not in lacks
    pins = ask(python, repository, "pins").stdout.splitlines()
    assert "mindspore==2.7.0" in pins
    assert "numpy==2.1.0" in pins
    assert not any(line.startswith(("mindspore==2.10", "numpy==1.")) for line in pins)
    assert any(line.startswith("sentencepiece==") for line in pins)
    assert ask(python, repository, "ready").returncode == 1
