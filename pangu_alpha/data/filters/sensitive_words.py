"""Documents with too many words of a user's list."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa

from pangu_alpha.config_checks import require
from pangu_alpha.data.rule import Outcome, keep_where
from pangu_alpha.errors import PanguError, UsageError


@cache
def _automaton(path: str) -> Any:
    """All words of a list as one automaton, which finds them in one pass."""
    try:
        import ahocorasick
    except ImportError as error:
        raise PanguError("the rule sensitive_words needs pyahocorasick: pip install pyahocorasick") from error
    try:
        text = Path(path).expanduser().read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UsageError(f"sensitive_words.words: {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"sensitive_words.words: {path} is not UTF-8; convert it") from None
    words = {word.strip() for word in text.splitlines()} - {""}
    if not words:
        raise UsageError(f"sensitive_words.words: {path} holds no word; give one a line")
    automaton = ahocorasick.Automaton()
    for word in words:
        automaton.add_word(word, word)
    automaton.make_automaton()
    return automaton


@dataclass(frozen=True)
class SensitiveWords:
    """Drop documents that hold more than `most` words of a list (paper §3.1: 724 words, dropped above three).

    Measures how often any of the words occurs.  The published list is not public: a user brings one.
    """

    name: ClassVar[str] = "sensitive_words"
    words: str = field(default="")
    """File with one word a line, UTF-8."""
    most: int = 3
    """Occurrences."""

    def __post_init__(self) -> None:
        require(bool(self.words), "words", self.words, "name a file with one word a line")
        require(self.most >= 0, "most", self.most, "it must be 0 or more")
        _automaton(self.words)

    def apply(self, batch: pa.RecordBatch) -> Outcome:
        """Counts occurrences, those inside others included."""
        automaton = _automaton(self.words)
        counts = [sum(1 for _ in automaton.iter(text)) for text in batch["text"].to_pylist()]
        keep = pa.array([count <= self.most for count in counts], pa.bool_())
        return keep_where(self.name, batch, keep, pa.array(counts, pa.float64()), self.most)
