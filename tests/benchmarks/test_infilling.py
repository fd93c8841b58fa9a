"""What the infilling benchmark asks of a model: the token in the middle, with the left side or both in view."""

from __future__ import annotations

from collections.abc import Iterator

import infilling
import numpy as np
import pytest
from numpy.typing import NDArray

from pangu_alpha.data.tokenizer import END_OF_TEXT, PAD

VOCABULARY = 60


class NeighbourModel:
    """Guesses the number after that at the place `offset` away from the one it is asked for, if that has entered."""

    def __init__(self, offset: int) -> None:
        self.offset = offset

    def logits(
        self,
        tokens: NDArray[np.int64],
        positions: NDArray[np.int64],
        query_positions: NDArray[np.int64],
        segments: NDArray[np.int64],
    ) -> NDArray[np.float32]:
        assert tokens.shape == positions.shape == query_positions.shape == segments.shape
        assert not segments.any()
        logits = np.zeros((*tokens.shape, VOCABULARY), np.float32)
        for row in range(tokens.shape[0]):
            for step in range(tokens.shape[1]):
                wanted = query_positions[row, step] + 1 + self.offset  # the query at p asks for position p + 1
                for seen in range(step + 1):
                    if positions[row, seen] == wanted:
                        logits[row, step, tokens[row, seen] + 1] = 10.0
        return logits


def falling(length: int, start: int = 50) -> list[int]:
    """A sentence in which each token is the one on its right, plus one."""
    return list(range(start, start - length, -1))


SENTENCES = [falling(12), falling(13), falling(32), falling(20, 40), *[falling(14)] * 7]


def test_the_right_neighbour_is_seen_with_both_sides_only() -> None:
    model = NeighbourModel(offset=1)
    nats, right = infilling.ask(model, SENTENCES, both_sides=True)
    assert right == 1.0
    assert nats == pytest.approx(np.log1p((VOCABULARY - 1) * np.exp(-10)), rel=1e-6)
    nats, right = infilling.ask(model, SENTENCES, both_sides=False)
    assert right == 0.0
    assert nats == pytest.approx(np.log(VOCABULARY), rel=1e-6)


@pytest.mark.parametrize("both_sides", [False, True])
def test_the_left_neighbour_is_always_seen(both_sides: bool) -> None:
    rising = [sentence[::-1] for sentence in SENTENCES]
    assert infilling.ask(NeighbourModel(offset=-1), rising, both_sides)[1] == 1.0


@pytest.mark.parametrize("both_sides", [False, True])
def test_so_much_of_the_left_side_is_shown_as_asked_for(both_sides: bool) -> None:
    rising = [sentence[::-1] for sentence in SENTENCES]
    assert infilling.ask(NeighbourModel(offset=-1), rising, both_sides, left=1)[1] == 1.0
    # Who looks two places to the left sees nothing there if one token is shown, and guesses nothing.
    nats = [infilling.ask(NeighbourModel(offset=-2), rising, both_sides, left)[0] for left in (0, 1, 2)]
    assert nats[0] == nats[2] != nats[1] == pytest.approx(np.log(VOCABULARY))


@pytest.mark.parametrize("both_sides", [False, True])
def test_what_is_asked_for_is_never_shown(both_sides: bool) -> None:
    nats, right = infilling.ask(NeighbourModel(offset=0), SENTENCES, both_sides)
    assert (nats, right) == (pytest.approx(np.log(VOCABULARY)), 0.0)


def test_sentences_end_at_marks_and_never_reach_over_a_document(monkeypatch: pytest.MonkeyPatch) -> None:
    mark = 7
    short, fits, cut = [20] * 5, [21] * 14, [22] * 14
    text = [*short, mark, *fits, mark, *cut, END_OF_TEXT, *fits, mark, *([23] * 40), mark, PAD, *fits[1:], mark]

    def ids(prepared: object) -> Iterator[int]:
        yield from text

    monkeypatch.setattr(infilling, "_held_out_ids", ids)
    expected = [[*fits, mark], [*fits, mark], [*fits[1:], mark]]
    assert infilling.held_out_sentences(None, {mark}, 10) == expected
    assert infilling.held_out_sentences(None, {mark}, 2) == expected[:2]
