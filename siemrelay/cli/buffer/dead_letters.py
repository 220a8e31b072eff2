"""`siemrelay buffer dead-letters`: list, retry or drop the records that receivers refused."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from typing import Final

import click
import msgspec

from siemrelay.buffer.dead_letters import DeadLetter
from siemrelay.buffer.replay import DeadLetterRetry
from siemrelay.buffer.sqlite.store import Store
from siemrelay.cli.buffer.open_buffer import load_or_exit, open_buffer
from siemrelay.cli.buffer.replay import chosen, send
from siemrelay.cli.options import complete_sinks, config_option, json_option
from siemrelay.cli.person import audit
from siemrelay.config.models import RelayConfig
from siemrelay.core.event_types import LETTERS_DROPPED, LETTERS_RETRIED
from siemrelay.core.filters import EventFilter, EventsOptions
from siemrelay.core.times import rfc3339
from siemrelay.formats.writing.text import sanitize_for_display
from siemrelay.pipeline.sent_again import RetriedNumbers
from siemrelay.proof.envelopes import ENVELOPES
from siemrelay.proof.leaf import leaf_of
from siemrelay.relay.assembly import Assembly, SinkParts
from siemrelay.telemetry.log import Redactor

_PAGE: Final = 64

# A person reads fewer; --json has them all.
_SHOWN: Final = 100


@click.command("dead-letters", short_help="list, retry or drop the records that receivers refused")
@config_option()
@click.option(
    "--from", "first", type=click.IntRange(1), default=1, help="From this record's number on."
)
@click.option("--to", "last", type=click.IntRange(1), help="Up to this record's number.")
@click.option(
    "--retry", is_flag=True, help="Send them again; remove those that the receiver accepts."
)
@click.option("--drop", is_flag=True, help="Remove them without sending.")
@click.option("--yes", is_flag=True, help="Drop without asking.")
@json_option()
@click.argument("sink", required=False, shell_complete=complete_sinks)
def dead_letters(
    config: str, first: int, last: int | None, retry: bool, drop: bool, yes: bool, as_json: bool,
    sink: str | None,
) -> None:  # fmt: skip
    """List the records that receivers refused for good, of SINK or of all; retry or drop them.

    Each dead letter has the record as received, the message as sent and the receiver's error
    message. After you fix the format or the receiver, --retry formats and sends the records again,
    without applying the sink's `events` a second time; what the receiver accepts counts as
    delivered.

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
        raise click.UsageError("--retry and --drop need the name of a sink")
    loaded = load_or_exit(config, sends_to=sink if retry else None)
    redactor = Redactor(loaded.secrets)
    with open_buffer(loaded.config.state_dir) as store:
        before = store.opened().end if last is None else last + 1
        counts = store.dead_letters()
        if sink is not None and sink not in counts:
            chosen(loaded, sink)  # a removed sink may have dead letters, too
        if drop and sink is not None:
            _drop(store, loaded.config, sink, first, before, yes=yes)
        elif retry and sink is not None:
            chosen(loaded, sink)
            if sink in counts:
                audit(loaded.config, LETTERS_RETRIED, sink,
                      f"sent dead letters of sink {sink} again")  # fmt: skip
            assembly = Assembly(loaded.config)
            everything = EventFilter(EventsOptions(), assembly.catalogue)
            parts = assembly.sink(sink)
            messages = msgspec.structs.replace(parts.messages, events=everything)
            parts = msgspec.structs.replace(parts, messages=messages)
            again = DeadLetterRetry(store, sink, first, before)
            number = parts.messages.number
            numbers = RetriedNumbers(_number_of(parts, again), number.encode()) if number else None
            outcome = send(assembly, parts, again, numbers).counts
            taken = outcome.delivered + outcome.duplicates
            click.echo(f"{sink}: {taken:,} accepted, {outcome.refused:,} refused again")
        else:
            _list(store, sorted(counts) if sink is None else [sink], first, before, redactor,
                  as_json=as_json)  # fmt: skip


def _number_of(parts: SinkParts, again: DeadLetterRetry) -> Callable[[int], tuple[str, int] | None]:
    """The function that finds the number of a refused message in it."""
    unwrap = ENVELOPES.get(parts.config.protocol)

    def number_of(sequence: int) -> tuple[str, int] | None:
        if not (message := again.message(sequence)):
            return None
        leaf = leaf_of(message if unwrap is None else unwrap(message))
        return None if leaf.stream is None or leaf.number is None else (leaf.stream, leaf.number)

    return number_of


def _drop(
    store: Store, config: RelayConfig, sink: str, first: int, before: int, *, yes: bool
) -> None:
    sequences = [letter.sequence for letter in _letters(store, sink, first, before)]
    count = len(sequences)
    if count and not yes:
        if not sys.stdin.isatty():
            raise click.UsageError(
                f"this would remove {count:,} dead letters for good; confirm with --yes"
            )
        click.confirm(f"remove {count:,} dead letters of {sink} for good?", abort=True)
    if count:
        audit(config, LETTERS_DROPPED, sink,
              f"removed {count:,} dead letters of sink {sink} for good", records=count)  # fmt: skip
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
                    f"only the first {_SHOWN} are shown; --json shows all, --from starts further on"
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
    why = sanitize_for_display(redactor.text(f"{letter.code} {letter.reason}"))
    click.secho(f"{letter.sink} {letter.sequence}  {rfc3339(letter.at)}  {why}", bold=True)
    for name, data in (("record", letter.record), ("message", letter.message)):
        click.echo(f"  {name:8} {sanitize_for_display(data.decode('utf-8', 'replace'))}")
