"""`siemrelay buffer`: inspects the disk buffer, and groups the commands that work on it."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator
from typing import Any, Final

import click
import msgspec

from siemrelay.buffer.disk_reads import READ_BYTES
from siemrelay.buffer.rows import StoredCursor
from siemrelay.buffer.sqlite.store import Store
from siemrelay.buffer.state_dir import running_process
from siemrelay.cli.buffer.dead_letters import dead_letters
from siemrelay.cli.buffer.open_buffer import load_or_exit, open_buffer, range_end
from siemrelay.cli.buffer.replay import replay
from siemrelay.cli.buffer.salvage import check, salvage
from siemrelay.cli.options import (
    advice,
    complete_sources,
    config_option,
    json_option,
    period_options,
)
from siemrelay.cli.tables import print_table
from siemrelay.core.event import Batch
from siemrelay.core.times import rfc3339
from siemrelay.formats.writing.text import sanitize_for_display
from siemrelay.telemetry.status_text import size

_LAST: Final = 10


@click.group()
def buffer() -> None:
    """Inspect the disk buffer, replay records, handle dead letters, repair a damaged buffer.

    Works while the relay runs and while it does not; needs the right to open its `state_dir`.
    """


buffer.add_command(dead_letters)
buffer.add_command(replay)
buffer.add_command(check)
buffer.add_command(salvage)


@buffer.command(short_help="show what is stored and what became of it at each sink")
@config_option()
@json_option()
def info(config: str, as_json: bool) -> None:
    """Show what is stored, how much came from each source, and what became of it at each sink.

    For every sink, the records stored since it was added are those delivered, filtered, refused
    (and still dead letters, or dropped from them), dropped when the buffer was full, and waiting.
    The counts survive restarts; a dead letter that a retry delivered counts as delivered.

    \b
    Example:
      siemrelay buffer info
    """
    loaded = load_or_exit(config)
    state_dir = loaded.config.state_dir
    with open_buffer(state_dir) as store:
        opened, letters = store.opened(), store.dead_letters()
    oldest, used = opened.oldest, opened.used_bytes or 0
    end = opened.end
    sinks = [
        {"sink": name, **_balance(cursor, end), "next_sequence": cursor.next_sequence,
         "dead_letters": letters.pop(name, 0), "replayed": cursor.replayed,
         "last_success": rfc3339(cursor.last_success_at) if cursor.last_success_at else None}
        for name, cursor in opened.sinks().items() if name not in opened.removed
    ]  # fmt: skip
    keep_s = loaded.config.buffer.keep_removed
    removed = [
        {"sink": name, "waiting": end - cursor.next_sequence, "dead_letters": letters.pop(name, 0),
         "next_sequence": cursor.next_sequence,
         "kept_until": rfc3339(opened.removed[name] + keep_s)}
        for name, cursor in opened.sinks().items() if name in opened.removed
    ]  # fmt: skip
    report: dict[str, Any] = {
        "state_dir": str(state_dir), "process": running_process(state_dir), "end": end,
        "oldest": oldest[0] if oldest else None,
        "oldest_received": rfc3339(oldest[1]) if oldest else None,
        "size_bytes": used,
        "sources": [{"source": name, **msgspec.structs.asdict(counts)}
                    for name, counts in sorted(opened.sources.items())],
        "sinks": sinks, "removed_sinks": removed, "other_dead_letters": letters,
    }  # fmt: skip
    if as_json:
        click.echo(json.dumps(report, indent=2))
        return
    process = report["process"]
    runs = f"a relay runs on it (process {process})" if process else "no relay runs on it"
    click.echo(f"{state_dir}: {runs}")
    if oldest:
        click.echo(f"records {oldest[0]:,} to {end - 1:,} are kept, {size(used)}; the "
                   f"oldest was received {report['oldest_received']}")  # fmt: skip
    else:
        click.echo(f"no records are kept; the next one is {end:,}")
    if opened.sources:
        click.echo()
        print_table("", ("source", "records", "bytes", "filtered"), [
            [name, f"{counts.records:,}", size(counts.bytes), f"{counts.filtered:,}"]
            for name, counts in sorted(opened.sources.items())
        ])  # fmt: skip
    click.echo()
    _print_balance(sinks)
    for place in removed:
        click.echo(
            f"{place['sink']} is no longer configured; {place['waiting']:,} records from "
            f"{place['next_sequence']:,} on and {place['dead_letters']:,} dead letters are kept "
            f"for it until {place['kept_until']}"
        )
    for name, count in letters.items():
        click.echo(f"{count:,} dead letters of {name}, which is no longer configured")


def _balance(cursor: StoredCursor, end: int) -> dict[str, Any]:
    """The terms of the equation, and whether it holds."""
    terms = {
        "delivered": cursor.delivered + cursor.retried, "duplicates": cursor.duplicates,
        "filtered": cursor.filtered, "refused": cursor.refused - cursor.retried,
        "dropped": cursor.dropped, "missing": cursor.lost, "waiting": end - cursor.next_sequence,
    }  # fmt: skip
    stored = end - cursor.first_sequence
    return {"stored": stored, **terms, "balanced": sum(terms.values()) == stored}


# Shown only where there are some.
_RARE: Final = ("duplicates", "missing")


def _print_balance(sinks: list[dict[str, Any]]) -> None:
    terms = ["delivered", "duplicates", "filtered", "refused", "dropped", "missing", "waiting"]
    terms = [term for term in terms if term not in _RARE or any(sink[term] for sink in sinks)]
    columns = ["sink", "stored", *terms, "next_sequence", "dead_letters", "replayed"]
    rows = [[_number(sink[column]) for column in columns] for sink in sinks]
    print_table("", [column.replace("_", " ") for column in columns], rows)
    equation = f"stored = {' + '.join(terms)}"
    wrong = [sink["sink"] for sink in sinks if not sink["balanced"]]
    if wrong:
        advised = advice("run `siemrelay buffer check`")
        click.secho(f"{equation} does NOT hold for {', '.join(wrong)}: records are missing "
                    f"from the counts; {advised}", fg="red")  # fmt: skip
    elif sinks:
        click.echo(f"{equation}: holds for every sink")


def _number(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


@buffer.command(short_help="show records as they were received")
@config_option()
@click.option("--from", "first", type=click.IntRange(1), help="The first record's number.")
@click.option("--to", "last", type=click.IntRange(1), help="The last record's number.")
@period_options
@click.option("--source", metavar="NAME", help="Only records of this source.",
              shell_complete=complete_sources)  # fmt: skip
@json_option()
def show(
    config: str, first: int | None, last: int | None, since: float | None, until: float | None,
    source: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Show records as they were received: those from --from to --to, or --since to --until, or the
    last ten.

    `siemrelay preview` shows what sinks would make of them.

    \b
    Examples:
      siemrelay buffer show
      siemrelay buffer show --from 1200 --to 1300 --source alm --json
    """
    loaded = load_or_exit(config)
    with open_buffer(loaded.config.state_dir) as store:
        end = store.opened().end
        if first is last is since is until is None:
            _show(_last(store, end, source), as_json=as_json)
            return
        end = range_end(store, last, until, end)
        if since is not None:
            first = max(first or 1, store.received_after(since) or end)
        _show(_kept(store, first or 1, end, source), as_json=as_json)


def _kept(store: Store, first: int, before: int, source: str | None) -> Iterator[Batch]:
    """The records in that range, each alone."""
    while batches := store.read(first, before, READ_BYTES):
        for batch in batches:
            if source in (None, batch.source):
                yield from batch.alone(range(first, before))
        first = batches[-1].next_sequence


def _last(store: Store, end: int, source: str | None) -> Iterator[Batch]:
    """The last ten, looked for further and further back."""
    span = _LAST
    oldest = store.oldest()
    while True:
        first = max(end - span, 1)
        found = deque(_kept(store, first, end, source), maxlen=_LAST)
        if len(found) == _LAST or oldest is None or first <= oldest[0]:
            return iter(found)
        span *= 8


def _show(records: Iterator[Batch], *, as_json: bool) -> None:
    for record in records:
        text = record.payload[:-1].decode("utf-8", "replace")
        received = rfc3339(record.received_at)
        if as_json:
            click.echo(json.dumps({
                "sequence": record.first_sequence, "received": received, "source": record.source,
                **({} if record.part is None else {"part": record.part}), "record": text,
            }))  # fmt: skip
        else:
            shown = sanitize_for_display(text)
            click.echo(f"{record.first_sequence}  {received}  {record.source}  {shown}")
