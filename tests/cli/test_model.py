from __future__ import annotations

import subprocess
import sys

import pytest

from pangu_alpha.cli.main import main


@pytest.mark.parametrize(
    ("name", "total"),
    [("350m", "345.4M"), ("1.3b", "244.6M"), ("2.6b", "2.6253B"), ("13b", "12.801B"), ("200b", "206.86B")],
)
def test_the_total_is_printed(capsys, repository, name, total):
    assert main(["model", "--config", str(repository / "configs" / "models" / f"{name}.yaml")]) == 0
    assert f"parameters ({total})" in capsys.readouterr().out


def test_the_largest_model_is_shown_without_its_memory(repository):
    """2.3 TB would be needed to hold it; a tenth of a gigabyte must do to print its table."""
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (2**28, 2**28));"
        "from pangu_alpha.cli.main import main; sys.exit(main(['model', '--config', 'configs/models/200b.yaml']))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=repository, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "770.62 GiB  fp32 weights" in done.stdout
    assert "40000 × 16384" in done.stdout
