"""Records cut out of files of every kind, and what is made of them."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import zlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from pangu_alpha.data.document import Document
from pangu_alpha.data.factory import FACTORY_KINDS
from pangu_alpha.data.readers import find_files, streams
from pangu_alpha.data.readers.records import BrokenRecord, ReaderSettings, documents_of, split
from pangu_alpha.errors import PanguError

SETTINGS = ReaderSettings()
PAGE = "<html><head><title>柳树</title><meta charset='{}'></head><body><p>河边种了柳树。</p><script>x</script></html>"


def read(path: Path, **settings) -> list[Document | BrokenRecord]:
    own = ReaderSettings(**settings)
    (file,) = find_files((str(path),), "sources.甲.paths", FACTORY_KINDS)
    return [found for raw in split(file, own) for found in documents_of(file, "甲", path.name, own, raw)]


def texts(path: Path, **settings) -> list[str]:
    return [found.text for found in read(path, **settings) if isinstance(found, Document)]


def warc_of(pages: list[tuple[str, bytes, str]]) -> bytes:
    whole = b""
    for url, content, header in pages:
        header = f"Content-Type: {header}\r\n" if header else ""
        answer = f"HTTP/1.1 200 OK\r\n{header}\r\n".encode() + content
        whole += (
            (
                "WARC/1.0\r\nWARC-Type: response\r\nWARC-Record-ID: <urn:uuid:00000000-0000-0000-0000-000000000000>\r\n"
                f"WARC-Date: 2021-04-26T00:00:00Z\r\nWARC-Target-URI: {url}\r\n"
                f"Content-Type: application/http; msgtype=response\r\nContent-Length: {len(answer)}\r\n\r\n"
            ).encode()
            + answer
            + b"\r\n\r\n"
        )
    return whole


def test_documents_of_text_files(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("序\n\n第一回 甲\n正文一。\n\n第二回 乙\n正文二。\n", encoding="utf-8")
    assert texts(path) == ["序", "第一回 甲\n正文一。", "第二回 乙\n正文二。"]
    assert texts(path, documents="line") == ["序", "第一回 甲", "正文一。", "第二回 乙", "正文二。"]
    assert texts(path, documents="chapter") == ["序", "第一回 甲\n正文一。", "第二回 乙\n正文二。"]
    assert texts(path, documents="file") == ["序\n\n第一回 甲\n正文一。\n\n第二回 乙\n正文二。"]
    first = read(path)[0]
    assert isinstance(first, Document) and (first.source, first.id) == ("甲", "甲/a.txt#000000000")


def test_a_long_document_is_cut_at_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("\n".join(f"{number:04d}" + "字" * 20 for number in range(100)), encoding="utf-8")
    for documents in ("file", "blank_line"):
        found = read(path, documents=documents, longest_document=500)
        assert all(len(document.text) <= 500 for document in found) and len(found) > 4
        assert "\n".join(document.text.strip("\n") for document in found) == path.read_text(encoding="utf-8")
        assert len({document.id for document in found}) == len(found)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "gbk", "gb18030", "big5"])
def test_encodings_are_found(tmp_path: Path, encoding: str) -> None:
    text = "這是一個測試文件，內容為常用的漢字。" if encoding == "big5" else "这是一个测试文件，内容为常用的汉字。"
    path = tmp_path / "a.txt"
    path.write_bytes((text + "\n\n" + text).encode(encoding))
    assert texts(path) == [text, text]
    lines = tmp_path / "a.jsonl"
    lines.write_bytes(json.dumps({"text": text}, ensure_ascii=False).encode(encoding))
    assert texts(lines) == [text]


@pytest.mark.parametrize(
    ("suffix", "compress"),
    [(".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress), (".zst", zstandard.compress)],
)
def test_compressed_files(tmp_path: Path, suffix: str, compress) -> None:
    path = tmp_path / f"a.txt{suffix}"
    whole = compress("甲\n\n乙".encode())
    path.write_bytes(whole)
    assert texts(path) == ["甲", "乙"]
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(PanguError, match="is damaged or cut short"):
        texts(path)


def test_a_broken_line_costs_itself(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(
        '{"content": "好"}\n{"text"\n[1]\n{"text": null}\n{"text": "再\\ud83d"}\n'.encode() + b'{"text": "\xff"}\n'
    )
    found = read(path)
    assert [item.text for item in found if isinstance(item, Document)] == ["好", "再?", "\ufffd"]
    broken = [item for item in found if isinstance(item, BrokenRecord)]
    assert [item.place for item in broken] == ["甲/a.jsonl#000000001", "甲/a.jsonl#000000002"]
    assert broken[0].reason.startswith("is not JSON") and broken[1].reason.startswith("holds a list")


def test_parquet(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"content": ["甲", None, "乙"], "n": [1, 2, 3]}), path)
    assert texts(path) == ["甲", "乙"]


@pytest.mark.parametrize("encoding", ["utf-8", "gb2312", "big5"])
def test_html(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "a.html"
    page = (
        PAGE.format(encoding)
        .replace("种", "種" if encoding == "big5" else "种")
        .replace("树", "樹" if encoding == "big5" else "树")
        .replace("边", "邊" if encoding == "big5" else "边")
    )
    path.write_bytes(page.encode(encoding))
    (document,) = read(path)
    assert document.title in ("柳树", "柳樹") and document.text.startswith("河") and "script" not in document.text


def test_web_archives(tmp_path: Path) -> None:
    path = tmp_path / "a.warc.gz"
    pages = [
        ("https://a.example/1", PAGE.format("utf-8").encode(), "text/html; charset=utf-8"),
        ("https://a.example/2", PAGE.format("gbk").encode("gbk"), "text/html"),
        ("https://a.example/3.png", b"\x89PNG", "image/png"),
    ]
    path.write_bytes(gzip.compress(warc_of(pages)))
    found = read(path)
    assert [(item.url, item.title, item.text) for item in found] == [
        (f"https://a.example/{number}", "柳树", "河边种了柳树。") for number in (1, 2)
    ]
    assert found[1].id == "甲/a.warc.gz#000000001"
    (tmp_path / "b.warc").write_text("no archive at all", encoding="utf-8")
    with pytest.raises(PanguError, match="b.warc is no web archive"):
        read(tmp_path / "b.warc")


def in_pieces(content: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (content[:10], content[10:])) + b"0\r\n\r\n"


CHUNKED, GZIP = "\r\nTransfer-Encoding: chunked", "\r\nContent-Encoding: gzip"
MARKUP = "<html><body><p>河边种了柳树。</p></body></html>"


@pytest.mark.parametrize(
    ("content", "header"),
    [
        (gzip.compress(MARKUP.encode()), f"text/html{GZIP}"),
        (zlib.compress(MARKUP.encode())[2:-4], "text/html\r\nContent-Encoding: deflate"),
        (in_pieces(MARKUP.encode()), f"text/html{CHUNKED}"),
        (
            in_pieces(gzip.compress(MARKUP.encode())),
            "text/html\r\nTransfer-Encoding: chunked\r\nContent-Encoding: gzip",
        ),
        (
            MARKUP.encode(),
            "text/html\r\nTransfer-Encoding: chunked\r\nContent-Encoding: gzip",
        ),  # unpacked by who kept it
        (MARKUP.encode("gbk"), "text/html; charset=iso-8859-1"),
        (MARKUP.replace("<body>", "<meta charset=gb2312>").encode("gbk"), "text/html; charset=utf-8"),
        (MARKUP.encode(), "text/html; charset=gb2312"),
        (MARKUP.encode("gbk"), "text/html"),
        (MARKUP.encode("utf-16"), "text/html"),
        (MARKUP.encode(), ""),
        ("河边种了柳树。".encode("gbk"), "text/plain; charset=gbk"),
    ],
)
def test_pages_as_servers_send_them(tmp_path: Path, content: bytes, header: str) -> None:
    path = tmp_path / "a.warc"
    plain = ("https://a.example/2", MARKUP.encode(), "text/html; charset=utf-8")
    path.write_bytes(warc_of([("https://a.example/1", content, header), plain]))
    assert texts(path) == ["河边种了柳树。"] * 2


def test_a_broken_page_costs_itself_and_a_cut_archive_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.warc"
    packed = gzip.compress(MARKUP.encode())
    broken = ("https://a.example/1", packed[:30] + b"zz" + packed[32:], f"text/html{GZIP}")
    whole = warc_of([broken, ("https://a.example/2", MARKUP.encode(), "text/html")])
    path.write_bytes(whole)
    first, second = read(path)
    assert isinstance(first, BrokenRecord) and first.reason.startswith("its gzip content is damaged (")
    assert isinstance(second, Document) and second.text == "河边种了柳树。"
    path.write_bytes(whole[:-30])
    with pytest.raises(PanguError, match="a.warc is damaged or cut short"):
        read(path)


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_without_a_mark(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("第一篇 abc。\n\n第二篇。\n".encode(encoding))
    assert texts(path) == ["第一篇 abc。", "第二篇。"]


def test_text_named_bz2_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "a.txt.bz2"
    path.write_bytes(b"no compressed file" * 10)
    with pytest.raises(PanguError, match="a.txt.bz2 is damaged or cut short"):
        texts(path)


def test_a_line_longer_than_memory_comes_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "LONGEST_LINE", 100)
    path = tmp_path / "a.txt"
    path.write_text("字" * 250 + "\n短", encoding="utf-8")
    assert texts(path, documents="line") == ["字" * 100, "字" * 100, "字" * 50, "短"]


@pytest.mark.parametrize("ends", ["", "\n"])
def test_forms_of_a_labelled_file(tmp_path: Path, ends: str) -> None:
    path = tmp_path / "a.json"
    records = [{"text": "一", "label": 1}, {"text": "二", "label": 0}]
    for whole in (
        "\n".join(map(json.dumps, records)),
        json.dumps(records),
        json.dumps(records, indent=1),
        json.dumps({"version": "1", "data": records}),
        "\n\n" + json.dumps({"data": records}, indent=1),
    ):
        path.write_text(whole + ends, encoding="utf-8")
        assert texts(path, fields=("text",)) == ["一", "二"], whole
    path.write_text(json.dumps(records[0]) + "\n{broken\n" + json.dumps(records[1]) + ends, encoding="utf-8")
    assert [isinstance(item, Document) for item in read(path, fields=("text",))] == [True, False, True]
    path.write_text("{broken\n" + json.dumps(records[1]) + ends, encoding="utf-8")
    assert [isinstance(item, Document) for item in read(path, fields=("text",))] == [False, True]


def test_labelled_sets_lose_their_labels(tmp_path: Path) -> None:
    squad = tmp_path / "squad.json"
    entry = {
        "context": "柳树种在河边。",
        "qas": [{"question": "种在哪里？", "answers": [{"text": "河边", "answer_start": 4}]}],
    }
    squad.write_text(json.dumps({"data": [{"paragraphs": [entry]}]}), encoding="utf-8")
    assert texts(squad, form="squad") == ["柳树种在河边。\n问：种在哪里？\n答：河边"]
    news = tmp_path / "news.json"
    news.write_text('{"sentence": "柳树发芽", "label": "100"}\n{"label": "1"}\n', encoding="utf-8")
    found = read(news, fields=("sentence",))
    assert found[0].text == "柳树发芽" and "none of the fields sentence holds text; fields: label" in found[1].reason
    deep = tmp_path / "deep.json"
    deep.write_text(
        json.dumps([{"passage": ["一", "二"], "questions": [{"q": "三", "answer": "四"}]}]), encoding="utf-8"
    )
    assert texts(deep, fields=("passage", "questions.q")) == ["一\n二\n三"]


def test_labelled_sets_in_their_published_forms(shared_data: Path) -> None:
    tasks = shared_data / "tasks"
    squad = texts(tasks / "cmrc2018" / "trial.json", form="squad")
    assert len(squad) > 200 and all("\n问：" in text and "\n答：" in text for text in squad[:20])
    pairs = texts(tasks / "ocnli" / "dev.json", fields=("sentence1", "sentence2"))
    assert len(pairs) == 3000 and "entailment" not in "".join(pairs)
