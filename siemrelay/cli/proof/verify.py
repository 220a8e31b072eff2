"""`siemrelay verify`: an auditor's check of what a SIEM exports, without the relay."""

from __future__ import annotations

import gzip
import io
import sys
import time
import zlib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import click
import msgspec
import zstandard

from siemrelay.cli.proof.verify_html import html_report
from siemrelay.cli.proof.verify_text import SHOWN, print_report
from siemrelay.core.options import seconds
from siemrelay.core.times import rfc3339
from siemrelay.proof.exports import rows
from siemrelay.proof.leaf_store import LeafStore
from siemrelay.proof.merkle import HASH_BYTES
from siemrelay.proof.note import Verifier
from siemrelay.proof.report import Discrepancy
from siemrelay.proof.seal import Timestamp
from siemrelay.proof.tiles import TIMESTAMPS_FOLDER, leaf_tile, split
from siemrelay.proof.timestamps import MOST_RESPONSE_BYTES, TimestampCheck, read_authorities
from siemrelay.proof.verification import Verification

_PROGRESS_ROWS: Final = 200_000

_GZIP: Final = b"\x1f\x8b"
_ZSTD: Final = b"\x28\xb5\x2f\xfd"


def _moment(context: click.Context, option: click.Parameter, value: str | None) -> float | None:
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError as error:
        raise click.BadParameter("write a time like 2026-11-28T03:00:00Z") from error
    return moment.replace(tzinfo=moment.tzinfo or UTC).timestamp()


def _age(context: click.Context, option: click.Parameter, value: str | None) -> float | None:
    try:
        return None if value is None else seconds(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def _keys(
    context: click.Context, option: click.Parameter, values: tuple[str, ...]
) -> list[Verifier]:
    try:
        return [Verifier.read(value) for value in values]
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def _authorities(
    context: click.Context, option: click.Parameter, value: Path | None
) -> TimestampCheck:
    try:
        return TimestampCheck(() if value is None else read_authorities(value.read_bytes()))
    except (OSError, ValueError) as error:
        raise click.BadParameter(str(error)) from error


@click.command()
@click.option("--key", "keys", metavar="VKEY", multiple=True, required=True, callback=_keys,
              help="The relay's verifier key, as `siemrelay seal key` prints it; give it again for "
              "each older key.")  # fmt: skip
@click.option(
    "--tiles",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The hashes that `siemrelay seal export` wrote: names the very message.",
)
@click.option("--since", metavar="TIME", callback=_moment,
              help="From when on messages must be complete, like 2026-11-01T00:00:00Z. Let the "
              "export begin some minutes earlier: the seal before it proves them.")  # fmt: skip
@click.option("--until", metavar="TIME", callback=_moment,
              help="Until when they must be complete; now by default. Let the export end some "
              "minutes later: the seal after it proves the last ones.")  # fmt: skip
@click.option("--max-age", metavar="DURATION", callback=_age,
              help="The age of the last seal at that time that is still fresh; by default twice "
              "the time between seals and a minute.")  # fmt: skip
@click.option("--sink", help="Judge the streams of this sink only.")
@click.option("--expect", "expected", metavar="NAME", multiple=True,
              help="A sink (SINK or RELAY/SINK) or stream that must be in the export: if it has "
              "nothing of it, something is missing. Give it again for each.")  # fmt: skip
@click.option("--added", metavar="MEMBER", multiple=True,
              help="A member that the SIEM has added to JSON messages, like event.ingested: it is "
              "left out of the comparison. Give it again for each.")  # fmt: skip
@click.option("--tsa-ca", "authorities", metavar="FILE", callback=_authorities,
              type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="Certificates (PEM) of the time-stamping authority: its time stamps prove when "
              "the seals existed. Needs siemrelay[timestamps].")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the whole report as JSON.")
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path),
              help="Write the report as a page, too.")  # fmt: skip
@click.argument("exports", metavar="EXPORT...", nargs=-1, required=True,
                type=click.Path(exists=True, dir_okay=False, allow_dash=True))  # fmt: skip
