"""The hidden Markov model with which jieba cuts what its dictionary left in single characters.

Each character is in one of four states, which say where in a word it stands; the most probable states give the words.
"""

from __future__ import annotations

import re

_IMPOSSIBLE = -3.14e100
"""Log probability that jieba gives to a character never seen in a state."""

_CHINESE = re.compile("([\u4e00-\u9fd5]+)")
_ASCII_WORD = re.compile(r"([a-zA-Z0-9]+(?:\.[0-9]+)?%?)")
_STATES = "BMES"
_BEGIN, _MIDDLE, _END, _SINGLE = range(4)


class WordStates:
    """Cuts a run of characters by their most probable states.

    Args:
        start: log probability of each state to be the first: B, M, E (begin, middle, end of a word), S (a word alone).
        transition: log probability of a state (inner key) after another one.
        emission: log probability of a character (inner key) in a state.
    """

    def __init__(
        self,
        start: dict[str, float],
        transition: dict[str, dict[str, float]],
        emission: dict[str, dict[str, float]],
    ) -> None:
        self._start = tuple(start[state] for state in _STATES)
        self._transition = {
            (_STATES.index(before), _STATES.index(after)): value
            for before, row in transition.items()
            for after, value in row.items()
        }
        self._emission = {
            character: tuple(emission[state].get(character, _IMPOSSIBLE) for state in _STATES)
            for character in sorted(set().union(*emission.values()))
        }
        # For a run of two characters known in all states: log probability of the first as Begin and as Single with
        # the step to the second, and emissions of the second as End and as Single; sums in jieba's order.
        to_end, to_single = self._transition[_BEGIN, _END], self._transition[_SINGLE, _SINGLE]
        self._pairs = {
            character: (
                self._start[_BEGIN] + seen[_BEGIN] + to_end,
                self._start[_SINGLE] + seen[_SINGLE] + to_single,
                seen[_END],
                seen[_SINGLE],
            )
            for character, seen in self._emission.items()
            if _IMPOSSIBLE not in seen and _CHINESE.fullmatch(character)
        }

    def cut(self, run: str) -> list[str]:
        """The words of a run of at least one character."""
        if len(run) == 2 and run[0] in self._pairs and run[1] in self._pairs:
            # The most frequent case in closed form: one word (Begin, End) or two (Single, Single).
            begin, single, _, _ = self._pairs[run[0]]
            _, _, as_end, as_single = self._pairs[run[1]]
            return list(run) if single + as_single >= begin + as_end else [run]
        words: list[str] = []
        for index, part in enumerate(_CHINESE.split(run)):
            if index % 2:
                words += self._most_probable_words(part)
            else:
                words += [word for word in _ASCII_WORD.split(part) if word]
        return words

    def _most_probable_words(self, run: str) -> list[str]:
        """Viterbi over the four states; of equals the later of B, E, M, S wins, as in jieba (it compares letters)."""
        emissions, nowhere = self._emission, (_IMPOSSIBLE,) * 4
        to = self._transition
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
