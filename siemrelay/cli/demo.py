"""`siemrelay demo`: the relay at work on this machine."""

from __future__ import annotations

import os
import sys

import click
import trio

from siemrelay.demo.daemon import DaemonFailed
from siemrelay.demo.proof import run_proof_demo
from siemrelay.demo.run import DemoPlan, Stopped, run_demo
from siemrelay.demo.view import LiveView, PlainView

# 128 and the signal's number, as shells have it.
_EXIT_STOPPED = 130


@click.command()
@click.option("--seconds", type=click.FloatRange(2, 3600), default=20, show_default=True,
              help="How long to write events.")  # fmt: skip
@click.option("--rate", type=click.IntRange(1, 2000), default=200, show_default=True,
              help="Average events per second.")  # fmt: skip
@click.option("--plain", is_flag=True, help="Print lines instead of the live view, as in a pipe.")
@click.option("--proof", is_flag=True, help="Instead: tamper with what a SIEM exports, and let "
              "`siemrelay verify` find the very event.")  # fmt: skip
def demo(seconds: float, rate: int, plain: bool, proof: bool) -> None:
    """Show the relay at work: live audit logs, the real daemon, three receivers, a live view.

    Needs no configuration, no network and no other program. It works in a temporary directory and
    removes it at the end. On the way a log is rotated, and a receiver goes down and comes back.
    Ctrl-C ends it early and in order; a second Ctrl-C ends it at once.

    Exits with 0 when every event written was delivered or filtered, 1 when an event is missing,
    130 when a second Ctrl-C ended it.

    \b
    Examples:
      siemrelay demo
      siemrelay demo --seconds 60 --rate 1000
      siemrelay demo --plain | tee demo.txt
      siemrelay demo --proof
    """
    if proof:
        sys.exit(0 if run_proof_demo(click.echo) else 1)
    view = LiveView() if not plain and _can_draw() else PlainView()
    try:
        balance = trio.run(run_demo, DemoPlan(seconds, rate), view)
    except Stopped:
        click.echo("stopped; the temporary directory is removed", err=True)
        sys.exit(_EXIT_STOPPED)
    except DaemonFailed as error:
        click.echo(f"siemrelay demo: {error.reason}; the end of its log:", err=True)
        for line in error.log_tail:
            click.echo(f"  {line}", err=True)
        sys.exit(1)
    except BrokenPipeError:
        # The reader is gone (`| head`); without this, Python's flush at the exit fails again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    sys.exit(balance.exit_code)


def _can_draw() -> bool:
    utf8 = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    return sys.stdout.isatty() and utf8 and os.environ.get("TERM", "dumb") != "dumb"
