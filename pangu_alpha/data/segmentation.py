"""Chinese word segmentation: exactly the words of `jieba.cut(text, cut_all=False)`, several times faster.

The published tokenizer cuts words with jieba 0.42.1 before sentencepiece sees them, so its words decide every id.
The method is jieba's (github.com/fxsjy/jieba, MIT licence): the most probable chain of dictionary words, by dynamic
programming from the right; runs of single characters that it leaves are cut again by a hidden Markov model whose
states say where in a word a character stands (Begin, Middle, End, Single).  What differs is how it is computed: log
probabilities are looked up instead of computed, dictionary walk and dynamic programming are one loop, and words of
the Markov model are remembered.

Of the installed package only the data are read (dictionary and probabilities); its code is never run.  So another
part of a program that adds words to jieba's process-wide dictionary changes no id here, jieba's messages on stderr
and its cache file, shared by all users of a machine, do not exist, and any number of processes may start at once.
"""

from __future__ import annotations

import functools
import gc
import hashlib
import importlib.util
import logging
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pangu_alpha.errors import PanguError

logger = logging.getLogger(__name__)

_DICTIONARY_SHA256 = "7197c3211ddd98962b036cdf40324d1ea2bfaa12bd028e68faa70111a88e12a8"
"""Of dict.txt in jieba 0.42.1, the version of the published tokenizer."""

_IMPOSSIBLE = -3.14e100
"""Log probability that jieba gives to a character never seen in a state."""

# What jieba looks up in its dictionary: Chinese, and the ASCII that words like C++, 3.5% or T-shirt are made of.
_BLOCK = re.compile("([\u4e00-\u9fd5a-zA-Z0-9+#&._%-]+)")
_CHINESE = re.compile("([\u4e00-\u9fd5]+)")
_ASCII_WORD = re.compile(r"([a-zA-Z0-9]+(?:\.[0-9]+)?%?)")
_OTHER = re.compile("\r\n|.", re.DOTALL)  # elsewhere each character is a word, but for this line end
_SLICE = 1 << 20
_BORDER = re.compile("[^\u4e00-\u9fd5a-zA-Z0-9+#&._%\r-]")  # a character after which a new word begins

_BEGIN, _MIDDLE, _END, _SINGLE = range(4)
_REMEMBERED_RUNS = 100_000


