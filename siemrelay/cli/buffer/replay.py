"""`siemrelay buffer replay`: sends a range of records to one sink again."""

from __future__ import annotations

import time
from typing import Final

import click
import trio

from siemrelay.buffer.disk_reads import READ_BYTES
from siemrelay.buffer.replay import Replay
from siemrelay.buffer.sqlite.store import Store
from siemrelay.cli.buffer.open_buffer import load_or_exit, open_buffer, range_end
from siemrelay.cli.options import complete_sinks, config_option, period_options
from siemrelay.cli.person import audit
from siemrelay.cli.refusal import refuse
from siemrelay.config.load import Loaded
from siemrelay.config.models import RelayConfig
from siemrelay.core.errors import SiemrelayError, leaves
from siemrelay.core.event_types import REPLAYED
from siemrelay.pipeline.format_cache import FormatCache
from siemrelay.pipeline.formatting.messages import InternalError, messages_of
from siemrelay.pipeline.sealing.archive import folder_of, read_seals
from siemrelay.pipeline.sent_again import NumberSource, ReplayedNumbers, RetriedNumbers
from siemrelay.proof.stream import StreamState
from siemrelay.relay.assembly import Assembly, SinkParts, delivery
from siemrelay.telemetry.stats import SinkStats

# How often the state of the sink is checked.
_LOOK_EVERY_S: Final = 0.1


def chosen(loaded: Loaded, sink: str) -> str:
    """The name of a configured sink; raises a usage error that lists the names otherwise."""
    if sink not in loaded.config.sinks:
        known = ", ".join(loaded.config.sinks)
        raise click.UsageError(f"no sink is called {sink}; there is {known}")
    return sink


@click.command(short_help="send stored records to a sink again")
@config_option()
@click.option("--from", "first", type=click.IntRange(1), help="The first record's number.")
@click.option("--to", "last", type=click.IntRange(1), help="The last record's number; the last "
              "one that the sink has received by default.")  # fmt: skip
@period_options
@click.argument("sink", shell_complete=complete_sinks)
def replay(
    config: str, first: int | None, last: int | None, since: float | None, until: float | None,
    sink: str,
) -> None:  # fmt: skip
    """Send stored records to SINK again, through its filter and format, and wait for confirmation.

    Works beside the running relay, on a connection of its own, without moving the sink's cursor.
    Records that SINK has not received yet are not sent: the relay delivers them anyway. A receiver
    that is down is retried until Ctrl-C; what it refuses becomes a dead letter. `siemrelay buffer
    info` shows which records are stored.

    \b
    Examples:
      siemrelay buffer replay splunk --since 2h
      siemrelay buffer replay splunk --since 2026-11-28T03:00:00Z --until 2026-11-28T04:30:00Z
      siemrelay buffer replay qradar --from 120000 --to 125000
    """
    if (first is None) == (since is None):
        raise click.UsageError("give either --from NUMBER or --since TIME")
    loaded = load_or_exit(config, sends_to=sink)
    name = chosen(loaded, sink)
    with open_buffer(loaded.config.state_dir) as store:
        facts = store.opened()
        cursor = facts.sinks().get(name)
        passed = cursor.next_sequence if cursor else facts.end
        end = range_end(store, last, until, passed)
        begin = first or store.received_after(since or 0) or end
        begin = max(begin, (store.oldest() or (end, 0.0))[0])
        count = max(end - begin, 0)
        if not count:
            click.echo(
                f"nothing to send: none of the records that {name} has received is in that range"
            )
            return
        click.echo(f"sending records {begin:,} to {end - 1:,} to {name} again")
        audit(loaded.config, REPLAYED, name,
              f"sent the records {begin:,} to {end - 1:,} to sink {name} again")  # fmt: skip
        assembly = Assembly(loaded.config)
        again, parts = Replay(store, name, begin, end), assembly.sink(name)
        numbers = None
        if parts.messages.number is not None:
            numbers = numbers_from(loaded.config, assembly, parts, store, begin)
        stats = send(assembly, parts, again, numbers)
    counts = stats.counts
    held = f", {counts.duplicates:,} already held by the receiver" if counts.duplicates else ""
    missing = count - counts.settled() + counts.lost
    gone = f", {missing:,} no longer stored" if missing else ""
    click.echo(
        f"{name}: {counts.delivered:,} delivered, {counts.filtered:,} filtered, "
        f"{counts.refused:,} refused (kept as dead letters){held}{gone}"
    )


def numbers_from(
    config: RelayConfig, assembly: Assembly, parts: SinkParts, store: Store, begin: int
) -> NumberSource:
    """The numbers that the sink's messages had from the record `begin` on.

    Counted back from the next seal, or from the cursor: every message between has a number.
    """
    placeholder = (parts.messages.number or "").encode()
    cursor = store.opened().sinks().get(parts.name)
    state = StreamState.read(cursor.stream) if cursor is not None else None
    settings = assembly.stream(parts.name)
    if (state is None or settings is None or state.configuration != settings.configuration
            or begin < state.first_sequence):  # fmt: skip
        click.secho(
            f"{parts.name} has had some of these records in another stream, or without `seal:`: "
            "they are sent without a number, and `siemrelay verify` will report them as added",
            err=True, fg="yellow",
        )  # fmt: skip
        return RetriedNumbers(lambda sequence: None, placeholder)
    seals = [
        (seal.position, seal.number)
        for seal in read_seals(folder_of(config.state_dir, state.name))
        if seal.position > begin
    ]
    before, number = min([*seals, (state.next_sequence, state.tree.size)])
    formatter, errors = assembly.formatter({parts.name: parts.messages}), list[InternalError]()
    group, view = formatter.places[parts.name]
    count, position = 0, begin
    while position < before:
        rows = store.read(position, before, READ_BYTES)
        for batch in rows:
            made = formatter.format(formatter.decode(batch, errors), group, [view], errors)
            found = messages_of(made, view, 0, []).sequences
            if parts.messages.takes(batch):
                count += sum(begin <= sequence < before for sequence in found)
        position = rows[-1].next_sequence if rows else before
    return ReplayedNumbers(state.name, begin, number - count, seals, placeholder)


def send(
    assembly: Assembly, parts: SinkParts, again: Replay,
    numbers: NumberSource | None = None,
) -> SinkStats:  # fmt: skip
    """Deliver everything and count it in the buffer, also when stopped early.

    Exits with 1 when the sink holds, since a person has to fix something first, 130 at Ctrl-C.
    """
    formatted = FormatCache(assembly.formatter({parts.name: parts.messages}))
    stats = SinkStats(parts.name, since=time.time(), counts=again.cursor(parts.name).counts)

    async def run() -> None:
        try:
            async with trio.open_nursery() as nursery:
                sending = delivery(parts, formatted, again, stats, numbers=numbers)
                nursery.start_soon(sending.run)
                while not again.done.is_set() and stats.state != "holding":
                    with trio.move_on_after(_LOOK_EVERY_S):
                        await again.done.wait()
                nursery.cancel_scope.cancel()
        finally:
            with trio.CancelScope(shield=True):
                await again.finish()

    why, failed = "", list[SiemrelayError]()
    try:
        trio.run(run)
    except* KeyboardInterrupt:
        why = "stopped"
    except* SiemrelayError as group:
        failed = leaves(group)
    for error in failed:
        raise error
    if stats.state == "holding" and not again.done.is_set():
        why = stats.reason
    if why:
        message = f"{parts.name}: {why}; {stats.delivered:,} were delivered before"
        refuse(message, 130 if why == "stopped" else 1)
    return stats
