"""From YAML files and `key=value` words to a `Config`, with one line for whatever is wrong, and back to YAML.

A file sets only what differs from the defaults of `config.py`.  It may begin with `extends: other.yaml`, or a list
of files, relative to its own place: theirs first, a later one over an earlier one, then its own keys.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

import yaml

from pangu_alpha.config import Config
from pangu_alpha.config_checks import InvalidValue
from pangu_alpha.config_values import WrongTypeError, shown, value_of_node, value_of_text
from pangu_alpha.errors import UsageError

DEFAULT = "default"
COMMAND_LINE = "command line"
DEEPEST_EXTENDS = 3
"""Files that may stand behind each other by `extends`; more than two are hard to follow already."""

DEEPEST_NESTING = 20
LARGEST_FILE = 2**20


@dataclass(frozen=True)
class LoadedConfig:
    """A configuration, and for each dotted key where its value came from: default, FILE:LINE or command line."""

    config: Config
    sources: Mapping[str, str]


@dataclass(frozen=True)
class _Given:
    value: Any
    source: str


def load_config(path: str | Path | None, overrides: Sequence[str] = ()) -> LoadedConfig:
    """The configuration of the YAML file `path` (None: the defaults), changed by `key.sub=value` words.

    Raises UsageError: one line that names file and line, key, value, what is allowed and the nearest known key.
    """
    given = {} if path is None else _read_file(Path(path), ())
    for word in overrides:
        key, separator, text = word.partition("=")
        if not separator:
            raise UsageError(f"{COMMAND_LINE}: {shown(word)} is no key=value, such as train.steps=100")
        kind = _kind(key, COMMAND_LINE)
        if kind is None:
            raise UsageError(f"{COMMAND_LINE}: {key} is a section; give one of its keys: {_keys_of(key)}")
        try:
            given[key] = _Given(value_of_text(text, kind), COMMAND_LINE)
        except WrongTypeError as error:
            raise UsageError(f"{COMMAND_LINE}: {key} is {error}") from None
    config = _build(Config, "", given, COMMAND_LINE if path is None else str(path))
    return LoadedConfig(config, {key: given[key].source if key in given else DEFAULT for key in _LEAVES})


def format_config(config: Config, sources: Mapping[str, str] | None = None) -> str:
    """`config` as the text of a YAML file that `load_config` reads back to an equal one.

    With `sources`, each line ends with a comment that tells where its value came from.
    """
    lines: list[tuple[str, str]] = []
    _format_section(config, "", lines, sources or {})
    width = max((len(text) for text, source in lines if source and len(text) <= 60), default=0)
    return "".join(f"{text:{width}}  # {source}\n" if source else f"{text}\n" for text, source in lines)


def _flatten(section: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted key -> type of each setting; None for a section, which stands before its settings."""
    result: dict[str, Any] = {}
    hints = get_type_hints(section)
    for item in fields(section):
        key, kind = prefix + item.name, hints[item.name]
        if is_dataclass(kind):
            result[key] = None
            result.update(_flatten(kind, f"{key}."))
        else:
            result[key] = kind
    return result


_KINDS = _flatten(Config)
_LEAVES = [key for key, kind in _KINDS.items() if kind is not None]


def _read_file(path: Path, chain: tuple[Path, ...]) -> dict[str, _Given]:
    """What `path` and the files that it extends set; `chain` has the files that led here."""
    root = _compose(path)
    given: dict[str, _Given] = {}
    chain = (*chain, path)
    for key_node, value_node in root.value:
        if key_node.value == "extends":
            for parent in _parents(path, value_node, chain):
                given.update(_read_file(parent, chain))
    own: dict[str, _Given] = {}
    _collect(root, "", path, own)
    given.update(own)
    return given


