"""The report of `siemrelay verify` as lines for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import click

from siemrelay.proof.report import Discrepancy, Note, Report, StreamReport, Tail, counted

# Findings that are printed; all of them are in --json.
_SHOWN: Final = 20

_STREAMS: Final = 50

VERDICTS: Final = (
    ("complete", "no message up to the last seal is missing", "something is missing"),
    ("unchanged", "each message there, up to the last seal, is as it was sent, and none was added",
     "something was changed or added, or cannot be proven"),
    ("fresh", "the last seal is as young as it should be", "the last seal is too old"),
)  # fmt: skip
"""Of each verdict: its name, what it says if it holds, and if it does not."""


def print_report(report: Report) -> None:
    """Print streams, findings, notes and verdicts."""
    for stream in report.streams[:_STREAMS]:
        click.echo(f"stream {stream.origin}")
        for line in _stream_lines(stream):
            click.echo(f"  {line}")
    if len(report.streams) > _STREAMS:
        unshown = counted(len(report.streams) - _STREAMS, "more stream")
        click.echo(f"and {unshown}; --json lists them")
    if report.elsewhere:
        click.echo(f"sealed by the relay, and not in these exports: {', '.join(report.elsewhere)}")
    for finding in report.findings[:_SHOWN]:
        places = ", ".join(place for place in finding.places if place not in finding.why)
        click.secho(_finding(finding) + f" ({places})" * bool(places), fg="red")
    rest = len(report.findings) + report.more - _SHOWN
    if rest > 0:
        listed = f"{len(report.findings):,} in all" if report.more else "them"
        click.echo(f"and {rest:,} more; --json lists {listed}")
    for note in report.notes[:_SHOWN]:
        click.secho(_note(note), fg="yellow")
    for name, yes, no in VERDICTS:
        good = getattr(report, name)
        text = f"{name}: {yes}" if good else f"NOT {name.upper()}: {no}"
        click.secho(text, fg="green" if good else "red", bold=True)
    tails = [stream.tail for stream in report.streams if stream.tail is not None]
    for state, what in TAILS.items():
        count = sum(tail.messages for tail in tails if tail.state == state)
        if count:
            click.secho(f"{what}: {counted(count, 'message')} behind the last seal", fg="yellow",
                        bold=True)  # fmt: skip


TAILS: Final = {
    "pending": "not proven yet",
    "overdue": "not proven",
    "later": "not judged",
}
"""The state of a tail → the verdict on it."""


def _stream_lines(stream: StreamReport) -> Iterator[str]:
    covers = f"; the last seal, of {stream.sealed_at}, covers {stream.sealed_messages:,}"
    yield (f"{counted(stream.messages, 'message')} in the export, with "
           f"{counted(stream.seals, 'seal')}" + covers * bool(stream.sealed_at))  # fmt: skip
    if stream.repeats:
        yield f"{counted(stream.repeats, 'repeat')} of messages, equal to the first"
    if stream.absent:
        yield f"{counted(stream.absent, 'message')} refused by the receiver, accounted for in seals"
    if (stamped := stream.stamped) is not None:
        yield (f"{counted(stamped.size, 'message')} existed before {stamped.at}: the authority's "
               f"time stamp of the seal n={stamped.number}")  # fmt: skip
    elif stream.timestamps:
        yield f"{counted(stream.timestamps, 'time stamp')}, not checked without --tsa-ca"
    if stream.tail is not None:
        yield tail_text(stream.tail)


def tail_text(tail: Tail) -> str:
    """How many messages no seal proves, which, from when to when, and what to do."""
    numbers = _numbers(tail.first, tail.last)
    return (f"{counted(tail.messages, 'message')} behind the last seal {TAILS[tail.state]}: "
            f"{numbers}, between {tail.after or 'the start'} and {tail.until}: "
            f"{tail.why}")  # fmt: skip


def _finding(finding: Discrepancy) -> str:
    times = f"between {finding.after or 'the start'} and {finding.before}"
    parts: Iterable[str] = (
        finding.kind, finding.stream, _numbers(finding.first, finding.last),
        times if finding.before else f"after {finding.after}" if finding.after else "",
    )  # fmt: skip
    return f"{' '.join(filter(None, parts))}: {finding.why}"


def _note(note: Note) -> str:
    parts = "note", note.stream, _numbers(note.first, note.last)
    return f"{' '.join(filter(None, parts))}: {note.text}"


def _numbers(first: int | None, last: int | None) -> str:
    if first is None or last is None:
        return ""
    return f"n={first}" if first == last else f"n={first}..{last}"
