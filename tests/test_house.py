"""The rules of the house that no linter knows: import arrows, late imports, sizes, twins, and the map."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "pangu_alpha"
MODULES = sorted(path.relative_to(ROOT) for path in PACKAGE.rglob("*.py"))
LONGEST_FILE = 400
FOR_OTHERS = "hugging_face_code"
"""Code that runs in others' programs, whose modules find each other by relative imports alone."""

LAYERS = [
    {"model", "parallel"},
    {"train", "inference", "checkpoint", "data"},
    {"server", "evaluation", "rehearsal", "planner", "launch"},
    {"cli"},
]
"""Packages from below to above; a module may import its own layer and those below."""
FORBIDDEN = {("model", "parallel")}
"""Arrows within a layer that are not wanted either."""
MINDSPORE_IN_DATA = {"dataset.py", "packing.py"}


def imports(path: Path):
    """(line, dotted name) of everything that a module imports, also inside its functions."""
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield node.lineno, name.name
        elif isinstance(node, ast.ImportFrom):
            if FOR_OTHERS in path.parts:
                continue
            assert node.level == 0, f"{path}:{node.lineno}: write the full name, not a relative import"
            for name in node.names:
                yield node.lineno, f"{node.module}.{name.name}"


def part(path: Path) -> str:
    """The package inside pangu_alpha that a module belongs to, '' for pangu_alpha's own modules."""
    return path.parts[1] if len(path.parts) > 2 else ""


def layer(name: str) -> int:
    return next((number for number, names in enumerate(LAYERS) if name in names), -1)


def test_every_package_has_a_layer():
    assert {part(path) for path in MODULES} - {""} <= set().union(*LAYERS)


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_imports_point_one_way(path):
    if path == Path("pangu_alpha/__init__.py"):
        return  # the face of the package imports late what it shows; see below
    own = part(path)
    for line, name in imports(path):
        words = name.split(".")
        if words[0] != "pangu_alpha" or len(words) < 2:
            continue
        other = words[1] if (PACKAGE / words[1]).is_dir() else ""
        assert layer(other) <= layer(own), f"{path}:{line}: {own or 'a module below all'} must not import {other}"
        assert (own, other) not in FORBIDDEN, f"{path}:{line}: {own} must not import {other}"


@pytest.mark.parametrize("path", [path for path in MODULES if part(path) in ("data", "planner", "")], ids=str)
def test_mindspore_stays_where_it_belongs(path):
    if part(path) == "data" and path.name in MINDSPORE_IN_DATA:
        return
    for line, name in imports(path):
        assert name.split(".")[0] != "mindspore", f"{path}:{line}: MindSpore does not belong here"


def late_imports(tree: ast.AST, inside: bool = False, unbroken: bool = False):
    """(line, dotted name, whether within `unbroken_import()`) of a module's imports inside functions."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import) and inside:
            yield from ((node.lineno, name.name, unbroken) for name in node.names)
        elif isinstance(node, ast.ImportFrom) and inside:
            for name in node.names:
                yield node.lineno, node.module, unbroken
                yield node.lineno, f"{node.module}.{name.name}", unbroken
        held = isinstance(node, ast.With) and any("unbroken_import" in ast.unparse(item) for item in node.items)
        yield from late_imports(node, inside or isinstance(node, ast.FunctionDef), unbroken or held)


def early_imports(path: Path):
    """Dotted names that a module imports when it is itself imported."""
    for node in ast.parse((ROOT / path).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            yield from (f"{node.module}.{name.name}" for name in node.names)


def test_a_ctrl_c_cannot_break_the_import_of_mindspore():
    named = {".".join(path.with_suffix("").parts): path for path in MODULES if FOR_OTHERS not in path.parts}
    early = {name: set(early_imports(path)) for name, path in named.items()}
    heavy, grown = set(), {"mindspore"}
    while grown:
        heavy |= grown
        grown = {
            name
            for name, imported in early.items()
            if name not in heavy and any(other in heavy or other.startswith("mindspore.") for other in imported)
        }
    assert {"pangu_alpha.train.trainer", "pangu_alpha.inference.language_model"} <= heavy
    seen = 0
    for name in early.keys() - heavy:
        if part(named[name]) not in ("cli", "data", "checkpoint", ""):
            continue  # imported by what has imported MindSpore, or in a process of its own
        for line, other, unbroken in late_imports(ast.parse((ROOT / named[name]).read_text(encoding="utf-8"))):
            if other in heavy or other.startswith("mindspore."):
                seen += 1
                assert unbroken, f"{named[name]}:{line}: import {other} inside `with unbroken_import():`"
    assert seen >= 8


def test_the_package_is_imported_without_mindspore():
    code = "import pangu_alpha, sys; sys.exit('mindspore' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_a_file_is_not_too_long(path):
    lines = len((ROOT / path).read_text(encoding="utf-8").splitlines())
    assert lines <= LONGEST_FILE, f"{path} has {lines} lines; one subject a file, rarely more than 300 lines"


def outline(path: Path) -> tuple[list[int], list[str]]:
    """Levels of a page's headings, and the command lines of its blocks."""
    levels, commands, fence = [], [], None
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("```"):
            fence = None if fence is not None else line[3:].strip()
        elif fence is None and (heading := re.match(r"#+ ", line)):
            levels.append(len(heading[0]) - 1)
        elif fence in ("sh", "bash", "shell"):
            commands.append(line.partition("  #")[0].rstrip())
    return levels, commands


def test_chinese_pages_have_the_headings_and_commands_of_their_english_twins():
    pages = [path.relative_to(ROOT) for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]]
    for path in (page for page in pages if page.name.endswith(".zh.md")):
        english = path.with_name(path.name.replace(".zh.md", ".md"))
        assert english in pages, f"{path} has no {english.name} beside it"
        assert outline(ROOT / path) == outline(ROOT / english), f"{path} and {english} differ"


def test_the_map_names_all_that_is_there_and_nothing_else():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    block = re.search(r"## Map of the house\n\n```\n(.*?)```", text, re.DOTALL)[1]
    named = {line.split()[0].rstrip("/") for line in block.splitlines()}
    for name in named:
        assert (ROOT / name).exists() or (PACKAGE / name).exists(), f"the map names {name}, which is not there"
    there = {path.name for path in PACKAGE.iterdir() if path.suffix == ".py"}
    there |= {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    there |= {
        line.split("/")[0]
        for line in subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.splitlines()
    }
    ordinary = {".gitignore", ".pre-commit-config.yaml", "LICENSE", "CHANGELOG.md", "CONTRIBUTING.md", "README.md"}
    missing = there - named - ordinary - {"README.zh.md", ".ci"}
    assert not missing, f"the map in CONTRIBUTING.md does not name {', '.join(sorted(missing))}"


def test_every_setting_acts():
    """A key of the configuration that nothing reads would be a promise without a deed."""
    from pangu_alpha.config_file import load_config

    read = set()
    for path in MODULES:
        tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
        if path.name == "config.py" and part(path) == "":
            # Only what its properties derive counts there, not the checks.
            tree = ast.Module([node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)], [])
            tree.body = [node for node in tree.body if node.decorator_list]
        read |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    unread = [key for key in load_config(None).sources if key.rpartition(".")[2] not in read]
    assert not unread, f"nothing reads {', '.join(unread)}"
