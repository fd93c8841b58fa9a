"""Chinese word segmentation: exactly the words of `jieba.cut(text, cut_all=False)`, several times faster.

The published tokenizer cuts words with jieba 0.42.1 before sentencepiece sees them, so its words decide every id.
The method is jieba's (github.com/fxsjy/jieba, MIT licence): the most probable chain of dictionary words, by dynamic
programming from the right; runs of single characters that it leaves are cut again by a hidden Markov model whose
states say where in a word a character stands.  What differs is how it is computed: log probabilities are looked up
instead of computed, dictionary walk and dynamic programming are one loop, and what the Markov model found is
remembered.

Of the installed package only the data are read (dictionary and probabilities); its code is never run.  So another
part of a program that adds words to jieba's process-wide dictionary changes no id here, jieba's messages on stderr
and its cache file, shared by all users of a machine, do not exist, and any number of processes may start at once.
"""

from __future__ import annotations

import functools
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pangu_alpha.data.word_dictionary import NO_WORD, WordDictionary, read_dictionary
from pangu_alpha.data.word_states import WordStates
from pangu_alpha.errors import PanguError

# What jieba looks up in its dictionary: Chinese, and the ASCII that words like C++, 3.5% or T-shirt are made of.
_BLOCK = re.compile("([\u4e00-\u9fd5a-zA-Z0-9+#&._%-]+)")
_OTHER = re.compile("\r\n|.", re.DOTALL)  # elsewhere each character is a word, but for this line end
_SLICE = 1 << 20
_BORDER = re.compile("[^\u4e00-\u9fd5a-zA-Z0-9+#&._%\r-]")  # a character after which a new word begins
_REMEMBERED_RUNS = 200_000


class Segmenter:
    """Cuts text into the words of jieba's accurate mode; concatenated they are the text again."""

    def __init__(self, dictionary: WordDictionary, states: WordStates) -> None:
        self._dictionary = dictionary
        self._states = states
        self._runs: dict[str, list[str]] = {}

    def words(self, text: str) -> list[str]:
        """The words of `text`, white space and punctuation included, in order."""
        words: list[str] = []
        for slice_ in _slices(text):
            # Every second part is a block of dictionary characters, the others lie between.
            for index, part in enumerate(_BLOCK.split(slice_)):
                if index % 2:
                    self._cut(part, words)
                elif len(part) == 1:
                    words.append(part)
                elif "\r\n" in part:
                    words += _OTHER.findall(part)
                else:
                    words += part
        return words

    def _cut(self, block: str, words: list[str]) -> None:
        """Cut a block of dictionary characters along its most probable chain of words; append them to `words`."""
        ends = self._best_ends(block)
        length = len(block)
        position = run = 0  # the characters from run to position are words of one character each
        while position < length:
            end = ends[position]
            if end - position > 1:
                if run < position:
                    self._cut_run(block[run:position], words)
                words.append(block[position:end])
                run = end
            position = end
        if run < length:
            self._cut_run(block[run:], words)

    def _best_ends(self, block: str) -> list[int]:
        """For each position of the block: where the first word of the best chain from there to the end ends."""
        first, unseen = self._dictionary.first, self._dictionary.unseen
        length = len(block)
        characters = list(block)
        best_from = [0.0] * (length + 1)
        ends = [0] * length
        best = 0.0
        for start in range(length - 1, -1, -1):
            end = start + 1
            node = first[characters[start]]
            if node is None:
                best_from[start] = best = unseen + best
                ends[start] = end
                continue
            weight, following = node
            best_after, best = best, weight + best
            stop = end
            while following is not None and stop < length:
                node = following.get(characters[stop])
                if node is None:
                    break
                weight, following = node
                stop += 1
                total = weight + best_from[stop]
                if total >= best:  # of equals the longest word, as jieba has it
                    best, end = total, stop
            if best <= NO_WORD:
                best, end = unseen + best_after, start + 1
            best_from[start] = best
            ends[start] = end
        return ends

    def _cut_run(self, run: str, words: list[str]) -> None:
        """Cut a run of single characters and append its words to `words`.

        A dictionary word stays apart (the chain chose single characters over it), all else goes to the Markov model.
        """
        if len(run) == 1:
            words.append(run)
            return
        cut = self._runs.get(run)
        if cut is None:
            cut = list(run) if run in self._dictionary.weights else self._states.cut(run)
            if len(self._runs) >= _REMEMBERED_RUNS:
                self._runs.clear()
            self._runs[run] = cut
        words += cut


def _slices(text: str) -> Iterator[str]:
    """Parts of about a million characters that no word crosses, so that a long text takes little extra memory."""
    start = 0
    while len(text) - start > _SLICE:
        border = _BORDER.search(text, start + _SLICE)
        if border is None:
            break
        yield text[start : border.end()]
        start = border.end()
    yield text[start:] if start else text


@functools.lru_cache(maxsize=1)
def load_segmenter() -> Segmenter:
    """The segmenter with the data of the installed package jieba; read once a process.

    Raises:
        PanguError: the package is missing or incomplete.
    """
    folder = _package_folder()
    try:
        tables = [_table_in(folder / "finalseg" / f"prob_{name}.py") for name in ("start", "trans", "emit")]
        return Segmenter(read_dictionary(folder / "dict.txt"), WordStates(*tables))
    except (OSError, ValueError, KeyError, AttributeError, SyntaxError) as error:
        raise PanguError(
            f"the data of the package jieba in {folder} cannot be read ({error}); mend it with: "
            "pip install --force-reinstall jieba==0.42.1"
        ) from error


def _package_folder() -> Path:
    specification = importlib.util.find_spec("jieba")
    if specification is None or specification.origin is None:
        raise PanguError("the package jieba is not installed; install it with: pip install jieba==0.42.1")
    return Path(specification.origin).parent


def _table_in(path: Path) -> Any:
    """The value of P in a module of jieba that holds a table and nothing else; jieba itself is not imported."""
    specification = importlib.util.spec_from_file_location(f"_jieba_{path.stem}", path)
    if specification is None or specification.loader is None:
        raise OSError(f"{path.name} is missing")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module.P
