"""Text to ids and back: the published PanGu-α tokenizer.

Encoding: cut the text into words (jieba), write a space as ▂ and a line end as ▃, put one space between words, and
let the sentencepiece unigram model find the pieces of each word.  Decoding: join the pieces, delete spaces, ▂ is a
space again and ▃ a line end.  (Official file `tokenization_jieba.py`.)

The ids of control tokens only ever come from code: a text that spells `<eot>` is cut at its `<`, so that no word,
and therefore no piece, is a control token.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pangu_alpha.data.segmentation import Segmenter, load_segmenter
from pangu_alpha.errors import PanguError
from pangu_alpha.files import atomic_write, storage_error

UNKNOWN = 0
"""Stands for characters that the vocabulary does not have; decoded as ⁇."""
LINE_END = 3
"""▃, a line end of the text."""
SPACE = 4
"""▂, a space of the text."""
SEPARATOR = 5
PAD = 6
"""Fills samples up; masked in the loss."""
MASK = 7
END_OF_DOCUMENT_PLAIN = 8
"""`<eod>`: in the vocabulary, unused by the released weights."""
END_OF_TEXT = 9
"""`<eot>`: ends each document of the released weights' training text, and generation."""

FIRST_PIECES = ("<unk>", "<s>", "</s>", "▃", "▂", "<sep>", "<pad>", "<mask>", "<eod>", "<eot>")
"""Pieces 0 to 9 of the published vocabulary; every vocabulary of this project begins with them."""

_WORD_BORDER = "▁"  # sentencepiece's mark of a space, U+2581
_TO_PIECES = str.maketrans(" \n", "▂▃")
_FROM_PIECES = str.maketrans({" ": None, _WORD_BORDER: None, "▂": " ", "▃": "\n"})
_SURROGATE = re.compile("[\ud800-\udfff]")
_UNKNOWN_TEXT = "⁇"


@dataclass(frozen=True)
class AlignedPiece:
    """One piece of an encoded text and the characters it was made of."""

    id: int | None
    """Its id; None for characters that the tokenizer drops (tab, carriage return, byte order mark …)."""
    piece: str
    """As the vocabulary spells it; empty for dropped characters."""
    start: int
    """Index of its first character in the text."""
    end: int
    """Index after its last character; equals start for a word border that stands for no character."""


