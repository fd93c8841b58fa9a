"""The PanGu-α tokenizer for transformers: jieba cuts words, sentencepiece cuts them into pieces."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import jieba
import sentencepiece
from transformers import PreTrainedTokenizer

_MARKS = str.maketrans(" \n", "▂▃")
_TEXT = str.maketrans({" ": None, "▁": None, "▂": " ", "▃": "\n"})


class GPTPanguTokenizer(PreTrainedTokenizer):
    """The published recipe: a space is ▂ and a line end ▃ within words that are joined by spaces.

    Text that spells `<eot>` stays text (`split_special_tokens=True`); control tokens come from code alone.
    """

    vocab_files_names = {"vocab_file": "vocab.model"}
    model_input_names = ["input_ids", "attention_mask"]
    padding_side = "left"

    def __init__(self, vocab_file: str, **more: Any) -> None:
        self.vocab_file = vocab_file
        self.pieces = sentencepiece.SentencePieceProcessor(model_file=vocab_file)
        more.setdefault("unk_token", "<unk>")
        more.setdefault("eos_token", "<eot>")
        more.setdefault("bos_token", "<eot>")
        more.setdefault("pad_token", "<pad>")
        more.setdefault("split_special_tokens", True)
        super().__init__(**more)

    @property
    def vocab_size(self) -> int:
        """Pieces of the vocabulary."""
        return int(self.pieces.vocab_size())

    def get_vocab(self) -> dict[str, int]:
        """All pieces with their ids."""
        return {self.pieces.id_to_piece(index): index for index in range(self.vocab_size)}

    def _tokenize(self, text: str, **_: Any) -> list[str]:
        words = [word.translate(_MARKS) for word in jieba.cut(text)]
        result: list[str] = self.pieces.encode(" ".join(words), out_type=str)
        return result

    def _convert_token_to_id(self, token: str) -> int:
        return int(self.pieces.piece_to_id(token))

    def _convert_id_to_token(self, index: int) -> str:
        return str(self.pieces.id_to_piece(index))

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """The text of pieces."""
        return "".join("⁇" if token == "<unk>" else token for token in tokens).translate(_TEXT)

    def build_inputs_with_special_tokens(self, token_ids_0: list[int], token_ids_1: Any = None) -> list[int]:
        """Nothing is added to a text."""
        return token_ids_0 + (token_ids_1 or [])

    def save_vocabulary(self, save_directory: str, filename_prefix: str | None = None) -> tuple[str]:
        """Copy the vocabulary file."""
        place = Path(save_directory, f"{filename_prefix}-vocab.model" if filename_prefix else "vocab.model")
        if place.resolve() != Path(self.vocab_file).resolve():
            shutil.copyfile(self.vocab_file, place)
        return (str(place),)
