"""Recipes: what they say, and one line for whatever is wrong in them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pangu_alpha.data.recipe import load_recipe, with_corpus
from pangu_alpha.errors import UsageError
from pangu_alpha.files import shown_name

RECIPES = Path(__file__).parents[2] / "configs" / "data"


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.name)
def test_recipes_that_ship(path: Path) -> None:
    recipe = load_recipe(path)
    assert recipe.sources and recipe.rules
    names = {source.name for source in (*recipe.sources, *recipe.folders)}
    assert all(set(entry.sources) <= names for entry in recipe.rules)
    assert recipe.to_dict()["rules"][0]


def test_published_weights() -> None:
    large = {source.name: source.weight for source in load_recipe(RECIPES / "pangu_200b.yaml").sources}
    assert large == {"public": 10.23, "books": 12.23, "common_crawl": 62.81, "news": 7.83, "encyclopedia": 6.9}
    small = {source.name: source.weight for source in load_recipe(RECIPES / "pangu_2.6b_13b.yaml").sources}
    assert small == {"public": 27.99, "books": 18.0, "common_crawl": 10.0, "news": 22.0, "encyclopedia": 23.0}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("naem: a\n", ":1: there is no key naem; nearest: name; allowed: name, sources"),
        ("name: a\nrules:\n  - chinese_shar\n", ":3: there is no rule 'chinese_shar'; nearest: chinese_share"),
        ("rules:\n  - length: {least: -1}\n", ":2: length.least is -1; it must be 0 or more"),
        ("rules:\n  - length: {sources: 3}\n", ":2: length.sources is 3; allowed: a list of names"),
        ("duplicates: {threshold: 1.5}\n", ":1: duplicates.threshold is 1.5; it must lie in"),
        ("duplicates: {bands: 7}\n", ":1: duplicates.bands is 7; it must divide permutations 128"),
        ("duplicates:\n  treshold: 0.5\n", ":2: duplicates has no key treshold; nearest: threshold"),
        ("packing: {seq_length: many}\n", ":1: packing.seq_length is 'many'; allowed: a whole number"),
        ("sources:\n  - {name: a/b}\n", ":2: sources.name is 'a/b'; give each source a name"),
        ("sources:\n  - {name: a}\n  - {name: a}\n", "two sources are named a"),
        ("sources: {name: a}\n", ":1: sources must be a list"),
        ("tokenizer: {kind: file}\n", ":1: tokenizer.path is ''; name the vocabulary"),
        ("- a\n", "it must hold keys and values"),
        ("a: [\n", "broken YAML"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError) as caught:
        load_recipe(path)
    line = str(caught.value)
    assert line.startswith(str(path)) and complaint in line and "\n" not in line


def test_words_of_the_command_line() -> None:
    recipe = load_recipe(RECIPES / "demo.yaml", ["packing.seq_length=64", "name=mine", "duplicates.prefer=[source]"])
    assert (recipe.packing.seq_length, recipe.name, recipe.duplicates.prefer) == (64, "mine", ("source",))
    for word, complaint in [
        ("packing.seqlength=64", "there is no key packing.seqlength; nearest: packing.seq_length"),
        ("packing.tail=cut", "packing.tail is 'cut'; allowed: drop, pad"),
        ("duplicates.run=two", "duplicates.run is 'two'; allowed: a whole number"),
    ]:
        with pytest.raises(UsageError) as caught:
            load_recipe(RECIPES / "demo.yaml", [word])
        assert str(caught.value).startswith(f"command line: {complaint}")


def test_another_corpus(tmp_path: Path) -> None:
    for name in ("books", "mine"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.txt").write_text("字", encoding="utf-8")
    recipe = with_corpus(load_recipe(RECIPES / "demo.yaml"), tmp_path)
    assert [(source.name, source.documents) for source in recipe.sources] == [
        ("books", "chapter"),
        ("mine", "blank_line"),
    ]
    with pytest.raises(UsageError, match="there is no such folder"):
        with_corpus(recipe, tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="holds no file"):
        with_corpus(recipe, tmp_path / "empty")


def test_folders_whose_names_are_not_utf8(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode("小说".encode("gbk"))
    folder.mkdir()
    (folder / "a.txt").write_text("今天", encoding="utf-8")
    (source,) = with_corpus(load_recipe(RECIPES / "demo.yaml"), tmp_path).sources
    assert source.name == shown_name(folder.name)
    assert source.paths == (str(folder),)
