"""`siemrelay buffer dead-letters`: what peers refused for good."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Final

import click
import msgspec

from siemrelay.buffer.dead_letters import DeadLetter
from siemrelay.buffer.replay import DeadLetterRetry
from siemrelay.buffer.store import Store
from siemrelay.cli.open_buffer import load_or_exit, open_buffer
from siemrelay.cli.options import config_option, json_option
from siemrelay.cli.replay import chosen, send
from siemrelay.core.filters import EventFilter, EventsOptions
from siemrelay.core.times import rfc3339
from siemrelay.formats.writing.text import harmless
from siemrelay.relay.assembly import Assembly
from siemrelay.telemetry.log import Redactor

_PAGE: Final = 64

# More than a person reads; programs take them all.
_SHOWN: Final = 100


@click.command("dead-letters")
@config_option()
@click.option(
    "--from", "first", type=click.IntRange(1), default=1, help="From this record's number on."
)
@click.option("--to", "last", type=click.IntRange(1), help="Up to this record's number.")
@click.option(
    "--retry", is_flag=True, help="Send them again; those that the peer takes are forgotten."
)
@click.option("--drop", is_flag=True, help="Forget them.")
@click.option("--yes", is_flag=True, help="Drop without endpoint_client.")
@json_option()
@click.argument("sink", required=False)
def dead_letters(
    config: str, first: int, last: int | None, retry: bool, drop: bool, yes: bool, as_json: bool,
    sink: str | None,
) -> None:  # fmt: skip
    """List what peers refused for good, of SINK or of all; or send it again, or forget it.

    Each letter has the record as it was received, the message as it was sent and the peer's own
    words. After the format or the peer is mended, --retry makes the messages anew. The sink's
    `events` are not asked again: it wanted these.

    \b
    Examples:
      siemrelay buffer dead-letters
      siemrelay buffer dead-letters splunk --json
      siemrelay buffer dead-letters splunk --retry
      siemrelay buffer dead-letters qradar --drop --to 5000
    """
    if retry and drop:
        raise click.UsageError("give --retry or --drop, not both")
    if sink is None and (retry or drop):
        raise click.UsageError("which sink's? Give its name")
    loaded = load_or_exit(config)
    redactor = Redactor(loaded.secrets)
    with open_buffer(loaded.config.state_dir) as store:
        before = store.opened().end if last is None else last + 1
        counts = store.dead_letters()
        if sink is not None and sink not in counts:
            chosen(loaded, sink)  # a sink that is gone may have left some
        if drop and sink is not None:
            _drop(store, sink, first, before, yes=yes)
        elif retry and sink is not None:
            chosen(loaded, sink)
            assembly = Assembly(loaded.config)
            everything = EventFilter(EventsOptions(), assembly.catalogue)
            parts = msgspec.structs.replace(assembly.sink(sink), events=everything)
            again = DeadLetterRetry(store, sink, first, before)
            outcome = send(loaded.config, assembly, parts, again).counts
            taken = outcome.delivered + outcome.duplicates
            click.echo(f"{sink}: {taken:,} taken, {outcome.refused:,} refused again")
        else:
            _list(store, sorted(counts) if sink is None else [sink], first, before, redactor,
                  as_json=as_json)  # fmt: skip


def _drop(store: Store, sink: str, first: int, before: int, *, yes: bool) -> None:
    sequences = [letter.sequence for letter in _letters(store, sink, first, before)]
    count = len(sequences)
    if count and not yes:
        if not sys.stdin.isatty():
            raise click.UsageError(f"{count:,} dead letters would be lost for good; say --yes")
        click.confirm(f"forget {count:,} dead letters of {sink} for good?", abort=True)
    store.drop_letters(sink, sequences)
    click.echo(f"{sink}: {count:,} dropped")


def _list(
    store: Store, sinks: list[str], first: int, before: int, redactor: Redactor, *, as_json: bool
) -> None:
    shown = 0
    for sink in sinks:
        for letter in _letters(store, sink, first, before):
            if as_json:
                click.echo(json.dumps(_as_json(letter, redactor)))
                continue
            if shown == _SHOWN:
                click.echo(
                    f"and more: only {_SHOWN} are shown; --json has them all, --from goes on"
                )
                return
            shown += 1
            _print(letter, redactor)
    if not shown and not as_json:
        click.echo("no dead letters")


def _letters(store: Store, sink: str, first: int, before: int) -> Iterator[DeadLetter]:
    while page := store.letters(sink, first, before, _PAGE):
        yield from page
        first = page[-1].sequence + 1


def _as_json(letter: DeadLetter, redactor: Redactor) -> dict[str, object]:
    return {
        "sink": letter.sink, "sequence": letter.sequence, "at": rfc3339(letter.at),
        "code": letter.code, "reason": redactor.text(letter.reason), "source": letter.source,
        "record": letter.record.decode("utf-8", "replace"),
        "message": letter.message.decode("utf-8", "replace"),
    }  # fmt: skip


def _print(letter: DeadLetter, redactor: Redactor) -> None:
    why = harmless(redactor.text(f"{letter.code} {letter.reason}"))
    click.secho(f"{letter.sink} {letter.sequence}  {rfc3339(letter.at)}  {why}", bold=True)
    for name, data in (("record", letter.record), ("message", letter.message)):
        click.echo(f"  {name:8} {harmless(data.decode('utf-8', 'replace'))}")
