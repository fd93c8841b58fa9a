"""Filling masked places of a text, given both sides: what random token order is for.

All known tokens enter first, the right part, then the left part, each with its own position and all in one document.
Then the query layer is asked for the first masked position (told position - 1, the published convention); the token
that fills it enters with its position before the next one is asked.  The left part comes last because the state that
answers is that of the token which entered last, and what a model knows best is what follows a token
(measured: docs/random-order.md).

**Which length?**  With lengths a to b allowed for the mask, the right part moves with the length, and each length has
its own distribution over fills, which sums to one: their probabilities can't be compared as they are, nor can their
means per token.  What can is Bayes' rule with every length equally likely beforehand:

    P(length | left, right)        ~ P(right, at the positions which that length gives it | left)
    P(length, fill | left, right)  = P(length | left, right) * P(fill | left, right, length)

A fill without any text (the bare word border that the vocabulary has) is no candidate, though it keeps its probability.
The first factor is read off while the right part enters token by token after the left one, the second while the masks
are filled.  Candidates are ranked by that product, which sums to one over all lengths and fills.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pangu_alpha.config_checks import require_integer, require_text
from pangu_alpha.data.tokenizer import END_OF_TEXT, Tokenizer
from pangu_alpha.errors import UsageError
from pangu_alpha.inference.generator import allowed_log_probabilities
from pangu_alpha.inference.sampling import log_softmax

if TYPE_CHECKING:
    from pangu_alpha.inference.cache import Decoder

logger = logging.getLogger(__name__)

MASK_TEXT = "[MASK]"
"""How a text names a masked token."""

_SPARE = 8
"""Candidates found beyond those asked for, since some may hold no text."""


@dataclass(frozen=True)
class Filling:
    """One way to fill the masks of a text."""

    text: str
    """The whole text, filled."""
    fills: tuple[str, ...]
    """The text of each mask's place; a mask of several tokens has one text."""
    tokens: tuple[int, ...]
    """Ids of all filled tokens, from left to right."""
    length: int
    """Filled tokens."""
    log_probability: float
    """Of the fill, given both sides and its length (natural logarithm)."""
    length_log_probability: float
    """Of the length, given both sides, among the lengths asked for; 0 where only one was."""

    @property
    def log_score(self) -> float:
        """Of length and fill, given both sides: what ranks the candidates."""
        return self.length_log_probability + self.log_probability

    @property
    def probability(self) -> float:
        """exp of `log_score`."""
        return float(np.exp(self.log_score))

    @property
    def mean_token_probability(self) -> float:
        """Geometric mean of the filled tokens' probabilities."""
        return float(np.exp(self.log_probability / self.length))


@dataclass(frozen=True)
class _Masked:
    """A text as ids, None where a token is masked."""

    ids: tuple[int | None, ...]

    @property
    def masks(self) -> list[int]:
        return [position for position, token in enumerate(self.ids) if token is None]

    def known(self, start: int, stop: int) -> tuple[list[int], list[int]]:
        """Tokens and positions of the known ids in [start, stop)."""
        kept = [(token, p) for p, token in enumerate(self.ids) if token is not None and start <= p < stop]
        return [token for token, _ in kept], [position for _, position in kept]


def infill(
    decoder: Decoder,
    tokenizer: Tokenizer,
    text: str,
    lengths: Sequence[int] = (1,),
    number: int = 5,
    width: int = 16,
) -> list[Filling]:
    """The most probable ways to fill the masks of `text`, the best first.

    Args:
        decoder: of a model with a query layer; its cache is used up.
        tokenizer: the model's.
        text: with one or more [MASK], each one token; the first token of the text must be known.
        lengths: numbers of tokens tried for the mask; more than one only with a single [MASK].
        number: candidates given back.
        width: candidates kept open while several masks are filled from left to right (a beam).

    Raises:
        UsageError: one line that says what the text or an argument must look like.
    """
    require_text("text", text)
    require_integer("number", number, 1)
    require_integer("width", width, 1)
    for length in lengths:
        require_integer("lengths", length, 1)
    parts = text.split(MASK_TEXT)
    groups = _mask_groups(parts)
    if not groups:
        raise UsageError(f"the text has no {MASK_TEXT}; write one where a token is missing, as in 今天[MASK]天气")
    if not lengths:
        raise UsageError("lengths are []; give at least 1 of them")
    if len(lengths) > 1 and len(parts) != 2:
        raise UsageError(f"lengths can be ranked for one {MASK_TEXT} only; the text has {len(parts) - 1}")
    encoded = [tokenizer.encode(part) for part in parts]
    if not encoded[0]:
        raise UsageError(f"the text begins with {MASK_TEXT}; its first token must be known: write it before the mask")
    repeats = list(dict.fromkeys(lengths)) if len(parts) == 2 else [1]
    if len(parts) > 2 and lengths[0] != 1:
        raise UsageError(f"with several {MASK_TEXT} each stands for one token; repeat {MASK_TEXT} for more")
    encoded = _cut_to_view(encoded, max(repeats), decoder.capacity)
    filled: list[tuple[tuple[int, ...], float, float]] = []
    evidence = []
    for repeat in repeats:
        masked = _join(encoded, repeat)
        right = _right_after_left(decoder, masked) if len(repeats) > 1 else 0.0
        evidence.append(right)
        logits = _enter_known(decoder, masked)
        beam = _fill(decoder, masked, logits, tokenizer.vocab_size, max(width, number + _SPARE))
        filled += [(tokens, score, right) for tokens, score in beam]
    total = float(np.logaddexp.reduce(evidence))
    if len(repeats) > 1:
        _tell_lengths(repeats, np.exp(np.array(evidence) - total))
    fillings = [_describe(tokenizer, parts, groups, tokens, score, right - total) for tokens, score, right in filled]
    written = [filling for filling in fillings if all(filling.fills)]
    return sorted(written, key=lambda filling: (-filling.log_score, filling.tokens))[:number]


