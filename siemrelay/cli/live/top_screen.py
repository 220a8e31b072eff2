"""The screen of `siemrelay top`: a report and what the person chose → lines that fit the terminal.

Pure, so that every size of a terminal is a row of a test.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from textwrap import wrap
from typing import Any, Final

import msgspec
from rich.cells import cell_len, set_cell_size

from siemrelay.formats.writing.text import sanitize_for_display
from siemrelay.telemetry.status import RelayReport, SinkReport, SourceReport
from siemrelay.telemetry.status_text import TONES, Line, ago, lines, span

_BAD_FIRST: Final = ("failed", "holding", "waiting", "paused", "connecting", "up", "disabled")

SORTS: Final[dict[str, Callable[[SinkReport], Any] | None]] = {
    "as configured": None,
    "state": lambda sink: _BAD_FIRST.index(sink.state) if sink.state in _BAD_FIRST else -1,
    "backlog": lambda sink: -sink.backlog,
    "behind": lambda sink: sink.oldest_undelivered_at or float("inf"),
    "rate": lambda sink: -sink.per_s,
    "name": lambda sink: sink.name.casefold(),
}
"""The orders of the sinks, by name."""

# The columns have room for 10^11 records; a name is cut.
_SINK_COLUMNS: Final = "{:2}{:24} {:9} {:>9} {:>13} {:>9} {:>8}"
_SOURCE_COLUMNS: Final = "{:2}{:24} {:9} {:>9} {:>13} {:>18}"
_NAME_CELLS: Final = 24

_REASON_LINES: Final = 3


class TopView(msgspec.Struct):
    """The person's choices. `picked` is a sink's name; `opened`: with all that is known of it."""

    sort: str = "as configured"
    picked: str = ""
    opened: bool = False

    def press(self, key: str, report: RelayReport | None) -> bool:
        """Take a key: `q`, `s`, `up`, `down`, `enter` or `escape`; False when it ends the view."""
        if key == "q":
            return False
        if key == "s":
            names = list(SORTS)
            self.sort = names[(names.index(self.sort) + 1) % len(names)]
        elif key in ("up", "down") and report is not None and report.sinks:
            names = [sink.name for sink in self.ordered(report)]
            step = 1 if key == "down" else -1
            at = names.index(self.picked) + step if self.picked in names else 0
            self.picked = names[max(0, min(at, len(names) - 1))]
        elif key == "enter":
            self.opened = bool(self.picked) and not self.opened
        elif key == "escape":
            self.picked, self.opened = ("" if not self.opened else self.picked), False
        return True

    def ordered(self, report: RelayReport) -> list[SinkReport]:
        """The sinks in the chosen order; equal ones as configured."""
        key = SORTS[self.sort]
        return list(report.sinks) if key is None else sorted(report.sinks, key=key)


def screen(
    report: RelayReport, view: TopView, width: int, height: int, message: str = ""
) -> list[Line]:
    """The lines, none wider than `width` cells and no more than `height` of them.

    `message` says why the report is an old one.
    """
    keys = f"q quit  s sort: {view.sort}  ↑↓ pick a sink  Enter details"
    body = [Line(part, "bad") for part in _wrapped(message, width, 3)] if message else []
    body += _body(report, view, width, height - 1 - len(body))
    del body[height - 1 :]
    body += [Line("")] * (height - 1 - len(body))
    return [Line(_cut(line.text, width), line.tone) for line in (*body, Line(keys, "dim"))]


def _body(report: RelayReport, view: TopView, width: int, height: int) -> Iterator[Line]:
    head = []
    for line in lines(msgspec.structs.replace(report, sources=[], sinks=[])):
        if not line.text:
            break
        head += [Line(part, line.tone) for part in _wrapped(line.text, width, 2)]
    yield from head
    yield Line("")
    # The sources have a third of the height, or what the sinks do not need.
    sinks = view.ordered(report)
    needed = sum(len(_rows(sink, report, view, width)) for sink in sinks)
    left = height - len(head) - 4
    most_sources = max(left // 3, left - needed, 1)
    yield Line(_SOURCE_COLUMNS.format("", "source", "state", "rate", "records", "last record"),
               "heading")  # fmt: skip
    shown = report.sources if len(report.sources) <= most_sources \
        else report.sources[: most_sources - 1]  # fmt: skip
    for source in shown:
        yield _source(source, report.at)
    if len(shown) < len(report.sources):
        yield Line(f"  … and {len(report.sources) - len(shown)} more sources", "dim")
    yield Line("")
    yield Line(_SINK_COLUMNS.format("", "sink", "state", "rate", "backlog", "behind", "letters"),
               "heading")  # fmt: skip
    room = max(left - min(len(report.sources), most_sources), 1)
    yield from _window([_rows(sink, report, view, width) for sink in sinks],
                       next((i for i, s in enumerate(sinks) if s.name == view.picked), 0),
                       room)  # fmt: skip


def _window(blocks: list[list[Line]], picked: int, room: int) -> Iterator[Line]:
    """Whole blocks, as many as fit, so that the picked one is among them."""
    if sum(map(len, blocks)) <= room:
        for block in blocks:
            yield from block
        return
    first, used = 0, 0
    for at, block in enumerate(blocks[: picked + 1]):
        used += len(block)
        while used > room - 1 and first < at:
            used -= len(blocks[first])
            first += 1
    shown = 0
    for block in blocks[first:]:
        if shown + len(block) > room - 1 and shown:
            break
        yield from block
        shown += len(block)
        first += 1
    if first < len(blocks):
        yield Line(f"  … and {len(blocks) - first} more sinks", "dim")


def _source(source: SourceReport, now: float) -> Line:
    row = _SOURCE_COLUMNS.format(
        "", _name(source.name), source.state, f"{source.per_s:,.0f}/s", f"{source.records:,}",
        ago(source.last_record_at, now),
    )  # fmt: skip
    return Line(row, "plain" if source.state == "up" else "bad")


def _rows(sink: SinkReport, report: RelayReport, view: TopView, width: int) -> list[Line]:
    """A sink's row, why it is not up, and everything else when it is opened."""
    picked, behind = sink.name == view.picked, sink.oldest_undelivered_at
    tone = TONES.get(sink.state, "dim")
    row = _SINK_COLUMNS.format(
        "> " if picked else "", _name(sink.name), sink.state, f"{sink.per_s:,.0f}/s",
        f"{sink.backlog:,}", "-" if behind is None else span(report.at - behind),
        f"{report.buffer.dead_letters.get(sink.name, 0):,}",
    )  # fmt: skip
    rows = [Line(row, tone)]
    opened = picked and view.opened
    if sink.reason and sink.state != "disabled":
        text = f"{sink.state} for {span(report.at - sink.since)}: {sink.reason}"
        most = 20 if opened else _REASON_LINES
        rows += [Line(f"    {part}", tone) for part in _wrapped(text, width - 4, most)]
    if opened:
        rows += [Line(f"    {name:18} {text}") for name, text in _facts(sink, report.at)]
    return rows


