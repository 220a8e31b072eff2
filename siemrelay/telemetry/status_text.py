"""A relay's status as lines of text, for the status page, pipes and terminals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, Literal, NamedTuple

from siemrelay.core.backoff import HOLD_ADVICE
from siemrelay.core.own_commands import with_config
from siemrelay.formats.writing.text import sanitize_for_display
from siemrelay.telemetry.status import RelayReport, SinkReport, SourceReport

Tone = Literal["plain", "heading", "dim", "good", "warning", "bad"]


class Line(NamedTuple):
    """One line and its tone, which a terminal shows as a colour."""

    text: str
    tone: Tone = "plain"


TONES: Final[dict[str, Tone]] = {
    "up": "good", "connecting": "plain", "waiting": "warning", "paused": "warning",
    "holding": "bad", "failed": "bad",
}  # fmt: skip

# More than any disk has; a received integer may be too large for a float.
_MOST_BYTES: Final = 1 << 80

_SOURCE_HEADINGS: Final = ("source", "records", "rate", "unread", "last record")
_SINK_HEADINGS: Final = (
    "sink", "state", "delivered", "rate", "filtered", "dead letters", "backlog",
    "behind", "last success",
)  # fmt: skip


def lines(status: RelayReport) -> Iterator[Line]:
    """The status for a person; each problem stands below the part that has it.

    Free of control characters, whatever the report contains.
    """
    for line in _lines(status):
        text = with_config(line.text, status.config_file)
        yield Line(sanitize_for_display(text), line.tone)


def _lines(status: RelayReport) -> Iterator[Line]:
    # Why a source failed stands below it.
    troubles = (t.partition(": ")[0] if t.startswith("source ") else t for t in status.troubles)
    state = "; ".join(troubles) or "ready"
    yield Line(
        f"siemrelay {status.version}, up {span(status.at - status.started_at)}, {state}",
        "bad" if status.troubles else "heading",
    )
    yield Line(_buffer(status), "bad" if status.buffer.full else "plain")
    if status.reload_error:
        yield Line(f"the last reload was refused: {status.reload_error}", "bad")
    yield Line("")
    sources = [_source(source, status.at) for source in status.sources]
    headings, *rows = _aligned([_SOURCE_HEADINGS, *sources], left=(0,))
    yield Line(headings, "heading")
    for row, source in zip(rows, status.sources, strict=True):
        yield Line(row)
        yield from _losses(source)
    yield Line("")
    sinks = [_sink(sink, status) for sink in status.sinks]
    headings, *rows = _aligned([_SINK_HEADINGS, *sinks], left=(0, 1))
    yield Line(headings, "heading")
    for row, sink in zip(rows, status.sinks, strict=True):
        yield Line(row, TONES.get(sink.state, "dim"))
        yield from _reasons(sink, status.at)
    for name, removed in status.buffer.removed.items():
        left = span(removed.kept_until - status.at)
        yield Line(
            f"{name} is no longer configured; {removed.backlog:,} records wait for it, for {left} "
            f"yet: set `renamed_from: {name}` on the sink that takes its place, or drop them with "
            f"`siemrelay reload --discard-backlog {name}`",
            "warning",
        )


def _buffer(status: RelayReport) -> str:
    buffer = status.buffer
    text = f"buffer {size(buffer.size_bytes)}"
    if buffer.oldest_received_at is not None:
        text += f", oldest record {span(status.at - buffer.oldest_received_at)} old"
    if not buffer.full:
        return text
    what = "the file system of state_dir is full" if buffer.disk_full else "full"
    held_by = f" for {', '.join(buffer.held_by)}" if buffer.held_by else ""
    return f"{text}, {what}: intake waits{held_by}"


def _source(source: SourceReport, now: float) -> tuple[str, ...]:
    return (
        source.name, f"{source.records:,}", f"{source.per_s:,.0f}/s", size(source.lag_bytes),
        ago(source.last_record_at, now),
    )  # fmt: skip


def _losses(source: SourceReport) -> Iterator[Line]:
    yield from _credentials(source.credentials_fault)
    refused = ", ".join(f"{why} {count:,}" for why, count in sorted(source.refused.items()))
    if refused:
        yield Line(f"  rejected: {refused}; the log has peers and reasons", "warning")
    if source.limited:
        most, _ = max(source.limited.items(), key=lambda each: each[1])
        count = sum(source.limited.values())
        yield Line(
            f"  {count:,} left out by `limit` since the start, most of them {most}", "warning"
        )
    if source.upstream_dropped:
        yield Line(
            f"  {source.upstream_dropped:,} dropped before they reached the relay (reported by the "
            "kernel)",
            "bad",
        )
    if source.lost_bytes:
        text = f"  {size(source.lost_bytes)} lost: files left before they were read to their end"
        yield Line(text, "bad")
    if source.files == 0 and not source.unreadable_files:
        yield Line("  no file matches `path`; one is read as soon as it appears", "warning")
    if source.unparsed_why:
        share = f"{source.unparsed_share:.0%}"
        yield Line(f"  {share} of its records cannot be parsed: {source.unparsed_why}", "warning")
    times = f", failed {source.restarts:,} {'time' if source.restarts == 1 else 'times'}"
    if source.state == "failed":
        yield Line(f"  trying again{times * bool(source.restarts)}: {source.last_error}", "bad")
    elif source.last_error:
        yield Line(f"  last error{times * bool(source.restarts)}: {source.last_error}", "warning")
    elif source.restarts:
        yield Line(f"  failed and restarted {source.restarts:,} times", "warning")


def _credentials(fault: str) -> Iterator[Line]:
    if fault:
        yield Line(f"  changed files cannot be used, the last good ones are: {fault}", "bad")


def _sink(sink: SinkReport, status: RelayReport) -> tuple[str, ...]:
    behind = sink.oldest_undelivered_at
    letters = status.buffer.dead_letters.get(sink.name, 0)
    return (
        sink.name, sink.state, f"{sink.delivered:,}", f"{sink.per_s:,.0f}/s", f"{sink.filtered:,}",
        f"{letters:,}", f"{sink.backlog:,}", "-" if behind is None else span(status.at - behind),
        ago(sink.last_success_at, status.at),
    )  # fmt: skip


def _reasons(sink: SinkReport, now: float) -> Iterator[Line]:
    yield from _credentials(sink.credentials_fault)
    if sink.reason:
        reason = f"  {sink.state} for {span(now - sink.since)}: {sink.reason}"
        yield Line(reason, TONES.get(sink.state, "dim"))
        if sink.state == "holding":
            yield Line(f"  {HOLD_ADVICE}", "bad")
    elif sink.last_error_at is not None:
        yield Line(f"  last error, {ago(sink.last_error_at, now)}: {sink.last_error}", "dim")
    if (seal := sink.seal) is not None:
        until = "not sealed yet" if seal.sealed_at is None else f"sealed {ago(seal.sealed_at, now)}"
        count = f"{seal.sealed_messages:,} of {seal.messages:,} messages of {seal.stream}"
        stale = seal.is_stale(now)
        late = f", which is late: one is sent every {span(seal.every_s)}" * stale
        yield Line(f"  {until}: {count} are under seal{late}", "bad" if stale else "dim")
        yield Line(f"  last checkpoint: {seal.checkpoint or 'none yet'}; key {seal.key}", "dim")
    if (stamps := sink.timestamps) is not None:
        last = "never yet" if stamps.at is None else ago(stamps.at, now)
        fault = f"; {stamps.fault}" * bool(stamps.fault)
        yield Line(f"  last time stamp of a seal: {last}{fault}", "bad" if fault else "dim")
    if sink.duplicates:
        yield Line(f"  {sink.duplicates:,} duplicates: the receiver already held them", "dim")
    if sink.missing:
        yield Line(f"  {sink.missing:,} stored records are gone from the disk; see the log", "bad")
    if sink.dropped:
        yield Line(f"  {sink.dropped:,} records dropped because the buffer was full", "bad")


def _aligned(rows: Sequence[Sequence[str]], left: Sequence[int]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if place in left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def ago(moment: float | None, now: float) -> str:
    """`12 s ago`, or `never`."""
    return "never" if moment is None else f"{span(now - moment)} ago"


def span(seconds: float) -> str:
    """A time span in its largest unit that counts: `0.2 s`, `12 s`, `3 min`, `5 h`, `2 d`."""
    seconds = max(seconds, 0.0)
    if seconds < 10:
        return f"{seconds:.1f} s"
    for limit, unit_s, unit in ((120, 1, "s"), (7200, 60, "min"), (172_800, 3600, "h")):
        if seconds < limit:
            return f"{seconds / unit_s:.0f} {unit}"
    return f"{seconds / 86_400:.0f} d"


def size(count: float) -> str:
    """Bytes in the largest unit that fits: `0 B`, `1.2 GiB`."""
    count = min(count, _MOST_BYTES)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
