"""A table of a page: rows of text, written as Markdown or as HTML."""

import html
from typing import NamedTuple

LONG = 60
"""Rows from which on a table is folded up in HTML."""


class Table(NamedTuple):
    """A heading, the names of the columns, and cells as they are shown."""

    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def markdown(self) -> str:
        """A table of GitHub's Markdown under its title in bold."""
        lines = [self.headings, ("---",) * len(self.headings), *self.rows]
        table = "\n".join(f"| {' | '.join(cell.replace('|', '&#124;') for cell in line)} |" for line in lines)
        return f"**{self.title}**\n\n{table}\n"

    def html(self) -> str:
        """A table element; long ones are folded up."""
        heading = "".join(f"<th>{html.escape(cell)}</th>" for cell in self.headings)
        rows = "\n".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in self.rows)
        table = f"<table>\n<thead><tr>{heading}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table>"
        title = html.escape(self.title)
        if len(self.rows) > LONG:
            return f"<details>\n<summary>{title} ({len(self.rows)} rows)</summary>\n{table}\n</details>"
        return f"<h3>{title}</h3>\n{table}"
