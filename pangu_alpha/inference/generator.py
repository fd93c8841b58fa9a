"""Continuing a text: tokens one at a time, text as soon as it is certain."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from pangu_alpha.config_checks import require_integer, require_text
from pangu_alpha.data.tokenizer import END_OF_TEXT, StreamDecoder, Tokenizer
from pangu_alpha.errors import UsageError
from pangu_alpha.inference.sampling import Sampling, choose, log_softmax, uniform

if TYPE_CHECKING:
    from pangu_alpha.inference.cache import Decoder

logger = logging.getLogger(__name__)

NEVER_WRITTEN = (0, 1, 2, 5, 6, 7, 8)
"""Ids that stand for no text: <unk>, <s>, </s>, <sep>, <pad>, <mask>, <eod>.  They are never chosen."""


@dataclass(frozen=True)
class GenerationOptions:
    """How a text is continued."""

    max_new_tokens: int = 100
    """Most tokens written."""
    sampling: Sampling = field(default_factory=Sampling)
    """How each is chosen."""
    seed: int | None = None
    """The same seed gives the same text; None draws one."""
    stop: tuple[str, ...] = ()
    """The text ends before the first of these that appears in it; it always ends at the end token <eot>."""

    def __post_init__(self) -> None:
        require_integer("max_new_tokens", self.max_new_tokens, 1)
        if self.seed is not None:
            require_integer("seed", self.seed)
        for text in self.stop:
            require_text("stop", text)
            if not text:
                raise UsageError("stop holds an empty text; give at least one character, or leave it out")


def allowed_log_probabilities(logits: np.ndarray, vocab_size: int) -> np.ndarray:
    """Logits [V] -> log-probabilities float64 [V] with -inf for what is never written.

    Padding rows that a table may have beyond the tokenizer's pieces, `vocab_size` of them, never win.
    """
    logits = logits.astype(np.float64)
    logits[list(NEVER_WRITTEN)] = -np.inf
    logits[vocab_size:] = -np.inf
    return log_softmax(logits)


def kept_of_prompt(length: int, capacity: int, max_new_tokens: int) -> int:
    """How many tokens of a prompt are used, from its end.

    All, if they fit.  Else as many as leave room for the new tokens, but at least half the capacity.
    """
    if length <= capacity:
        return length
    return max(capacity - max_new_tokens, capacity // 2)


class TokenStream:
    """Iterator over the tokens that continue a prompt; ends after <eot> (not given) or `max_new_tokens`.

    Each token is fed with the position after the one before it, and the query layer is told that position (the
    released incremental graph tells it 0 every time).  A full cache forgets: the last half of its tokens is fed anew,
    at positions from 0, and writing goes on.
    An empty prompt asks for a document's first token the way training does: after the end token of another document.
    """

    def __init__(self, decoder: Decoder, prompt: Sequence[int], vocab_size: int, options: GenerationOptions) -> None:
        """Start with an empty cache; `prompt` holds ids."""
        self._decoder, self._options, self._vocab_size = decoder, options, vocab_size
        self.seed = options.seed if options.seed is not None else secrets.randbits(32)
        self.finish_reason = ""
        """stop (the end token) or length, once it has ended."""
        self.tokens: list[int] = []
        """What was written so far."""
        self.log_probabilities: list[float] = []
        """Of each token written, before temperature, top-k and top-p."""
        kept = kept_of_prompt(len(prompt), decoder.capacity, options.max_new_tokens)
        if kept < len(prompt):
            logger.warning("the prompt has %d tokens; the last %d are used", len(prompt), kept)
        self._in_view = list(prompt[len(prompt) - kept :])
        self._fed = 0
        decoder.rewind(0)

    def __iter__(self) -> Iterator[int]:
        """Itself."""
        return self

    def __next__(self) -> int:
        """The next token."""
        if self.finish_reason:
            raise StopIteration
        distribution = allowed_log_probabilities(self._ask(), self._vocab_size)
        token = choose(distribution, self._options.sampling, uniform(self.seed, len(self.tokens)))
        if token == END_OF_TEXT:
            self.finish_reason = "stop"
            raise StopIteration
        self.tokens.append(token)
        self.log_probabilities.append(float(distribution[token]))
        self._in_view.append(token)
        if len(self.tokens) == self._options.max_new_tokens:
            self.finish_reason = "length"
        return token

    def _ask(self) -> np.ndarray:
        """Feed what is new and ask for the position after it."""
        decoder = self._decoder
        if not self._in_view:
            logits = decoder.feed([END_OF_TEXT], [0], 0)  # the border rule: the end token asks at its own position
            decoder.rewind(0)
            return logits
        if len(self._in_view) > decoder.capacity:
            self._in_view = self._in_view[-max(1, decoder.capacity // 2) :]
            decoder.rewind(0)
            self._fed = 0
        new = self._in_view[self._fed :]
        positions = range(self._fed, len(self._in_view))
        self._fed = len(self._in_view)
        return decoder.feed(new, positions, positions[-1])


class TextStream:
    """Iterator over pieces of text that continue a prompt, whole characters only, ends before a stop text."""

    def __init__(self, tokens: TokenStream, tokenizer: Tokenizer, stop: Sequence[str] = ()) -> None:
        self._tokens, self._stop = tokens, stop
        self._decoder = StreamDecoder(tokenizer)
        self._held = ""
        self._ended = False
        self.finish_reason = ""
        """stop (the end token or a stop text) or length, once it has ended."""

    @property
    def seed(self) -> int:
        """The seed of this text, also where none was given."""
        return self._tokens.seed

    @property
    def tokens(self) -> list[int]:
        """Ids written so far; those of a stop text are among them."""
        return self._tokens.tokens

    @property
    def log_probabilities(self) -> list[float]:
        """Of each token in `tokens`."""
        return self._tokens.log_probabilities

    def __iter__(self) -> Iterator[str]:
        """Itself."""
        return self

    def __next__(self) -> str:
        """The next piece of text, never empty."""
        while not self._ended:
            token = next(self._tokens, None)
            if token is None:
                piece = self._decoder.finish()
                self._ended, self.finish_reason = True, self._tokens.finish_reason
            else:
                piece = self._decoder.push(token)
            text = self._release(self._held + piece)
            if text:
                return text
        raise StopIteration

    def _release(self, text: str) -> str:
        """What of `text` is certain: up to a stop text, or short of what may become one."""
        found = [place for place in (text.find(stop) for stop in self._stop) if place >= 0]
        if found:
            self._ended, self.finish_reason, self._held = True, "stop", ""
            return text[: min(found)]
        unsure = 0
        if not self._ended:
            for stop in self._stop:
                lengths = range(min(len(stop) - 1, len(text)), 0, -1)
                unsure = max(unsure, next((n for n in lengths if text.endswith(stop[:n])), 0))
        self._held = text[len(text) - unsure :]
        return text[: len(text) - unsure]