class Tokenizer:
    """The published recipe over one vocabulary.

    Made with `Tokenizer.load`.  An instance holds no open file, may be used by many threads, and can be pickled for
    other processes.
    """

    UNKNOWN = UNKNOWN
    LINE_END = LINE_END
    SPACE = SPACE
    SEPARATOR = SEPARATOR
    PAD = PAD
    MASK = MASK
    END_OF_DOCUMENT_PLAIN = END_OF_DOCUMENT_PLAIN
    END_OF_TEXT = END_OF_TEXT

    def __init__(self, model: bytes, name: str = "vocabulary") -> None:
        """Read a vocabulary from the bytes of a sentencepiece model; errors call it `name`."""
        self._model = model
        self._name = name
        self._processor = _load_processor(model, name)
        self._pieces = [self._processor.id_to_piece(index) for index in range(self._processor.vocab_size())]
        _check_first_pieces(self._pieces, name)
        self._segmenter: Segmenter = load_segmenter()
        self._bytes = {
            index: int(piece[3:5], 16) for index, piece in enumerate(self._pieces) if self._processor.is_byte(index)
        }
        self._texts = [piece.translate(_FROM_PIECES) for piece in self._pieces]
        self._texts[UNKNOWN] = _UNKNOWN_TEXT
        self._texts[1] = self._texts[2] = ""

    @classmethod
    def load(cls, path: str | Path) -> Tokenizer:
        """The tokenizer of a vocabulary file.

        Args:
            path: a sentencepiece model whose first ten pieces are those of the published one.

        Raises:
            PanguError: the file is missing, or is no such model.
        """
        path = Path(path)
        try:
            model = path.read_bytes()
        except FileNotFoundError:
            raise PanguError(
                f"{path}: there is no such vocabulary file; `pangu-alpha tokenizer official` fetches the "
                "published one, `pangu-alpha tokenizer train` makes a new one"
            ) from None
        except OSError as error:
            raise storage_error(error, path, "read") from error
        return cls(model, str(path))

    def __reduce__(self) -> tuple[type[Tokenizer], tuple[bytes, str]]:
        return type(self), (self._model, self._name)

    def save(self, path: str | Path) -> None:
        """Write the vocabulary to `path`, whole or not at all."""
        with atomic_write(path) as file:
            file.write(self._model)

    @property
    def vocab_size(self) -> int:
        """Number of pieces."""
        return len(self._pieces)

    @property
    def sha256(self) -> str:
        """Checksum of the vocabulary file, as hexadecimal digits."""
        return hashlib.sha256(self._model).hexdigest()

    def piece(self, index: int) -> str:
        """The piece with this id as the vocabulary spells it, ▁ for the border before a word."""
        self._check(index)
        return self._pieces[index]

    def encode(self, text: str) -> list[int]:
        """The ids of `text`; nothing is added, and no control token (0, 1, 2 aside from unknown, 5 to 9) comes of it.

        Characters that UTF-8 cannot hold (halves of a surrogate pair) count as U+FFFD.
        """
        ids: list[int] = self._processor.encode(self._spaced_words(text))
        return ids

    def encode_batch(self, texts: Iterable[str]) -> list[list[int]]:
        """The ids of each text, the same as of one call a text."""
        spaced = [self._spaced_words(text) for text in texts]
        ids: list[list[int]] = self._processor.encode(spaced, num_threads=1)
        return ids

    def _spaced_words(self, text: str) -> str:
        r"""What sentencepiece gets: spaces and line ends marked, words with one space between.

        The recipe marks after cutting.  Before is faster and gives the same: jieba makes each space, line end, ▂ and
        ▃ a word of its own; only "\r\n" is one word there and two here, and sentencepiece drops the "\r" of both.
        """
        marked = _SURROGATE.sub("\ufffd", text).replace(" ", "▂").replace("\n", "▃")
        return " ".join(self._segmenter.words(marked))

    def decode(self, ids: Iterable[int], skip_control: bool = False) -> str:
        """The text of `ids`.

        As published, ids 5 to 9 give their literal names (`<eot>` …), 0 gives ⁇, 1 and 2 nothing.

        Args:
            ids: any sequence of integers.
            skip_control: leave ids 5 to 9 out.

        Raises:
            PanguError: an id lies outside the vocabulary.
        """
        decoder = StreamDecoder(self, skip_control)
        return "".join(map(decoder.push, ids)) + decoder.finish()

    def align(self, text: str) -> list[AlignedPiece]:
        """The pieces of `text` in order, each with the characters that it stands for; dropped characters too."""
        aligned: list[AlignedPiece] = []
        position = 0
        for word in self._segmenter.words(text):
            aligned += self._align_word(word, position)
            position += len(word)
        return aligned

    def _align_word(self, word: str, offset: int) -> Iterator[AlignedPiece]:
        translated = _SURROGATE.sub("\ufffd", word.translate(_TO_PIECES))
        pieces = self._processor.encode(translated, out_type=str)
        ids = self._processor.encode(translated)
        if not pieces:
            yield AlignedPiece(None, "", offset, offset + len(word))
            return
        if "".join(pieces).replace(_WORD_BORDER, "") == translated:  # nothing is normalised: each stands for itself
            start = offset
            for piece, index in zip(pieces, ids, strict=True):
                end = start + len(piece.replace(_WORD_BORDER, ""))
                yield AlignedPiece(index, piece, start, end)
                start = end
            return
        # reached[k]: characters of the pieces (borders aside) that the first k characters of the word make.
        reached = [
            len("".join(self._processor.encode(translated[:length], out_type=str)).replace(_WORD_BORDER, ""))
            for length in range(len(word) + 1)
        ]
        made = consumed = 0
        for number, (piece, index) in enumerate(zip(pieces, ids, strict=True)):
            made += len(piece.replace(_WORD_BORDER, ""))
            start = consumed
            while consumed < len(word) and (reached[consumed] < made or number == len(pieces) - 1):
                consumed += 1
            yield AlignedPiece(index, piece, offset + start, offset + consumed)

    def _check(self, index: int) -> None:
        if not 0 <= index < len(self._pieces):
            raise PanguError(
                f"{self._name}: there is no piece with id {index}; ids run from 0 to {len(self._pieces) - 1}"
            )


