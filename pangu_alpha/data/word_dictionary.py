"""The dictionary of the package jieba: its words, how probable each is, and which words begin with which characters."""

from __future__ import annotations

import hashlib
import logging
import math
import sys
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

logger = logging.getLogger(__name__)

NO_WORD = -1e300
"""Weight of characters that begin words and are none: no sum with it ever wins."""

_SHA256 = "7197c3211ddd98962b036cdf40324d1ea2bfaa12bd028e68faa70111a88e12a8"
"""Of dict.txt in jieba 0.42.1, the version of the published tokenizer."""

Node = tuple[float, "dict[str, Node] | None"]
"""What the first characters of words lead to: their weight as a word, and the node of each character that goes on."""


class WordDictionary:
    """Words and their log probabilities.

    Attributes:
        weights: word -> log probability.
        unseen: log probability of a character that is no word.
        first: first character -> Node; None for a character that begins no word.
    """

    def __init__(self, counts: Iterable[tuple[str, int]]) -> None:
        """Make it from words and how often each was seen."""
        counts = list(counts)
        log_total = math.log(sum(count for _, count in counts))
        log_of = {count: math.log(count) - log_total for _, count in counts if count}
        self.weights = {word: log_of[count] for word, count in counts if count}
        self.unseen = math.log(1) - log_total
        self.first = _Tree(self.weights)


class _Tree(dict[str, Node | None]):
    """First character -> Node; grown when a character is first asked for, which most of them never are."""

    def __init__(self, weights: dict[str, float]) -> None:
        super().__init__()
        self._weights = weights
        self._words: defaultdict[str, list[str]] = defaultdict(list)
        for word in weights:
            self._words[word[0]].append(word)

    def __missing__(self, character: str) -> Node | None:
        words = self._words.get(character, ())
        beginnings = {word[:length] for word in words for length in range(1, len(word) + 1)}
        following: dict[str, dict[str, Node]] = {}
        node: Node | None = None
        for beginning in sorted(beginnings, key=len, reverse=True):  # the character itself comes last
            node = (self._weights.get(beginning, NO_WORD), following.pop(beginning, None))
            following.setdefault(beginning[:-1], {})[sys.intern(beginning[-1])] = node
        self[character] = node
        return node


def read_dictionary(path: Path) -> WordDictionary:
    """The dictionary in a file of jieba's form: a word, its count and its part of speech a line.

    Raises:
        OSError, ValueError: the file cannot be read, or has another form.
    """
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != _SHA256:
        logger.warning(
            "%s is not that of jieba 0.42.1: ids may differ from those of the published tokenizer; "
            "pip install jieba==0.42.1 brings it back",
            path,
        )
    fields = content.decode("utf-8").split()
    if len(fields) % 3 or not fields:
        raise ValueError(f"{path.name} is not made of lines with a word, its count and its part of speech")
    return WordDictionary(zip(fields[0::3], map(int, fields[1::3]), strict=True))
