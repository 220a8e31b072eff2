"""`siemrelay pause SINK` and `siemrelay resume SINK`."""

from __future__ import annotations

import click

from siemrelay.cli.live.control_client import directory_of, print_answer, send
from siemrelay.cli.options import complete_sinks, config_option
from siemrelay.relay.control import PauseRequest, ResumeRequest


@click.command()
@config_option()
@click.argument("sink", shell_complete=complete_sinks)
def pause(config: str, sink: str) -> None:
    """Stop delivering to SINK; the other sinks go on.

    Its records wait in the buffer until `siemrelay resume SINK`, also across a restart of the
    relay. A paused sink never stops the sources: if the buffer is full, its oldest records are
    dropped and counted. The pause takes effect at once, even if it cannot be stored on a full disk:
    the answer then says so, and a restart before there is room resumes the sink. Exits with 0 when
    the sink is paused, 64 when there is no such sink, 69 when no relay runs.

    \b
    Example:
      siemrelay pause qradar
    """
    print_answer(send(directory_of(config), PauseRequest(sink)))


@click.command()
@config_option()
@click.argument("sink", shell_complete=complete_sinks)
def resume(config: str, sink: str) -> None:
    """Deliver to a paused SINK again, from where it stopped.

    Exits with 0 when the sink is not paused any more, 64 when there is no such sink, 69 when no
    relay runs.

    \b
    Example:
      siemrelay resume qradar
    """
    print_answer(send(directory_of(config), ResumeRequest(sink)))
