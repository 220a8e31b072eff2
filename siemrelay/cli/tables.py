"""Tables: drawn on a terminal, aligned columns in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from siemrelay.formats.writing.text import sanitize_for_display


def print_table(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows under their headings; control characters are shown as visible symbols."""
    clean = [[sanitize_for_display(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        _draw(title, headings, clean)
        return
    if title:
        click.echo(title)
    lines = [list(headings), *clean]
    widths = [max(len(line[i]) for line in lines) for i in range(len(headings) - 1)]
    for line in lines:
        cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=False)]
        click.echo("  ".join([*cells, line[-1]]).rstrip())


def _draw(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    # Importing rich takes a tenth of a second, which a pipe need not pay.
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title or None, title_justify="left", header_style="bold")
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)