def _compose(path: Path) -> yaml.MappingNode:
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise UsageError(
                f"{path}: {path.stat().st_size} bytes are no configuration; at most {LARGEST_FILE} are read"
            )
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file{_neighbours(path)}") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise UsageError(f"{path}: not UTF-8 text ({error}); convert it to UTF-8") from None
    try:
        _check_depth(path, text)
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        raise UsageError(f"{where}: broken YAML: {error.problem or error.context}") from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        raise UsageError(f"{path}: broken YAML: {error}") from None
    if root is None:
        raise UsageError(f"{path}: nothing is set in it; write at least one key, such as name: {path.stem or 'run'}")
    if not isinstance(root, yaml.MappingNode):
        raise UsageError(f"{path}: it must hold keys and values; allowed at the top: extends, {_keys_of('')}")
    return root


def _check_depth(path: Path, text: str) -> None:
    """Refuse what the composer, which calls itself for each level, would follow to the end of the stack."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST_NESTING:
            line = event.start_mark.line + 1 if event.start_mark else 1
            raise UsageError(f"{path}:{line}: broken YAML: nested too deeply")


def _neighbours(path: Path) -> str:
    """The YAML files of that name's folder that come nearest, for the message."""
    try:
        names = [item.name for item in path.parent.iterdir() if item.suffix in (".yaml", ".yml")]
    except OSError:
        return f"; nor is there a folder {path.parent}"
    near = difflib.get_close_matches(path.name, names, 3, 0.5)
    return f"; nearest: {', '.join(str(path.parent / name) for name in near)}" if near else ""


def _parents(path: Path, node: yaml.Node, chain: tuple[Path, ...]) -> list[Path]:
    """The files that `path` extends, checked against cycles and depth."""
    where = f"{path}:{node.start_mark.line + 1}"
    try:
        names = value_of_node(node, tuple[str, ...] if isinstance(node, yaml.SequenceNode) else str)
    except WrongTypeError as error:
        raise UsageError(f"{where}: extends is {error.found}; allowed: a file, or a list of files") from None
    parents = []
    for name in (names,) if isinstance(names, str) else names:
        parent = Path(os.path.normpath(path.parent / name))
        story = " extends ".join(str(item) for item in (*chain, parent))
        if parent.resolve() in [item.resolve() for item in chain]:
            raise UsageError(f"{where}: extends goes round in a circle: {story}")
        if len(chain) > DEEPEST_EXTENDS:
            raise UsageError(f"{where}: extends is more than {DEEPEST_EXTENDS} files deep: {story}")
        if not parent.is_file():
            raise UsageError(f"{where}: extends is {shown(name)}; no such file {parent}{_neighbours(parent)}")
        parents.append(parent)
    return parents


def _collect(section: yaml.MappingNode, prefix: str, path: Path, given: dict[str, _Given]) -> None:
    """Put what one mapping of `path` sets into `given`."""
    for key_node, value_node in section.value:
        where = f"{path}:{key_node.start_mark.line + 1}"
        if not isinstance(key_node, yaml.ScalarNode):
            raise UsageError(f"{where}: a key must be a single word; allowed: {_keys_of(prefix.rstrip('.'))}")
        key = prefix + key_node.value
        if key == "extends":
            continue
        kind = _kind(key, where)
        if kind is None:
            if not isinstance(value_node, yaml.MappingNode):
                raise UsageError(f"{where}: {key} is a section; give its keys below it, indented: {_keys_of(key)}")
            _collect(value_node, f"{key}.", path, given)
            continue
        if key in given:
            raise UsageError(f"{where}: {key} is set twice; the first time at {given[key].source}")
        try:
            given[key] = _Given(value_of_node(value_node, kind), where)
        except WrongTypeError as error:
            raise UsageError(f"{where}: {key} is {error}") from None


