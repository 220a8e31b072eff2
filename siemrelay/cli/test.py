"""`siemrelay test SINK`: one marked test event along the sink's real path, step by step."""

from __future__ import annotations

import json
import os
import pwd
import socket
import sys
import time
import uuid
from typing import Any, Final

import click
import trio

from siemrelay.assembly import Assembly, SinkParts
from siemrelay.cli.check import refuse
from siemrelay.cli.options import config_option, json_option
from siemrelay.config.load import load
from siemrelay.errors import ConfigurationRefused, DeliveryError, RunRefused, SinkHolds
from siemrelay.event import Actor, AuditEvent, Batch, DecodedBatch, Selection, Target
from siemrelay.telemetry.log import Redactor
from siemrelay.times import rfc3339

TEST_TYPE: Final = "SIEM Integration Test"


@click.command()
@config_option()
@click.option("--as", "person", metavar="NAME", help="The actor of the test event; the person who "
              "runs this by default, behind sudo too.")  # fmt: skip
@json_option()
@click.argument("sink")
def test(config: str, person: str | None, as_json: bool, sink: str) -> None:
    """Send one marked test event to SINK along its real path and report every step.

    The event goes past the sink's `events` filter and past the buffer, through its format, framing
    and connection; nothing of the running relay is touched. Exits with 0 only if the peer took it.

    \b
    Examples:
      siemrelay test splunk
      siemrelay test qradar --as "Ada Adams"
    """
    try:
        loaded = load(config)
    except ConfigurationRefused as refused:
        refuse(refused)
    if sink not in loaded.config.sinks:
        known = ", ".join(loaded.config.sinks)
        raise click.UsageError(f"no sink is called {sink}; there is {known}")
    parts = Assembly(loaded.config).sink(sink)
    steps = _Steps(Redactor(loaded.secrets), silent=as_json)
    event = _event(person or _person(), sink)
    taken, advice = trio.run(_send, parts, event, steps)
    if as_json:
        result = {"sink": sink, "taken": taken, "event_id": event.id, "steps": steps.done}
        click.echo(json.dumps({**result, "advice": advice} if advice else result))
    elif taken:
        click.secho(f"{sink} took the test event {event.id}.", fg="green")
    else:
        click.secho(f"{sink} did not take the test event: {advice}", fg="red", err=True)
    raise SystemExit(0 if taken else 1)


class _Steps:
    """Prints each step as it happens, without secrets."""

    def __init__(self, redactor: Redactor, *, silent: bool) -> None:
        self._redactor, self._silent = redactor, silent
        self.done: list[dict[str, Any]] = []

    def __call__(self, step: str, detail: str) -> None:
        detail = self._redactor.text(detail)
        self.done.append({"step": step, "detail": detail})
        if not self._silent:
            click.echo(f"  {step:10} {detail}")
            sys.stdout.flush()

    def clean(self, text: str) -> str:
        return self._redactor.text(text)


async def _send(parts: SinkParts, event: AuditEvent, steps: _Steps) -> tuple[bool, str]:
    """Whether the peer took it, and if not, what to do."""
    batch = Batch(1, 1, "test", time.time(), b"{}\n")
    (message,) = parts.format.encode(Selection(DecodedBatch(batch, [event])))
    steps("message", message.decode("utf-8"))
    try:
        async with parts.sink.session(steps) as session:
            settlement = await session.confirm(await session.send([message]))
    except SinkHolds as error:
        steps("refused", error.reason)
        return False, steps.clean(str(error))
    except RunRefused as error:
        return False, steps.clean(
            f"it answered {error.code} {error.reason}; check `format` and what it expects"
        )
    except DeliveryError as error:
        return False, steps.clean(str(error))
    except BaseExceptionGroup as group:
        failed, rest = group.split(DeliveryError)
        if failed is None or rest is not None:
            raise
        return False, steps.clean("; ".join(map(str, failed.exceptions)))
    if settlement:
        return False, steps.clean(f"it answered {settlement[0].code} {settlement[0].reason}")
    return True, ""


def _event(person: str, sink: str) -> AuditEvent:
    now = time.time()
    return AuditEvent(
        id=str(uuid.uuid4()), time=rfc3339(now), type=TEST_TYPE, category="relay", severity=1,
        outcome="success", actor=Actor(name=person, address=_address()),
        target=Target(type="sink", name=sink),
        message=f"siemrelay test event for sink {sink}, sent by {person}",
        attributes={"test": True},
    )  # fmt: skip


def _person() -> str:
    """Who runs this: the one behind sudo, else the login name."""
    behind = os.environ.get("SUDO_USER")
    if behind and os.geteuid() == 0:
        return behind
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return f"uid {os.geteuid()}"


def _address() -> str | None:
    # The person's own address where they came in by ssh.
    came_from = os.environ.get("SSH_CONNECTION", "").split(" ")[0]
    return came_from or (socket.gethostname() or None)
