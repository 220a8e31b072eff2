"""`siemrelay run`: the daemon, in the foreground."""

from __future__ import annotations

import gc
import itertools
import os
import resource
import sys
from contextlib import suppress
from typing import NoReturn

import click
import structlog
import trio

from siemrelay.cli.options import config_option
from siemrelay.cli.refusal import refuse
from siemrelay.config.host_checks import lacking
from siemrelay.config.load import load, of_pool
from siemrelay.core.errors import BufferBroken, ConfigurationRefused, StartRefused, leaves
from siemrelay.relay.relay import Relay
from siemrelay.telemetry.log import Redactor, configure

# The worker threads hold the interpreter for microseconds at a time; with the default of 5 ms a
# commit would wait that long for each of its steps while the loop is busy.
_SWITCH_INTERVAL_S = 0.0005

# Events live for a batch and hold no cycles: by default the collector would look at every 700 new
# objects, and find nothing.
GC_THRESHOLD = 50_000

# A shell's limit of 1,024 descriptors is fewer than the connections that a source may serve; no
# more than the service has (LimitNOFILE), as some libraries go through all that there may be.
_DESCRIPTORS = 65_536


@click.command()
@config_option()
@click.option(
    "--drain",
    is_flag=True,
    help="Stop when every source is at its end and every sink "
    "has confirmed. A file's last line is then a record without its line feed, too.",
)
@click.option("--pool", metavar="NAME", help="Run only the sources and sinks with this `pool:`.")
def run(config: str, drain: bool, pool: str | None) -> None:
    """Run the relay in the foreground until SIGTERM or Ctrl-C.

    Exits with 0 after an orderly stop, 78 on a fault in the configuration, 75 when it cannot start
    here (state directory or port in use), 74 when the disk fails, 1 when a --drain was stopped
    before its end.

    \b
    Examples:
      siemrelay run -c /etc/siemrelay/siemrelay.yaml
      siemrelay run -c once.yaml --drain
      siemrelay run -c fleet.yaml --pool emea
    """
    try:
        loaded = load(config) if pool is None else of_pool(load(config), pool)
    except ConfigurationRefused as refused:
        refuse(refused)
    log = loaded.config.log
    configure(log.level, log.format, Redactor(loaded.secrets))
    for fault in itertools.chain(*lacking(loaded)):
        # The part that needs it waits for it; the others have no reason to.
        structlog.get_logger().error("missing on this machine", fault=fault.located(loaded.file))
    gc.freeze()  # what is loaded stays
    gc.set_threshold(GC_THRESHOLD)
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    _raise_descriptor_limit()
    try:
        at_end = trio.run(_run, Relay(loaded), drain)
    except StartRefused as error:
        click.echo(f"siemrelay: {error}", err=True)
        raise SystemExit(os.EX_TEMPFAIL) from error
    except BufferBroken as broken:
        _end(broken)
    except BaseExceptionGroup as group:
        # What else failed beside the disk failed because of it.
        found = group.subgroup(BufferBroken)
        if found is None:
            raise
        _end(leaves(found)[0])
    raise SystemExit(0 if at_end or not drain else 1)


def _raise_descriptor_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < most:
        with suppress(OSError):  # a sandbox may forbid it; then there are as many as there are
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _end(broken: BaseException) -> NoReturn:
    structlog.get_logger().critical("the disk buffer failed; ending", error=str(broken))
    raise SystemExit(os.EX_IOERR) from broken


async def _run(relay: Relay, drain: bool) -> bool:
    return await relay.run(drain=drain)