def verify(
    keys: list[Verifier], tiles: Path | None, since: float | None, until: float | None,
    max_age: float | None, sink: str | None, expected: tuple[str, ...],
    authorities: TimestampCheck, added: tuple[str, ...], as_json: bool, html: Path | None,
    exports: tuple[str, ...],
) -> None:  # fmt: skip
    """Verify that nothing is missing, changed or added in what a SIEM received.

    EXPORT is what the SIEM exports of a sink with `seal:`: Splunk's CSV or JSON, Elasticsearch's
    hits, NDJSON, lines of CEF, LEEF, syslog, GELF, OTLP or OCSF; gzip and zstd are read, `-` is
    standard input. Rows may come in any order and more than once. The relay, its configuration and
    its state are not needed.

    Exits with 0 if the export is complete, unchanged and fresh, 1 if not, 2 if it cannot be read.
    Messages behind the last seal are shown as not proven yet; while the last seal is fresh, they
    do not change the exit code.

    \b
    Examples:
      siemrelay verify --key "$(cat relay.vkey)" splunk-export.csv.gz
      siemrelay verify --key "$VKEY" --since 2026-11-01T00:00:00Z --until 2026-12-01T00:00:00Z *.csv
    """
    end = time.time() if until is None else until
    checked = Verification(keys, since=since, until=end, max_age_s=max_age, sink=sink,
                           expected=expected, timestamps=authorities)  # fmt: skip
    for path in exports:
        try:
            _read(checked, path, added)
        except (OSError, ValueError, zlib.error, zstandard.ZstdError, EOFError) as error:
            click.secho(f"cannot read {path}: {error}", err=True, fg="red")
            raise SystemExit(2) from error
    if not checked.has_streams and not expected:
        click.secho(
            "no message in these exports has the number of a sealed stream: does the sink have "
            "`seal:`, and does the export hold the messages as they were sent?",
            err=True, fg="red",
        )  # fmt: skip
        raise SystemExit(2)
    for stream, timestamp in _kept_timestamps(tiles) if tiles else ():
        authorities.add(stream, timestamp)
    report = checked.report(_read_tiles(checked, tiles) if tiles else None)
    if html is not None:
        begin = "" if since is None else rfc3339(since)
        page = html_report(report, exports=exports, keys=keys, since=begin, until=rfc3339(end),
                           expected=expected, at=rfc3339(time.time()))  # fmt: skip
        try:
            html.write_text(page, encoding="utf-8")
        except OSError as error:
            click.secho(f"cannot write {html}: {error}", err=True, fg="red")
            raise SystemExit(2) from error
    if as_json:
        click.echo(msgspec.json.encode(report).decode())
    else:
        print_report(report, _places(exports, added, report.findings[:SHOWN]))
    raise SystemExit(0 if report.is_proven else 1)


def _read(checked: Verification, path: str, added: Sequence[str]) -> None:
    shown = sys.stderr.isatty()
    for row in rows(_lines(path), added):
        checked.add(row.leaf, row.text, f"{path}:{row.line}")
        if shown and checked.rows % _PROGRESS_ROWS == 0:
            click.echo(f"\r{checked.rows:,} rows", nl=False, err=True)
    if shown and checked.rows >= _PROGRESS_ROWS:
        click.echo("\r\033[K", nl=False, err=True)


def _read_tiles(checked: Verification, folder: Path) -> dict[str, LeafStore]:
    """The leaves in tiles of level 0, by the stream in whose folder they are."""
    streams = dict[str, LeafStore]()
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        found = leaf_tile(name.as_posix()) if path.is_file() else None
        if found is None:
            continue
        first, hashes = found
        with path.open("rb") as file:
            tile = file.read(hashes * HASH_BYTES + 1)
        if len(tile) != hashes * HASH_BYTES:
            checked.note(f"the hashes in {name} (--tiles) are damaged: {len(tile):,} bytes, not "
                         f"{hashes * HASH_BYTES:,}; they are left out")  # fmt: skip
            continue
        store = streams.setdefault(name.parts[0], LeafStore())
        for number, leaf in enumerate(split(tile), first):
            if any(leaf):
                store.add(number, leaf)
    return streams


def _kept_timestamps(folder: Path) -> Iterator[tuple[str, Timestamp]]:
    """The time stamps that `siemrelay seal export` wrote, each with its stream."""
    for path in folder.glob(f"*/{TIMESTAMPS_FOLDER}/*.tsr"):
        if path.stem.isdecimal():
            with path.open("rb") as file:
                response = file.read(MOST_RESPONSE_BYTES + 1)
            yield path.parts[-3], Timestamp(int(path.stem), response)


def _lines(path: str) -> Iterator[bytes]:
    with sys.stdin.buffer if path == "-" else Path(path).open("rb") as file:
        buffered: Any = file if isinstance(file, io.BufferedReader) else io.BufferedReader(file)
        start = buffered.peek(4)[:4]
        if start.startswith(_GZIP):
            yield from gzip.GzipFile(fileobj=buffered)
        elif start == _ZSTD:
            reader = zstandard.ZstdDecompressor().stream_reader(buffered, read_across_frames=True)
            yield from io.BufferedReader(reader, 1 << 20)
        else:
            yield from buffered


def _places(
    exports: Sequence[str], added: Sequence[str], findings: Sequence[Discrepancy]
) -> dict[tuple[str, int], str]:
    """Where in the exports the messages are that are named one by one, read a second time."""
    wanted = {
        (finding.stream.rpartition("/")[2], finding.first)
        for finding in findings
        if finding.kind in ("changed", "added") and finding.first is not None
        and finding.first == finding.last
    }  # fmt: skip
    places = dict[tuple[str, int], str]()
    for path in exports if wanted and "-" not in exports else ():
        for row in rows(_lines(path), added):
            stream, number = row.leaf.stream, row.leaf.number
            if stream is not None and number is not None and (stream, number) in wanted:
                before = places.get((stream, number))
                places[stream, number] = f"{before}, " * bool(before) + f"{path}:{row.line}"
    return places