def _tell_lengths(lengths: list[int], probabilities: np.ndarray) -> None:
    """Log how probable each length is."""
    shares = ", ".join(f"{length}: {share:.1%}" for length, share in zip(lengths, probabilities, strict=True))
    if np.ptp(probabilities) < 1e-6:
        shares += " (all the same: with one known token on a side, give more text around the mask)"
    logger.info("probability of each length, given both sides: %s", shares)


def _mask_groups(parts: list[str]) -> list[int]:
    """Masks that stand together form a group; gives how many masks each has."""
    groups: list[int] = []
    for part in parts[:-1]:
        if part or not groups:
            groups.append(1)
        else:
            groups[-1] += 1
    return groups


def _join(encoded: list[list[int]], repeat: int) -> _Masked:
    """Parts with `repeat` masks between two of them."""
    ids: list[int | None] = [*encoded[0]]
    for part in encoded[1:]:
        ids += [*[None] * repeat, *part]
    return _Masked(tuple(ids))


def _cut_to_view(encoded: list[list[int]], repeat: int, capacity: int) -> list[list[int]]:
    """A text that is too long loses its beginning and its end, so that the masks stay in the middle of what is kept."""
    left, right = encoded[0], encoded[-1]
    between = sum(len(part) for part in encoded[1:-1]) + repeat * (len(encoded) - 1)
    room = capacity - between
    if room < 1:
        raise UsageError(
            f"{between} tokens from the first to the last {MASK_TEXT}; the model sees {capacity}: bring them closer"
        )
    if len(left) + len(right) <= room:
        return encoded
    right_kept = min(len(right), max(room // 2, room - len(left)), room - 1)
    left_kept = room - right_kept
    logger.warning(
        "the text has %d tokens; the %d before the first mask and the %d after the last one that are nearest are used",
        len(left) + between + len(right),
        left_kept,
        right_kept,
    )
    return [left[-left_kept:], *encoded[1:-1], right[:right_kept]]


def _enter_known(decoder: Decoder, masked: _Masked) -> np.ndarray:
    """Feed the known tokens, those after the first mask before those on its left; gives the logits for that mask."""
    first = masked.masks[0]
    left, left_positions = masked.known(0, first)
    right, right_positions = masked.known(first, len(masked.ids))
    decoder.rewind(0)
    return decoder.feed(right + left, right_positions + left_positions, first - 1)


def _right_after_left(decoder: Decoder, masked: _Masked) -> float:
    """log P(what stands after the mask | what stands before it)."""
    first = masked.masks[0]
    right, positions = masked.known(first, len(masked.ids))
    if not right:
        return 0.0
    decoder.rewind(0)
    logits = decoder.feed(*masked.known(0, first), positions[0] - 1)
    total = float(log_softmax(logits)[right[0]])
    for index in range(1, len(right)):
        logits = decoder.feed([right[index - 1]], [positions[index - 1]], positions[index] - 1)
        total += float(log_softmax(logits)[right[index]])
    return total


def _fill(
    decoder: Decoder, masked: _Masked, logits: np.ndarray, vocab_size: int, width: int
) -> list[tuple[tuple[int, ...], float]]:
    """Beam search over the masks from left to right: (tokens, log-probability), the best first."""
    masks = masked.masks
    known = decoder.length
    beam: list[tuple[tuple[int, ...], float]] = [((), 0.0)]
    for level in range(len(masks)):
        longer: list[tuple[tuple[int, ...], float]] = []
        for tokens, score in beam:
            if level:
                decoder.rewind(known)
                logits = decoder.feed(tokens, masks[:level], masks[level] - 1)
            distribution = _allowed_in_text(logits, vocab_size)
            best = np.argsort(-distribution, kind="stable")[:width]
            possible = best[np.isfinite(distribution[best])]
            longer += [((*tokens, int(token)), score + float(distribution[token])) for token in possible]
        beam = sorted(longer, key=lambda item: (-item[1], item[0]))[:width]
    return beam


def _allowed_in_text(logits: np.ndarray, vocab_size: int) -> np.ndarray:
    """Log-probabilities of the tokens that may stand within a text: no control token, and not its end either."""
    logits = logits.astype(np.float64)
    logits[END_OF_TEXT] = -np.inf
    return allowed_log_probabilities(logits, vocab_size)


def _describe(
    tokenizer: Tokenizer, parts: list[str], groups: list[int], tokens: tuple[int, ...], score: float, length: float
) -> Filling:
    """The candidate with its texts; the known parts stay as they were written."""
    sizes = groups if len(groups) > 1 or groups[0] == len(tokens) else [len(tokens)]
    fills, start = [], 0
    for size in sizes:
        fills.append(tokenizer.decode(tokens[start : start + size]))
        start += size
    known = [part for index, part in enumerate(parts) if part or index in (0, len(parts) - 1)]
    text = "".join(part + fill for part, fill in zip(known, [*fills, ""], strict=True))
    return Filling(text, tuple(fills), tokens, len(tokens), score, length)


def parse_lengths(text: str) -> tuple[int, ...]:
    """Lengths as a user writes them: `3`, or a range `1..4`.

    Raises:
        UsageError: it is neither.
    """
    match = re.fullmatch(r"(\d+)(?:\.\.(\d+))?", text.strip())
    first = int(match[1]) if match else 0
    last = int(match[2] or match[1]) if match else 0
    if not 1 <= first <= last <= 16:
        raise UsageError(f"--length is {text!r}; write a number of tokens, or a range such as 1..4, at most 16")
    return tuple(range(first, last + 1))
