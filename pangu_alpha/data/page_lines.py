"""How well menus and advertisements are told from text, measured on pages of which each line is labelled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from pangu_alpha.data.cleaning.advertisements import Advertisements
from pangu_alpha.data.cleaning.navigation import Navigation
from pangu_alpha.data.demo_pages import ADVERTISEMENT, MENU, TEXT, PageLine, demo_page
from pangu_alpha.data.document import Document, to_batch
from pangu_alpha.data.lines import Lines


@dataclass(frozen=True)
class LineShares:
    """What became of the lines of some pages."""

    menu_left: float
    """Share of the lines of menus that are still there."""
    advertisements_left: float
    """Share of the lines that sell which are still there."""
    text_lost: float
    """Share of the lines of text that are gone."""
    lines: int


def measure_lines(pages: Sequence[Sequence[PageLine]]) -> LineShares:
    """Apply `navigation` and `advertisements`, as they are by default, to the lines of some pages.

    Args:
        pages: each page's lines and what they are.
    """
    gone: dict[str, int] = dict.fromkeys((MENU, ADVERTISEMENT, TEXT), 0)
    count = dict(gone)
    texts = pa.array(["\n".join(line.text for line in page) for page in pages], pa.large_string())
    menus = Navigation().menu_lines(Lines.of(texts))
    place = 0
    for number, page in enumerate(pages):
        left = [line for line, is_menu in zip(page, menus[place : place + len(page)], strict=True) if not is_menu]
        place += len(page)
        batch = to_batch([Document("page", "\n".join(line.text for line in left), str(number))])
        sold = set(Advertisements(most=1.0).apply(batch).removed["piece"].to_pylist())
        stays = [line for line in left if line.text not in sold]
        for kind in count:
            total = sum(line.kind == kind for line in page)
            count[kind] += total
            gone[kind] += total - sum(line.kind == kind for line in stays)
    share = {kind: gone[kind] / max(1, count[kind]) for kind in count}
    return LineShares(1 - share[MENU], 1 - share[ADVERTISEMENT], share[TEXT], sum(count.values()))


def measure_demo_pages(pages: int = 100) -> LineShares:
    """The shares on pages that are made up (`demo_pages`)."""
    return measure_lines([demo_page(number)[1] for number in range(pages)])
