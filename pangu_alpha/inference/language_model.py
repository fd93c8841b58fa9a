"""A trained PanGu-α from Python: load it, read its probabilities, let it write."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from mindspore import Tensor

from pangu_alpha.checkpoint.load import Checkpoint, saved_config
from pangu_alpha.checkpoint.parameters import fill_parameters
from pangu_alpha.checkpoint.run_directory import find_checkpoint, find_tokenizer
from pangu_alpha.config import Config
from pangu_alpha.config_checks import require_text
from pangu_alpha.data.order import arrange_sequentially
from pangu_alpha.data.tokenizer import END_OF_TEXT, PAD, Tokenizer
from pangu_alpha.errors import UsageError
from pangu_alpha.inference.cache import CachedDecoder, Decoder, FullDecoder, run_graph
from pangu_alpha.inference.generator import GenerationOptions, TextStream, TokenStream
from pangu_alpha.inference.infill import Filling, infill
from pangu_alpha.inference.sampling import Sampling
from pangu_alpha.model.loss import TokenLoss
from pangu_alpha.model.numerics import resolve_numerics
from pangu_alpha.model.pangu_alpha import PanguAlphaModel
from pangu_alpha.model.top_cell import TopCell
from pangu_alpha.parallel.context import set_single_device_context

_LARGEST_BATCH = 8
"""Samples that one call computes; larger batches are cut, smaller ones padded to a power of two, so that few graphs
are compiled."""


@dataclass(frozen=True)
class TextScore:
    """How probable a text is."""

    log_probability: float
    """Natural logarithm, of all its tokens."""
    tokens: int
    """Its tokens."""
    characters: int
    """Its characters."""

    @property
    def perplexity(self) -> float:
        """exp of the mean negative log-probability of a token."""
        return math.exp(-self.log_probability / self.tokens)

    @property
    def bits_per_character(self) -> float:
        """Comparable between models whose vocabularies differ."""
        return -self.log_probability / math.log(2.0) / self.characters


class TokenScorer(TopCell):
    """Negative log-probability of every label: five int32 [B, S] -> float32 [B*S]."""

    def __init__(self, model: PanguAlphaModel, vocab_size: int) -> None:
        super().__init__(auto_prefix=False)
        self.model = model
        self.token_loss = TokenLoss(vocab_size)

    def construct(
        self, tokens: Tensor, positions: Tensor, query_positions: Tensor, segments: Tensor, labels: Tensor
    ) -> Tensor:
        """Tokens, positions, query positions, segments, labels -> float32 [B*S]."""
        return self.token_loss(self.model(tokens, positions, query_positions, segments), labels)


class PanguAlpha:
    """A trained model with its tokenizer, on one device.  Not for several threads at once.

    Attributes:
        config: the configuration of its training run.
        tokenizer: text to ids and back.
        device: cpu, gpu or ascend.
        checkpoint: where it came from.
    """

    def __init__(self, checkpoint: Checkpoint, tokenizer: Tokenizer, device: str = "auto") -> None:
        """Build the model that `checkpoint` describes and fill it; `PanguAlpha.load` is the usual way."""
        self.checkpoint, self.tokenizer = checkpoint, tokenizer
        self.config: Config = saved_config(checkpoint)
        self.device = set_single_device_context(device)
        self._numerics = resolve_numerics(self.config.model, self.device)
        self._model = PanguAlphaModel(self.config.model, self._numerics)
        self._model.set_train(False)
        fill_parameters(list(self._model.get_parameters()), checkpoint, self.config, exact=False)
        self._cached: CachedDecoder | None = None
        self._scorer = TokenScorer(self._model, self.config.model.vocab_size)

    @classmethod
    def load(cls, directory: str | Path | None = None, device: str = "auto") -> PanguAlpha:
        """Load a trained model.

        Args:
            directory: a run directory (its newest good checkpoint is taken), a checkpoint directory, or None: the
                newest run below runs/.
            device: cpu, gpu, ascend, or auto: the best that MindSpore supports here.

        Raises:
            PanguError: nothing is there, or it is damaged: one line.
        """
        checkpoint = find_checkpoint(directory)
        return cls(checkpoint, Tokenizer.load(find_tokenizer(checkpoint)), device)

    def logits(
        self,
        tokens: np.ndarray | Sequence[Sequence[int]],
        positions: np.ndarray | Sequence[Sequence[int]] | None = None,
        query_positions: np.ndarray | Sequence[Sequence[int]] | None = None,
        segments: np.ndarray | Sequence[Sequence[int]] | None = None,
    ) -> np.ndarray:
        """What the model answers at every step.

        Args:
            tokens: ids int [batch, seq], in order of entry; seq up to model.seq_length.
            positions: each token's position; None means 0, 1, 2 … (sequential order).
            query_positions: the position asked for at each step, minus one; None means `positions`, which asks for
                the token after each one.
            segments: the document that each token belongs to; a token sees only its own.  None: one document.

        Returns:
            float32 [batch, seq, vocabulary].

        Raises:
            UsageError: a wrong shape, type or value: one line.
        """
        config = self.config.model
        arrays = self._check_arrays(tokens, positions, query_positions, segments)
        batch, seq = arrays[0].shape
        result = np.empty((batch, seq, config.vocab_size), np.float32)
        for start, padded in self._batches(arrays):
            logits = run_graph(self._model, padded)
            logits = logits.reshape(padded.shape[1], config.seq_length, config.vocab_size)
            result[start : start + padded.shape[1]] = logits[: batch - start, :seq]
        return result

    def _check_arrays(
        self,
        tokens: np.ndarray | Sequence[Sequence[int]],
        positions: np.ndarray | Sequence[Sequence[int]] | None,
        query_positions: np.ndarray | Sequence[Sequence[int]] | None,
        segments: np.ndarray | Sequence[Sequence[int]] | None,
    ) -> np.ndarray:
        """int32 [4, batch, seq], every value within its table."""
        config = self.config.model
        first = _integers("tokens", tokens, None, config.vocab_size)
        seq = first.shape[1]
        if seq > config.seq_length:
            raise UsageError(f"tokens has {seq} steps; the model sees at most {config.seq_length}")
        if positions is None:
            positions = np.broadcast_to(np.arange(seq), first.shape)
        own = _integers("positions", positions, first.shape, config.seq_length)
        asked = own
        if query_positions is not None:
            asked = _integers("query_positions", query_positions, first.shape, config.seq_length)
        document = np.zeros_like(first)
        if segments is not None:
            document = _integers("segments", segments, first.shape, None)
        return np.stack([first, own, asked, document])

    def _batches(self, arrays: np.ndarray) -> list[tuple[int, np.ndarray]]:
        """int32 [k, batch, seq] in parts [k, b, seq_length], b a power of two; later steps and samples are padding."""
        count, batch, seq = arrays.shape
        parts = []
        for start in range(0, batch, _LARGEST_BATCH):
            some = arrays[:, start : start + _LARGEST_BATCH]
            size = 1 << (some.shape[1] - 1).bit_length()
            padded = np.zeros((count, size, self.config.model.seq_length), np.int32)
            padded[0] = PAD
            padded[:, : some.shape[1], :seq] = some
            parts.append((start, padded))
        return parts

    def decoder(self, use_cache: bool = True) -> Decoder:
        """What generation feeds: with the key/value cache, or without (slow, for comparison)."""
        if not use_cache:
            return FullDecoder(self._model, self.config.model)
        if self._cached is None:
            self._cached = CachedDecoder(self._model, self.config.model, self._numerics)
        return self._cached

    def stream(
        self,
        prompt: str,
        max_new_tokens: int = 100,
        temperature: float = 0.8,
        top_k: int = 0,
        top_p: float = 0.9,
        seed: int | None = None,
        stop: str | Sequence[str] = (),
        use_cache: bool = True,
    ) -> TextStream:
        """Continue `prompt`, piece by piece: an iterator over text, whole characters only.

        The text ends at the end token, at `max_new_tokens`, or before one of the `stop` texts.  Its attributes
        `finish_reason`, `tokens`, `log_probabilities` and `seed` tell the rest.  One stream at a time: a new one
        takes the cache.

        Args:
            prompt: any text; an empty one lets the model begin a document.
            max_new_tokens: most tokens written; beyond model.seq_length the last half of the text stays in view.
            temperature: 0 is greedy.
            top_k: 0 takes all tokens.
            top_p: 1 takes all tokens.
            seed: the same seed gives the same text.
            stop: one text or several.
            use_cache: False computes every token from the whole text.

        Raises:
            UsageError: a value out of its range.
        """
        require_text("prompt", prompt)
        stops = tuple(stop) if isinstance(stop, Iterable) and not isinstance(stop, str) else (stop,)
        options = GenerationOptions(max_new_tokens, Sampling(temperature, top_k, top_p), seed, stops)
        tokens = TokenStream(self.decoder(use_cache), self.tokenizer.encode(prompt), self.tokenizer.vocab_size, options)
        return TextStream(tokens, self.tokenizer, stops)

    def generate(
        self,
        prompt: str,
        max_new_tokens: int = 100,
        temperature: float = 0.8,
        top_k: int = 0,
        top_p: float = 0.9,
        seed: int | None = None,
        stop: str | Sequence[str] = (),
        use_cache: bool = True,
    ) -> str:
        """The text that continues `prompt`, without the prompt; see `stream` for the arguments."""
        return "".join(self.stream(prompt, max_new_tokens, temperature, top_k, top_p, seed, stop, use_cache))

    def infill(
        self, text: str, lengths: int | Sequence[int] = 1, number: int = 5, use_cache: bool = True
    ) -> list[Filling]:
        """Fill each [MASK] of `text`, given both sides; see `inference.infill`.

        Args:
            text: such as 今天[MASK]天气; each [MASK] is one token.
            lengths: tokens tried for a single [MASK], such as range(1, 5); the lengths are ranked by probability.
            number: candidates given back, the best first.
            use_cache: False computes every step from the whole text.

        Raises:
            UsageError: the text has no mask, begins with one, or the model has no query layer.
        """
        if not self.config.model.query_layer:
            raise UsageError(
                "this model has no query layer (model.query_layer: false), so it cannot be asked for a chosen "
                "position; infilling needs one"
            )
        tried = tuple(lengths) if isinstance(lengths, Iterable) else (lengths,)
        return infill(self.decoder(use_cache), self.tokenizer, text, tried, number)

    def score(self, text: str) -> TextScore:
        """How probable `text` is, each token given those before it.

        The first token is asked for the way training does at a document's border, so every token counts.  A text
        longer than model.seq_length is read in windows that overlap by half; each token is counted once, in the
        first window that holds it, and positions restart in each window, as they do where training cuts a document.

        Raises:
            UsageError: the text has no tokens.
        """
        require_text("text", text)
        ids = self.tokenizer.encode(text)
        if not ids:
            raise UsageError(f"the text {text[:20]!r} has no tokens; there is nothing to score")
        windows, counted = score_windows(ids, self.config)
        total = 0.0
        for start, padded in self._batches(windows):
            losses = run_graph(self._scorer, padded)
            losses = losses.reshape(padded.shape[1], -1)[: len(counted) - start, : counted.shape[1]]
            total -= float(losses[counted[start : start + padded.shape[1]]].sum(dtype=np.float64))
        return TextScore(total, len(ids), len(text))

    def perplexity(self, text: str) -> float:
        """exp of the mean negative log-probability of a token of `text`; see `score`."""
        return self.score(text).perplexity


def score_windows(ids: Sequence[int], config: Config) -> tuple[np.ndarray, np.ndarray]:
    """A text as samples in the form of training.

    The first window begins with the end token of another document, whose border step asks for the text's first token.

    Returns:
        int32 [5, windows, seq]: tokens, positions, query positions, segments, labels; and bool [windows, seq], which
        labels are counted: each token of the text once.
    """
    size = config.model.seq_length
    stream = np.array([END_OF_TEXT, *ids], np.int32)
    asked = len(stream) - 1
    width = min(size, asked)
    starts = [*range(0, asked - width, max(1, size // 2)), asked - width]
    samples = np.stack([stream[start : start + width + 1] for start in starts])
    counted = np.zeros((len(starts), width), bool)
    done = 0
    for row, start in enumerate(starts):
        counted[row, done - start :] = True
        done = start + width
    batch = arrange_sequentially(samples, config.data.reset_positions, config.data.reset_attention)
    return np.stack(batch), counted


def _integers(
    name: str, values: np.ndarray | Sequence[Sequence[int]], shape: tuple[int, ...] | None, limit: int | None
) -> np.ndarray:
    """`values` as int32 [batch, seq], each in [0, limit)."""
    try:
        array = np.asarray(values)
    except ValueError:
        raise UsageError(f"{name} has rows of different lengths; pad them to one length") from None
    if array.dtype.kind not in "iu" or array.ndim != 2 or array.size == 0:
        raise UsageError(f"{name} is {array.dtype} {list(array.shape)}; it must be integers [batch, seq], at least one")
    if shape is not None and array.shape != shape:
        raise UsageError(f"{name} has shape {list(array.shape)}; tokens has {list(shape)}, and they must be equal")
    if array.min() < 0 or (limit is not None and array.max() >= limit):
        bad = int(array.min()) if array.min() < 0 else int(array.max())
        allowed = "it must be 0 or more" if limit is None else f"it must lie in 0 to {limit - 1}"
        raise UsageError(f"{name} holds {bad}; {allowed}")
    return array.astype(np.int32)


def load(directory: str | Path | None = None, device: str = "auto") -> PanguAlpha:
    """Load a trained model; the same as `PanguAlpha.load`."""
    return PanguAlpha.load(directory, device)
