"""`siemrelay verify`: an auditor's check of what a SIEM exports, without the relay."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
import msgspec

from siemrelay.cli.options import moment, read_by
from siemrelay.cli.proof.export_files import (
    UNREADABLE,
    kept_timestamps,
    located,
    read_export,
    read_tiles,
)
from siemrelay.cli.proof.verify_html import html_report
from siemrelay.cli.proof.verify_text import print_report
from siemrelay.cli.refusal import refuse
from siemrelay.core.options import seconds, size_bytes
from siemrelay.core.times import rfc3339
from siemrelay.proof.export_intake import MOST_BYTES
from siemrelay.proof.note import Verifier
from siemrelay.proof.timestamps import TimestampCheck, read_authorities
from siemrelay.proof.verification import Verification

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

_UNREADABLE: Final = 2
"""Exit code: nothing can be said, as an export cannot be read or a file not be written."""


def _keys(texts: tuple[str, ...]) -> list[Verifier]:
    # After a rotation `siemrelay seal key` prints several, a line each.
    return [Verifier.read(line) for text in texts for line in text.split("\n") if line or not text]


def _authorities(file: Path) -> Sequence[Certificate]:
    return read_authorities(file.read_bytes())


@click.command()
@click.option("--key", "keys", metavar="VKEY", multiple=True, required=True,
              callback=read_by(_keys),
              help="The relay's verifier key, or several, a line each, as `siemrelay seal key` "
              "prints them; give it again for each older key.")  # fmt: skip
@click.option(
    "--tiles",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The hashes that `siemrelay seal export` wrote: with them a finding names the message.",
)
@click.option("--since", metavar="TIME", callback=read_by(moment),
              help="The time from which messages must be complete, like 2026-11-01T00:00:00Z. Let "
              "the export begin some minutes earlier: the seal before it proves them.")  # fmt: skip
@click.option("--until", metavar="TIME", callback=read_by(moment),
              help="The time until which they must be complete; now by default. Let the export end "
              "some minutes later: the seal after it proves the last ones.")  # fmt: skip
@click.option("--max-age", metavar="DURATION", callback=read_by(seconds),
              help="The greatest age of the last seal at that time; by default twice the time "
              "between seals and a minute.")  # fmt: skip
@click.option("--sink", help="Judge the streams of this sink only.")
@click.option("--expect", "expected", metavar="NAME", multiple=True,
              help="A sink (SINK or RELAY/SINK) or stream that must be in the export: if it has "
              "nothing of it, something is missing. Give it again for each.")  # fmt: skip
@click.option("--added", metavar="MEMBER", multiple=True,
              help="A member that the SIEM has added to JSON messages, like event.ingested: it is "
              "left out of the comparison. Give it again for each.")  # fmt: skip
@click.option("--tsa-ca", "authorities", metavar="FILE", callback=read_by(_authorities),
              type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="Certificates (PEM) of the time-stamping authority: its time stamps prove when "
              "the seals existed. Needs siemrelay[timestamps].")  # fmt: skip
@click.option("--memory", metavar="SIZE", default=f"{MOST_BYTES >> 30}GiB", show_default=True,
              callback=read_by(size_bytes),
              help="The most memory for the hashes of messages: "
              "10 million take some 400 MiB.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the whole report as JSON.")
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path),
              help="Write the report as a page, too.")  # fmt: skip
@click.argument("exports", metavar="EXPORT...", nargs=-1, required=True,
                type=click.Path(exists=True, dir_okay=False, allow_dash=True))  # fmt: skip
def verify(
    keys: list[Verifier], tiles: Path | None, since: float | None, until: float | None,
    max_age: float | None, sink: str | None, expected: tuple[str, ...],
    authorities: Sequence[Certificate] | None, added: tuple[str, ...], memory: int, as_json: bool,
    html: Path | None, exports: tuple[str, ...],
) -> None:  # fmt: skip
    """Verify that nothing is missing, changed or added in what a SIEM received.

    EXPORT is what the SIEM exports of a sink with `seal:`: Splunk's CSV or JSON, Elasticsearch's
    hits, NDJSON, lines of CEF, LEEF, syslog, GELF, OTLP or OCSF; plain, or compressed with gzip,
    zstd, xz or bzip2; `-` is standard input. Rows may come in any order and more than once. The
    relay, its configuration and its state are not needed.

    Exits with 0 if the export is complete, unchanged and fresh, 1 if not, 2 if it cannot be read.
    Messages behind the last seal are shown as not proven yet; while the last seal is fresh, they
    do not change the exit code.

    \b
    Examples:
      siemrelay verify --key "$(cat relay.vkey)" splunk-export.csv.gz
      siemrelay verify --key "$VKEY" --since 2026-11-01T00:00:00Z --until 2026-12-01T00:00:00Z *.csv
    """
    end, timestamps = time.time() if until is None else until, TimestampCheck(authorities or ())
    if since is not None and since >= end:
        raise click.UsageError("--since is not before --until: there is no time to judge")
    checked = Verification(
        keys, since=since, until=end, max_age_s=max_age, sink=sink, expected=expected,
        timestamps=timestamps, most_bytes=memory,
    )  # fmt: skip
    for place, path in enumerate(exports, 1):
        try:
            with _without_gc():
                read_export(checked, path, added, f" ({place} of {len(exports)})")
        except UNREADABLE as error:
            refuse(f"cannot read {path}: {error}", _UNREADABLE)
    if not checked.has_streams and not expected:
        refuse("no message in these exports has the number of a sealed stream: does the sink have "
               "`seal:`, and does the export hold the messages as they were sent?",
               _UNREADABLE)  # fmt: skip
    try:
        for stream, timestamp in kept_timestamps(tiles) if tiles else ():
            timestamps.add(stream, timestamp)
        known = read_tiles(checked, tiles) if tiles else None
    except OSError as error:
        refuse(f"cannot read {tiles}: {error}", _UNREADABLE)
    with _without_gc():
        report = checked.report(known)
        # Somebody may have moved an export that was read before.
        with suppress(*UNREADABLE):
            report = located(report, exports, added)
    if html is not None:
        begin = "" if since is None else rfc3339(since)
        page = html_report(report, exports=exports, keys=keys, since=begin, until=rfc3339(end),
                           expected=expected, sink=sink or "", added=added, max_age_s=max_age,
                           at=rfc3339(time.time()))  # fmt: skip
        try:
            html.write_text(page, encoding="utf-8")
        except OSError as error:
            refuse(f"cannot write {html}: {error}", _UNREADABLE)
    if as_json:
        click.echo(msgspec.json.encode(report).decode())
    else:
        print_report(report)
    raise SystemExit(0 if report.is_proven else 1)


@contextmanager
def _without_gc() -> Iterator[None]:
    """Collect no cycles: what is decoded has none, and to look for some doubles the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
