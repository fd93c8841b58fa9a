"""A dry run as one HTML page with its pictures inside; it loads nothing."""

from __future__ import annotations

from html import escape

from pangu_alpha.rehearsal.dry_run import DryRun
from pangu_alpha.rehearsal.memory import METHOD
from pangu_alpha.rehearsal.report import Table, headline, tables, verdict
from pangu_alpha.rehearsal.report_pictures import communication_matrix, memory_bars, stage_map

_STYLE = """
body { font: 15px/1.5 sans-serif; color: #222; background: #fff; max-width: 1100px; margin: 2em auto; padding: 0 1em }
h1 { font-size: 1.5em } h2 { font-size: 1.15em; margin: 1.8em 0 .5em }
svg { width: 100%; height: auto } .wide { overflow-x: auto }
table { border-collapse: collapse; font-size: 13px }
th, td { padding: .2em .7em; text-align: left; white-space: nowrap }
th { border-bottom: 2px solid #888 } td { border-bottom: 1px solid #ddd } .number { text-align: right }
pre { background: #f5f5f5; padding: .7em } p { max-width: 50em }
"""


def as_page(run: DryRun) -> str:
    """The page: findings, three pictures, every table."""
    compiled = ", ".join(str(rank.rank) for rank in run.ranks)
    parts = [
        f"<h1>Dry run of {escape(run.config.name)}</h1>",
        f"<p>{escape(headline(run))}. Compiled rank{'s' * (len(run.ranks) > 1)}: {compiled}.</p>",
        f"<pre>{escape(chr(10).join(verdict(run)))}</pre>",
        "<h2>Stages and ranks</h2>",
        stage_map(run),
        "<h2>Device memory</h2>",
        memory_bars(run.ranks),
        f"<p>{escape(METHOD)}</p>",
        "<h2>Who talks to whom</h2>",
        communication_matrix(run),
        *(_table(table) for table in tables(run, details=True)),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8"/>\n'
        f"<title>Dry run of {escape(run.config.name)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body>\n</html>\n"
    )


def _table(table: Table) -> str:
    def row(cells: list[str], tag: str) -> str:
        inner = "".join(
            f'<{tag} class="number">{escape(cell)}</{tag}>'
            if column in table.right
            else f"<{tag}>{escape(cell)}</{tag}>"
            for column, cell in enumerate(cells)
        )
        return f"<tr>{inner}</tr>"

    body = "\n".join(row(cells, "td") for cells in table.rows)
    return (
        f'<h2>{escape(table.title[:1].upper() + table.title[1:])}</h2>\n<div class="wide"><table>\n'
        f"{row(list(table.header), 'th')}\n{body}\n</table></div>"
    )