class StreamDecoder:
    """Text from ids that come one at a time, each character as soon as nothing can change it any more.

    What `push` gave, joined, and `finish` at the end, is `decode` of all ids: no character is ever broken or taken
    back.  The published vocabulary has no pieces below a character, so that every id's text is final at once; with a
    vocabulary that has byte pieces, bytes wait until they are a character.
    """

    def __init__(self, tokenizer: Tokenizer, skip_control: bool = False) -> None:
        self._tokenizer = tokenizer
        self._skip_control = skip_control
        self._waiting = b""

    def push(self, index: int) -> str:
        """The text that the next id makes final."""
        tokenizer = self._tokenizer
        tokenizer._check(index)
        if index in tokenizer._bytes:
            self._waiting += bytes([tokenizer._bytes[index]])
            return self._take_characters(final=False)
        text = self.finish() if self._waiting else ""
        if self._skip_control and SEPARATOR <= index <= END_OF_TEXT:
            return text
        return text + tokenizer._texts[index]

    def finish(self) -> str:
        """The text that was still waiting for a next id: bytes that never became a character, as U+FFFD."""
        return self._take_characters(final=True)

    def _take_characters(self, final: bool) -> str:
        text = ""
        while self._waiting:
            character, size = _first_character(self._waiting)
            if size == 0 and not final:
                break
            text += character
            self._waiting = self._waiting[max(size, 1) :]
        return text.translate(_FROM_PIECES)


def _first_character(data: bytes) -> tuple[str, int]:
    """First UTF-8 character of `data` and its size; U+FFFD with size 1 for a wrong byte, 0 for a begun character."""
    for size in range(1, min(4, len(data)) + 1):
        try:
            return data[:size].decode("utf-8"), size
        except UnicodeDecodeError as error:
            if error.reason != "unexpected end of data":
                return "\ufffd", 1
    return "\ufffd", 0


def _load_processor(model: bytes, name: str) -> Any:
    import sentencepiece

    processor = sentencepiece.SentencePieceProcessor()
    try:
        # An empty file is a valid protocol buffer, and sentencepiece then answers every question with a message on
        # stderr; so is a text that happens to parse.
        if not model or not processor.LoadFromSerializedProto(model) or processor.vocab_size() == 0:
            raise ValueError
    except Exception:  # its classes differ between versions of sentencepiece
        raise PanguError(
            f"{name}: this is not a sentencepiece model ({len(model)} bytes); a vocabulary is the file "
            "vocab.model that `pangu-alpha tokenizer official` or `tokenizer train` makes"
        ) from None
    return processor


def _check_first_pieces(pieces: list[str], name: str) -> None:
    for index, expected in enumerate(FIRST_PIECES):
        found = repr(pieces[index]) if index < len(pieces) else "missing"
        if found != repr(expected):
            raise PanguError(
                f"{name}: piece {index} is {found}, but it must be {expected!r}; PanGu-α's control tokens "
                f"stand at ids 0 to {len(FIRST_PIECES) - 1}: {' '.join(FIRST_PIECES)}"
            )