class Segmenter:
    """Cuts text into the words of jieba's accurate mode; concatenated they are the text again.

    Args:
        weights: log probability of each dictionary word; None for strings that only begin a word.
        unseen: log probability of a character that is no word.
        emissions: for each character its log probabilities in the states (Begin, Middle, End, Single).
        start: log probabilities of the first state.
        transitions: log probability of a state (second index) after another (first index); only the possible ones.
    """

    def __init__(
        self,
        weights: dict[str, float | None],
        unseen: float,
        emissions: dict[str, tuple[float, float, float, float]],
        start: tuple[float, float, float, float],
        transitions: dict[tuple[int, int], float],
    ) -> None:
        self._weights = weights
        self._unseen = unseen
        self._emissions = emissions
        self._start = start
        self._transitions = transitions
        self._runs: dict[str, list[str]] = {}
        # For a run of two characters known in all states: log probability of the first as Begin and as Single with
        # the step to the second, and emissions of the second as End and as Single; sums in jieba's order.
        to_end, to_single = transitions[_BEGIN, _END], transitions[_SINGLE, _SINGLE]
        self._pairs = {
            character: (
                start[_BEGIN] + seen[_BEGIN] + to_end,
                start[_SINGLE] + seen[_SINGLE] + to_single,
                seen[_END],
                seen[_SINGLE],
            )
            for character, seen in emissions.items()
            if _IMPOSSIBLE not in seen and _CHINESE.fullmatch(character)
        }

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
        length = len(block)
        get, unseen = self._weights.get, self._unseen
        best_from = [0.0] * (length + 1)
        ends = [0] * length
        for start in range(length - 1, -1, -1):
            end = start + 1
            weight = get(block[start], 0)  # 0: no word begins so (log probabilities are negative)
            if weight == 0:
                best_from[start] = unseen + best_from[end]
                ends[start] = end
                continue
            best = None if weight is None else weight + best_from[end]
            stop = end + 1
            while stop <= length:
                weight = get(block[start:stop], 0)
                if weight is not None:
                    if weight == 0:
                        break
                    total = weight + best_from[stop]
                    if best is None or total >= best:  # of equals the longest word, as jieba has it
                        best, end = total, stop
                stop += 1
            best_from[start] = unseen + best_from[end] if best is None else best
            ends[start] = end
        return ends

    def _cut_run(self, run: str, words: list[str]) -> None:
        """Cut a run of single characters and append its words to `words`.

        A dictionary word stays apart (the chain chose single characters over it), all else goes to the Markov model.
        """
        if len(run) == 1:
            words.append(run)
        elif self._weights.get(run) is not None:
            words += run
        elif len(run) == 2 and run[0] in self._pairs and run[1] in self._pairs:
            # The most frequent case in closed form: one word (Begin, End) or two (Single, Single).
            begin, single, _, _ = self._pairs[run[0]]
            _, _, as_end, as_single = self._pairs[run[1]]
            if single + as_single >= begin + as_end:
                words += run
            else:
                words.append(run)
        else:
            cut = self._runs.get(run)
            if cut is None:
                cut = []
                for index, part in enumerate(_CHINESE.split(run)):
                    if index % 2:
                        cut += self._most_probable_words(part)
                    else:
                        cut += [word for word in _ASCII_WORD.split(part) if word]
                if len(self._runs) >= _REMEMBERED_RUNS:
                    self._runs.clear()
                self._runs[run] = cut
            words += cut

    def _most_probable_words(self, run: str) -> list[str]:
        """Viterbi over the four states; of equals the later of B, E, M, S wins, as in jieba (it compares letters)."""
        emissions, nowhere = self._emissions, (_IMPOSSIBLE,) * 4
        to = self._transitions
        end_begin, single_begin = to[_END, _BEGIN], to[_SINGLE, _BEGIN]
        begin_middle, middle_middle = to[_BEGIN, _MIDDLE], to[_MIDDLE, _MIDDLE]
        begin_end, middle_end = to[_BEGIN, _END], to[_MIDDLE, _END]
        end_single, single_single = to[_END, _SINGLE], to[_SINGLE, _SINGLE]
        first = emissions.get(run[0], nowhere)
        begin, middle, end, single = (start + seen for start, seen in zip(self._start, first, strict=True))
        previous: list[tuple[int, int, int, int]] = []  # for each later character: the best state before each state
        for character in run[1:]:
            as_begin, as_middle, as_end, as_single = emissions.get(character, nowhere)
            # The order of additions is jieba's, so that ties by rounding fall alike.
            from_end, from_single = end + end_begin + as_begin, single + single_begin + as_begin
            from_begin, from_middle = begin + begin_middle + as_middle, middle + middle_middle + as_middle
            close_begin, close_middle = begin + begin_end + as_end, middle + middle_end + as_end
            after_end, after_single = end + end_single + as_single, single + single_single + as_single
            previous.append(
                (
                    _SINGLE if from_single >= from_end else _END,
                    _MIDDLE if from_middle >= from_begin else _BEGIN,
                    _MIDDLE if close_middle >= close_begin else _BEGIN,
                    _SINGLE if after_single >= after_end else _END,
                )
            )
            begin = from_single if from_single >= from_end else from_end
            middle = from_middle if from_middle >= from_begin else from_begin
            end = close_middle if close_middle >= close_begin else close_begin
            single = after_single if after_single >= after_end else after_end
        state = _SINGLE if single >= end else _END
        words: list[str] = []
        stop = len(run)
        for position in range(len(run) - 1, -1, -1):
            if state in (_BEGIN, _SINGLE):
                words.append(run[position:stop])
                stop = position
            if position:
                state = previous[position - 1][state]
        if stop:
            words.append(run[:stop])
        words.reverse()
        return words


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
        weights, unseen = _read_dictionary(folder / "dict.txt")
        start, transition, emission = (
            _literal_of(folder / "finalseg" / f"prob_{name}.py") for name in ("start", "trans", "emit")
        )
        states = "BMES"
        emissions = {
            character: tuple(emission[state].get(character, _IMPOSSIBLE) for state in states)
            for character in sorted(set().union(*emission.values()))
        }
        transitions = {
            (states.index(before), states.index(after)): value
            for before, row in transition.items()
            for after, value in row.items()
        }
        return Segmenter(weights, unseen, emissions, tuple(start[state] for state in states), transitions)
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


def _read_dictionary(path: Path) -> tuple[dict[str, float | None], float]:
    """Log probability of each word, None for the beginnings of words; and that of a character that is no word."""
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != _DICTIONARY_SHA256:
        logger.warning(
            "%s is not that of jieba 0.42.1: ids may differ from those of the published tokenizer; "
            "pip install jieba==0.42.1 brings it back",
            path,
        )
    fields = content.decode("utf-8").split()  # word, count, part of speech, and again
    if len(fields) % 3:
        raise ValueError(f"{path.name} is not made of lines with a word, its count and its part of speech")
    words, counts = fields[0::3], [int(count) for count in fields[1::3]]
    log_total = math.log(sum(counts))
    log_of = {count: math.log(count) - log_total if count else None for count in set(counts)}
    collecting = gc.isenabled()
    gc.disable()  # half a million entries that hold no cycles: looking for some doubles the time
    try:
        beginnings: set[str] = set()
        length, longer = 1, words
        while longer := [word for word in longer if len(word) > length]:
            beginnings.update([word[:length] for word in longer])
            length += 1
        weights: dict[str, float | None] = dict.fromkeys(beginnings)
        weights.update(zip(words, map(log_of.__getitem__, counts), strict=True))
    finally:
        if collecting:
            gc.enable()
    return weights, math.log(1) - log_total


def _literal_of(path: Path) -> Any:
    """The value of P in a module of jieba that holds a table and nothing else; jieba itself is not imported."""
    specification = importlib.util.spec_from_file_location(f"_jieba_{path.stem}", path)
    if specification is None or specification.loader is None:
        raise OSError(f"{path.name} is missing")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module.P
