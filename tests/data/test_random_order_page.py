"""The page docs/random-order.md shows what its code prints."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path


def test_the_example_prints_what_the_page_shows(repository: Path) -> None:
    page = (repository / "docs" / "random-order.md").read_text(encoding="utf-8")
    match = re.search(r"```python\n(.*?)```\n\n```\n(.*?)```", page, re.DOTALL)
    assert match is not None
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(match[1], {})
    assert printed.getvalue() == match[2]
    assert "permuted: π = [0, 1, 2, 3, 6, 7, 5, 4, 8]" in match[2]