def _kind(key: str, where: str) -> Any:
    """The type of the setting `key`, None if it is a section; UsageError if there is no such key."""
    if key in _KINDS:
        return _KINDS[key]
    parent, _, name = key.rpartition(".")
    near = [known for known in _LEAVES if name and name in (_own_name(known), _initials(known))]
    beside = {_own_name(known): known for known in _KINDS if known.rpartition(".")[0] == parent}
    near = near or [beside[close] for close in difflib.get_close_matches(name, beside, 1, 0.6)]
    near = near or difflib.get_close_matches(key, _LEAVES, 1, 0.75)
    near = near or [known for known in _LEAVES if difflib.get_close_matches(name, [_own_name(known)], 1, 0.7)]
    while parent and _KINDS.get(parent, parent) is not None:
        parent = parent.rpartition(".")[0]
    nearest = f"; nearest: {', '.join(near[:3])}" if near else ""
    place = f"in {parent}" if parent else "at the top"
    raise UsageError(f"{where}: there is no key {key[:60]}{nearest}; allowed {place}: {_keys_of(parent)}")


def _own_name(key: str) -> str:
    return key.rpartition(".")[2]


def _initials(key: str) -> str:
    """What people call learning_rate or batch_size for short; nothing for a key of one word."""
    words = _own_name(key).split("_")
    return "".join(word[0] for word in words) if len(words) > 1 else ""


def _keys_of(section: str) -> str:
    """The keys of one section, '' for the top, ready to print; a setting's own name if it is no section."""
    prefix = f"{section}." if section else ""
    names = [key[len(prefix) :] for key in _KINDS if key.startswith(prefix)]
    return ", ".join(name for name in names if "." not in name) or section


def _build(section: type, prefix: str, given: Mapping[str, _Given], fallback: str) -> Any:
    """The dataclass `section` from what is given; an impossible value is blamed on whoever gave it."""
    arguments: dict[str, Any] = {}
    for item in fields(section):
        key = prefix + item.name
        if _KINDS[key] is None:
            arguments[item.name] = _build(get_type_hints(section)[item.name], f"{key}.", given, fallback)
        elif key in given:
            arguments[item.name] = given[key].value
    try:
        return section(**arguments)
    except InvalidValue as error:
        key = prefix + error.key
        source, note = (given[key].source, "") if key in given else (fallback, " (the default)")
        typed = "" if source == COMMAND_LINE and not note else _typed_beside(key, prefix, error.allowed, given)
        raise UsageError(f"{typed}{source}: {key} is {error.value!r}{note}; {error.allowed}") from None


def _typed_beside(key: str, prefix: str, allowed: str, given: Mapping[str, _Given]) -> str:
    """The word of the command line that `key` does not fit, if what is `allowed` names its key."""
    named = {other for word in re.findall(r"[\w.]+", allowed) for other in (word, prefix + word)} - {key}
    words = [
        f"{other} is {item.value!r}" for other, item in given.items() if other in named and item.source == COMMAND_LINE
    ]
    return f"{COMMAND_LINE}: {', '.join(words)}, and " if words else ""


def _format_section(section: Any, prefix: str, lines: list[tuple[str, str]], sources: Mapping[str, str]) -> None:
    indent = "  " * prefix.count(".")
    for item in fields(section):
        key, value = prefix + item.name, getattr(section, item.name)
        if is_dataclass(value):
            lines.append((f"{indent}{item.name}:", ""))
            _format_section(value, f"{key}.", lines, sources)
        elif isinstance(value, tuple) and value:
            lines.append((f"{indent}{item.name}:", sources.get(key, "")))
            lines.extend((f"{indent}  - {_format_scalar(entry)}", "") for entry in value)
        else:
            text = "[]" if isinstance(value, tuple) else _format_scalar(value)
            lines.append((f"{indent}{item.name}: {text}", sources.get(key, "")))


def _format_scalar(value: Any) -> str:
    style = '"' if isinstance(value, str) and not value.isprintable() else None
    text: str = yaml.safe_dump(value, allow_unicode=True, width=float("inf"), default_style=style)
    return text.removesuffix("\n").removesuffix("\n...")
