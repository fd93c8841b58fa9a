"""Is this Python ready for this checkout, and what does it lack?  Used by environment.sh; needs no installed package.

python scripts/check_environment.py ready quickstart,dev     exit 0: the checkout and all it needs are here
python scripts/check_environment.py current quickstart,dev   exit 0: and in versions that pyproject.toml allows
python scripts/check_environment.py mindspore                exit 0: MindSpore is here; prints its version
python scripts/check_environment.py isolated                 exit 0: a virtual or conda environment of its own
python scripts/check_environment.py missing quickstart       print what is not installed, one a line
python scripts/check_environment.py pins                     print constraints that keep all that is installed
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution, distributions
from pathlib import Path
from typing import Any

try:
    from packaging.requirements import Requirement
    from packaging.version import InvalidVersion, Version
except ImportError:  # a new virtual environment has pip and nothing else
    from pip._vendor.packaging.requirements import Requirement  # type: ignore[assignment]
    from pip._vendor.packaging.version import InvalidVersion, Version  # type: ignore[assignment]

if sys.version_info >= (3, 11):
    import tomllib
else:
    from pip._vendor import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent


def requirements(extras: list[str]) -> Iterator[Requirement]:
    """What pyproject.toml asks for on this Python, with the extras named."""
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = list(project["dependencies"])
    for extra in extras:
        lines += project["optional-dependencies"][extra]
    for line in lines:
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate():
            yield requirement


def installed(name: str) -> Distribution | None:
    """The installed distribution of that name, if there is one."""
    try:
        return distribution(name)
    except PackageNotFoundError:
        return None


def missing(extras: list[str]) -> list[str]:
    """Requirements that are not installed at all; what is there in another version is not missing."""
    return [str(requirement) for requirement in requirements(extras) if installed(requirement.name) is None]


def in_range(extras: list[str]) -> bool:
    """True if every requirement is installed in a version that pyproject.toml allows."""
    return all(
        (found := installed(requirement.name)) and requirement.specifier.contains(found.version, prereleases=True)
        for requirement in requirements(extras)
    )


def holds_checkout() -> bool:
    """True if this very checkout is installed here, in the editable form that follows its files."""
    found = installed("pangu-alpha")
    record = json.loads((found and found.read_text("direct_url.json")) or "{}")
    return bool(record.get("url") == ROOT.as_uri() and record.get("dir_info", {}).get("editable"))


def pins() -> list[str]:
    """Constraints that keep every installed package as it is, and the tried versions of all others."""
    versions: dict[str, str] = {}
    for found in distributions():
        try:
            versions.setdefault(_normal(found.metadata["Name"]), str(Version(found.version)))
        except (InvalidVersion, TypeError):
            continue  # half-removed packages have no name or version
    tried = []
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#") and _normal(Requirement(line).name) not in versions:
            tried.append(line)
    return sorted(f"{name}=={version}" for name, version in versions.items()) + tried


def isolated() -> bool:
    """True in a virtual environment or a conda environment."""
    return sys.prefix != sys.base_prefix or sys.prefix == os.environ.get("CONDA_PREFIX")


def main(words: list[str]) -> int:
    """Answer one question; the exit code is the answer to those that have no text."""
    question, extras = words[0], [extra for extra in ",".join(words[1:]).split(",") if extra]
    if question == "ready":
        return 0 if holds_checkout() and not missing(extras) else 1
    if question == "current":
        return 0 if holds_checkout() and in_range(extras) else 1
    if question == "mindspore":
        found = installed("mindspore")
        print(found.version if found else "")
        return 0 if found else 1
    if question == "isolated":
        return 0 if isolated() else 1
    print("\n".join(pins() if question == "pins" else missing(extras)))
    return 0


def _normal(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
