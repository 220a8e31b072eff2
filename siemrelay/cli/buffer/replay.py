"""`siemrelay buffer replay`: sends a range of records to one sink again."""

from __future__ import annotations

import time
from typing import Final

import click
import trio

from siemrelay.buffer.replay import Replay
from siemrelay.cli.buffer.open_buffer import load_or_exit, open_buffer
from siemrelay.cli.options import complete_sinks, config_option
from siemrelay.cli.person import audit
from siemrelay.config.load import Loaded
from siemrelay.config.models import RelayConfig
from siemrelay.core.errors import SiemrelayError, leaves
from siemrelay.core.event_types import REPLAYED
from siemrelay.core.options import seconds
from siemrelay.pipeline.format_cache import FormatCache
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


def _seconds(context: click.Context, option: click.Parameter, value: str | None) -> float | None:
    try:
        return None if value is None else seconds(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@click.command()
@config_option()
@click.option("--from", "first", type=click.IntRange(1), help="The first record's number.")
@click.option("--to", "last", type=click.IntRange(1), help="The last record's number; the last "
              "one that the sink has received by default.")  # fmt: skip
@click.option("--since", metavar="DURATION", callback=_seconds,
              help="Records received within this time, like 2h.")  # fmt: skip
@click.argument("sink", shell_complete=complete_sinks)
def replay(
    config: str, first: int | None, last: int | None, since: float | None, sink: str
) -> None:
    """Send stored records to SINK again, through its filter and format, and wait for confirmation.

    Works beside the running relay, on a connection of its own, without moving the sink's cursor.
    Records that SINK has not received yet are not sent: the relay delivers them anyway. A receiver
    that is down is retried until Ctrl-C; what it refuses becomes a dead letter. `siemrelay buffer
    info` shows which records are stored.

    \b
    Examples:
      siemrelay buffer replay splunk --since 2h
      siemrelay buffer replay qradar --from 120000 --to 125000
    """
    if (first is None) == (since is None):
        raise click.UsageError("give either --from NUMBER or --since DURATION")
    loaded = load_or_exit(config, sends_to=sink)
    name = chosen(loaded, sink)
    with open_buffer(loaded.config.state_dir) as store:
        facts = store.opened()
        cursor = facts.sinks().get(name)
        passed = cursor.next_sequence if cursor else facts.end
        end = passed if last is None else min(last + 1, facts.end)
        begin = first or store.received_after(time.time() - (since or 0)) or end
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
        again = Replay(store, name, begin, end)
        stats = send(loaded.config, assembly, assembly.sink(name), again)
    counts = stats.counts
    held = f", {counts.duplicates:,} already held by the receiver" if counts.duplicates else ""
    missing = count - counts.settled() + counts.lost
    gone = f", {missing:,} no longer stored" if missing else ""
    click.echo(
        f"{name}: {counts.delivered:,} delivered, {counts.filtered:,} filtered, "
        f"{counts.refused:,} refused (kept as dead letters){held}{gone}"
    )


def send(config: RelayConfig, assembly: Assembly, parts: SinkParts, again: Replay) -> SinkStats:
    """Deliver everything and count it in the buffer, also when stopped early.

    Exits with 1 when the sink holds, since a person has to fix something first, 130 at Ctrl-C.
    """
    formatted = FormatCache(assembly.formatter({parts.name: parts.messages}))
    stats = SinkStats(parts.name, since=time.time(), counts=again.cursor(parts.name).counts)

    async def run() -> None:
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(delivery(parts, formatted, again, stats).run)
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
        click.secho(message, err=True, fg="red")
        raise SystemExit(130 if why == "stopped" else 1)
    return stats