def _facts(sink: SinkReport, now: float) -> Iterator[tuple[str, str]]:
    yield "delivered", f"{sink.delivered:,}"
    yield "filtered", f"{sink.filtered:,}"
    yield "refused", f"{sink.dead_lettered:,}"
    rare = {
        "dropped": sink.dropped, "missing": sink.missing, "duplicates": sink.duplicates,
        "failed attempts": sink.retries,
    }  # fmt: skip
    for name, count in rare.items():
        if count:
            yield name, f"{count:,}"
    yield "last confirmed", ago(sink.last_success_at, now)
    if sink.last_type:
        yield "last event", sanitize_for_display(sink.last_type)
    if sink.certificate_expires_at is not None:
        yield "certificate ends", f"in {span(sink.certificate_expires_at - now)}"
    if sink.last_error:
        yield "last error", sanitize_for_display(sink.last_error)


def _name(name: str) -> str:
    return name if len(name) <= _NAME_CELLS else name[: _NAME_CELLS - 1] + "…"


def _wrapped(text: str, width: int, most: int) -> list[str]:
    text = sanitize_for_display(text)
    return wrap(text, max(width, 10), max_lines=most, placeholder=" …") or [""]


def _cut(text: str, width: int) -> str:
    text = sanitize_for_display(text)
    return text if cell_len(text) <= width else set_cell_size(text, max(width - 1, 0)) + "…"
