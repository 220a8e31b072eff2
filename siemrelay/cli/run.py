"""`siemrelay run`: the daemon, in the foreground."""

from __future__ import annotations

import gc
import itertools
import os
import resource
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import NoReturn

import click
import structlog
import trio

from siemrelay.cli.config_faults import exit_with_faults
from siemrelay.cli.options import advice, config_option
from siemrelay.config.checks.missing import missing_resources
from siemrelay.config.files import text_of
from siemrelay.config.load import Loaded, load_again, load_text, of_pool
from siemrelay.core.errors import (
    BufferBroken,
    BufferMoved,
    ConfigurationRefused,
    StartRefused,
    leaves,
)
from siemrelay.net.clock import AlarmClock
from siemrelay.pipeline.heap import prepare_heap
from siemrelay.relay.relay import Relay
from siemrelay.telemetry.log import Redactor, configure, journal_prefix

# The worker threads hold the interpreter for microseconds at a time; with the default of 5 ms a
# commit would wait that long for each of its steps while the loop is busy.
_SWITCH_INTERVAL_S = 0.0005

# Events live for one batch and form no cycles: by default the collector would run at every 700
# new objects and find nothing.
GC_THRESHOLD = 50_000

# A shell's limit of 1,024 descriptors is lower than the connections that one source may serve. Not
# higher than the unit's LimitNOFILE: some libraries walk through every possible descriptor.
_DESCRIPTORS = 65_536


@click.command()
@config_option()
@click.option(
    "--drain",
    is_flag=True,
    help="Stop when every source is at its end and every sink has confirmed. A file's last line "
    "then counts as a record even without its line feed.",
)
@click.option("--pool", metavar="NAME", help="Run only the sources and sinks with this `pool:`.")
def run(config: str, drain: bool, pool: str | None) -> None:
    """Run the relay in the foreground until SIGTERM or Ctrl-C.

    Exits with 0 after an orderly stop, 78 on a fault in the configuration, 75 when it cannot start
    now (state directory or port in use), 74 when the disk fails, 1 when a signal stopped a --drain
    before its end.

    \b
    Examples:
      siemrelay run -c /etc/siemrelay/siemrelay.yaml
      siemrelay run -c once.yaml --drain
      siemrelay run -c fleet.yaml --pool emea
    """

    def read(before: Loaded | None, variables: Mapping[str, str]) -> Loaded:
        environment = {**os.environ, **variables} if variables else None
        if before is None:
            loaded = load_text(text_of(config), config, environment)
        else:
            loaded = load_again(before, environment)
        return loaded if pool is None else of_pool(loaded, pool)

    try:
        loaded = read(None, {})
    except ConfigurationRefused as refused:
        exit_with_faults(refused, "the relay does not start")
    log, redactor = loaded.config.log, Redactor(loaded.secrets)
    configure(log.level, log.format, redactor, config)
    for fault in itertools.chain(*missing_resources(loaded)):
        # Only the part that needs it waits for it.
        structlog.get_logger().error("missing on this machine", fault=fault.located(loaded.file))
    gc.freeze()  # loaded modules stay for ever: never scan them
    gc.set_threshold(GC_THRESHOLD)
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    prepare_heap()
    _raise_descriptor_limit()
    clock = AlarmClock()
    try:
        relay = Relay(loaded, redactor=redactor, read=read)
        at_end = trio.run(_run, relay, drain, clock=clock, instruments=[clock])
    except StartRefused as error:
        click.echo(advice(f"{journal_prefix('error')}siemrelay: {error}"), err=True)
        raise SystemExit(os.EX_TEMPFAIL) from error
    except BufferBroken as broken:
        _end(broken)
    except BaseExceptionGroup as group:
        # Other failures in the group are consequences of the disk's.
        found = group.subgroup(BufferBroken)
        if found is None:
            raise
        _end(leaves(found)[0])
    raise SystemExit(0 if at_end or not drain else 1)


def _raise_descriptor_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < most:
        with suppress(OSError):  # a sandbox may forbid it; the lower limit then stays
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _end(broken: BaseException) -> NoReturn:
    structlog.get_logger().critical("the disk buffer failed; ending", error=str(broken))
    if isinstance(broken, BufferMoved):
        sys.stderr.flush()
        os._exit(os.EX_IOERR)
    raise SystemExit(os.EX_IOERR) from broken


async def _run(relay: Relay, drain: bool) -> bool:
    return await relay.run(drain=drain)
