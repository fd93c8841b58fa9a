"""Menus and advertisements told from text: on pages made up, and on real ones labelled line by line.

`labelled_pages.json` has for 100 real pages (50 of Debian's documentation, 50 of LibreOffice's help) a letter for each
line: m (menu), t (text), - (blank).  The labels come from the pages' own markup (lists of links, tables of contents,
headers and footers), which the rule never sees, and were looked through.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from pangu_alpha.data.demo_pages import MENU, TEXT, PageLine, demo_page
from pangu_alpha.data.document import Document, to_batch
from pangu_alpha.data.page_lines import measure_demo_pages, measure_lines
from pangu_alpha.data.readers import find_files
from pangu_alpha.data.readers.html import extract
from pangu_alpha.data.readers.records import ReaderSettings, documents_of, split
from pangu_alpha.data.rules import build_rule

LABELS = Path(__file__).with_name("labelled_pages.json")


def test_made_up_pages() -> None:
    shares = measure_demo_pages()
    print(shares)
    assert shares.menu_left <= 0.02 and shares.advertisements_left <= 0.02 and shares.text_lost <= 0.01
    assert shares.lines > 2000


def test_a_page_is_read_as_its_lines_say() -> None:
    html, lines = demo_page(7)
    title, _, text = extract(html.encode("gb18030"), "gb18030")
    assert title in [line.text for line in lines]
    read = build_rule("normalise", {}, "here").apply(to_batch([Document("a", text)])).kept["text"][0].as_py()
    assert [line.lstrip("• ") for line in read.split("\n") if line] == [line.text for line in lines]


def test_real_pages(shared_data: Path) -> None:
    labels = json.loads(LABELS.read_text(encoding="utf-8"))
    pages = []
    normalise = build_rule("normalise", {}, "here")
    settings = ReaderSettings()
    for file in find_files((str(shared_data / "corpus" / "web"),), "web", ("warc",)):
        for raw in split(file, settings):
            if raw.content.url not in labels:
                continue
            (document,) = documents_of(file, "web", file.path.name, settings, raw)
            text = normalise.apply(to_batch([document])).kept["text"][0].as_py()
            own = labels.pop(document.url)
            assert hashlib.sha256(text.encode()).hexdigest()[:16] == own["text"]  # else the labels are another text's
            kinds = {"m": MENU, "t": TEXT, "-": ""}
            pages.append(
                [PageLine(line, kinds[kind]) for line, kind in zip(text.split("\n"), own["labels"], strict=True)]
            )
    assert not labels and len(pages) == 100
    shares = measure_lines(pages)
    print(shares)
    assert shares.menu_left <= 0.06 and shares.text_lost <= 0.025
