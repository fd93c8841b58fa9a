"""A smoothed character 3-gram model: the simple model that a trained one is measured against.

Interpolated Kneser–Ney smoothing with three discounts (Chen and Goodman, "An empirical study of smoothing techniques
for language modeling", 1998, section 4.1.6), the strongest of the classic methods:

    p3(c | a b) = (n(a b c) - D(n(a b c))) / n(a b ·) + back-off mass(a b) · p2(c | b)
    p2(c | b)   = the same over k(b c) = number of different characters seen before "b c"
    p1(c)       = the same over k(c) = number of different characters seen before "c", then evenly over the alphabet

where D(1), D(2), D(3 and more) are estimated from the numbers of n-grams seen once to four times.  A document is read
as START c1 … cn END; after START, where nothing can stand before, counts take the place of k.  The end is predicted
like any character; all characters never seen in training share one symbol, which favours this model, because it need
not say which of them comes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

UNSEEN_CHARACTER = "\0unseen"
"""Name of all characters that no training text held."""

Numbers = npt.NDArray[np.int64]
Shares = npt.NDArray[np.float64]

_START, _END, _UNSEEN, _FIRST_CHARACTER = 0, 1, 2, 3
_DOCUMENTS_AT_ONCE = 2000


@dataclass(frozen=True)
class _Level:
    """One order of the model: n-grams as sorted keys (context · alphabet + character) with their counts."""

    keys: Numbers
    discounted: Shares
    """Count minus discount, for each key."""
    contexts: Numbers
    totals: Shares
    """Sum of counts, for each context."""
    back_off: Shares
    """Share of the probability that goes to the next lower order, for each context."""

    def interpolate(self, contexts: Numbers, keys: Numbers, lower: Shares) -> Shares:
        """Probabilities of characters after contexts, given those of the next lower order."""
        if not len(self.contexts):  # empty documents have no trigrams
            return lower
        place, known = _find(self.contexts, contexts)
        key_place, key_known = _find(self.keys, keys)
        total = np.where(known, self.totals[place], 1.0)
        own = np.where(key_known, self.discounted[key_place], 0.0) / total
        return np.where(known, own + self.back_off[place] * lower, lower)


def _find(table: Numbers, wanted: Numbers) -> tuple[Numbers, npt.NDArray[np.bool_]]:
    if not len(table):
        return np.zeros_like(wanted), np.zeros(wanted.shape, bool)
    place = np.minimum(np.searchsorted(table, wanted), len(table) - 1)
    return place, table[place] == wanted


def _discounts(counts: Numbers) -> tuple[float, float, float]:
    """D(1), D(2), D(3+) of Chen and Goodman; where too few n-grams tell, a middle value."""
    once, twice, thrice, four_times = (int((counts == number).sum()) for number in (1, 2, 3, 4))
    if not once or not twice or not thrice:
        return 0.5, 0.5, 0.5
    share = once / (once + 2 * twice)
    found = (1 - 2 * share * twice / once, 2 - 3 * share * thrice / twice, 3 - 4 * share * four_times / thrice)
    first, second, third = (min(max(value, 0.05), number - 0.05) for number, value in enumerate(found, 1))
    return first, second, third


def _level(keys: Numbers, counts: Numbers, alphabet: int) -> _Level:
    """Discounts, totals and back-off shares of sorted n-grams and their counts."""
    first, second, third = _discounts(counts)
    discount = np.select([counts == 1, counts == 2], [first, second], third)
    contexts, start = np.unique(keys // alphabet, return_index=True)
    totals = np.add.reduceat(counts, start).astype(np.float64)
    return _Level(keys, counts - discount, contexts, totals, np.add.reduceat(discount, start) / totals)


class CharacterTrigram:
    """The model, trained on texts.

    Args:
        texts: training documents, at least one.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        texts = list(texts)
        if not texts:
            raise ValueError("a 3-gram model needs at least one text")
        self._characters = np.unique(np.concatenate([_code_points(text) for text in texts]))
        self.alphabet = _FIRST_CHARACTER + len(self._characters)
        """Symbols, the start, the end and the one for unseen characters included."""
        size = self.alphabet
        trigrams: list[Numbers] = []
        starts: list[Numbers] = []
        for symbols in self._streams(texts):
            before, here, after = symbols[:-2], symbols[1:-1], symbols[2:]
            inside = (after != _START) & (here != _START)
            trigrams.append(((before * size + here) * size + after)[inside])
            starts.append(symbols[np.flatnonzero(symbols[:-1] == _START) + 1])
        keys, counts = np.unique(np.concatenate(trigrams), return_counts=True)
        self._three = _level(keys, counts, size)
        # Bigrams by the characters before them; those at a start, which nothing precedes, by how often they occur.
        pairs, before_pairs = np.unique(keys % (size * size), return_counts=True)
        first, at_start = np.unique(np.concatenate(starts), return_counts=True)
        pairs = np.concatenate([_START * size + first, pairs])
        self._two = _level(pairs, np.concatenate([at_start, before_pairs]), size)
        singles, before_singles = np.unique(pairs % size, return_counts=True)
        one = _level(singles, before_singles, size)
        # The start is never predicted, so the even part goes over the other symbols.
        self._one = np.full(size, one.back_off[0] / (size - 1))
        self._one[_START] = 0.0
        self._one[singles] += one.discounted / one.totals[0]

    def _streams(self, texts: Sequence[str]) -> Iterator[Numbers]:
        """Symbols of documents one after the other, START before and END behind each, some documents at a time."""
        for first in range(0, len(texts), _DOCUMENTS_AT_ONCE):
            parts = []
            for text in texts[first : first + _DOCUMENTS_AT_ONCE]:
                place, known = _find(self._characters, _code_points(text))
                symbols = np.empty(len(place) + 2, np.int64)
                symbols[0], symbols[-1] = _START, _END
                symbols[1:-1] = np.where(known, place + _FIRST_CHARACTER, _UNSEEN)
                parts.append(symbols)
            yield np.concatenate(parts)

    def _probabilities(self, before: Numbers, here: Numbers, after: Numbers) -> Shares:
        """p(after | before here); `before` counts for nothing where `here` is START."""
        size = self.alphabet
        two = self._two.interpolate(here, here * size + after, self._one[after])
        context = before * size + here
        three = self._three.interpolate(context, context * size + after, two)
        return np.where(here == _START, two, three)

    def distribution(self, context: str) -> dict[str, float]:
        """Probability of each next character of a document; "" is its end, UNSEEN_CHARACTER any that was never seen.

        Args:
            context: the document so far.
        """
        symbols = next(self._streams([context]))[:-1]
        before, here = (symbols[-2] if len(symbols) > 1 else _START), symbols[-1]
        after = np.arange(_END, self.alphabet)
        shares = self._probabilities(np.full(after.shape, before), np.full(after.shape, here), after)
        names = ["", UNSEEN_CHARACTER, *(chr(point) for point in self._characters)]
        return dict(zip(names, shares.tolist(), strict=True))

    def bits(self, texts: Iterable[str]) -> float:
        """Information in documents under this model, their ends included: -log2 of their probability, summed."""
        total = 0.0
        for symbols in self._streams(list(texts)):
            # A document of one character has only its start before it, so a start is put before everything.
            symbols = np.concatenate([[_START], symbols])
            before, here, after = symbols[:-2], symbols[1:-1], symbols[2:]
            asked = after != _START
            shares = self._probabilities(before[asked], here[asked], after[asked])
            total -= math.fsum(np.log2(shares).tolist())
        return total


def _code_points(text: str) -> Numbers:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.int64)
