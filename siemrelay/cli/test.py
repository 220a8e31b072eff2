"""`siemrelay test SINK`: one marked test event along the sink's real path, step by step."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
import uuid
from typing import Any, Final

import click
import msgspec
import trio

from siemrelay.cli.config_faults import exit_with_faults
from siemrelay.cli.live.through import test_through
from siemrelay.cli.options import complete_sinks, config_option, json_option
from siemrelay.cli.person import audit
from siemrelay.cli.person import person as this_person
from siemrelay.config.load import load
from siemrelay.config.models import RelayConfig
from siemrelay.config.presets import search_text
from siemrelay.core.errors import (
    BatchRefused,
    ConfigurationRefused,
    DeliveryError,
    SinkHolds,
    leaves,
)
from siemrelay.core.event import Actor, AuditEvent, Batch, DecodedBatch, Selection, Target
from siemrelay.core.event_types import TEST, TEST_SENT
from siemrelay.core.times import rfc3339
from siemrelay.pipeline.formatting.truncate import truncated
from siemrelay.relay.assembly import Assembly, SinkParts
from siemrelay.relay.own_events import new_test_mark
from siemrelay.telemetry.log import Redactor, configure

# Longer than every sink's default timeout; only a missing acknowledgement takes longer.
_PATIENCE_S: Final = 60.0

_TOO_LARGE: Final = (
    "raise the receiver's size limit, or lower `max_message_size` and, where "
    "several events travel together, `batch: {max_bytes}`"
)
_REFUSED_ADVICE: Final = {
    **dict.fromkeys(("413", "EMSGSIZE", "MSG_SIZE_TOO_LARGE", "RECORD_LIST_TOO_LARGE"), _TOO_LARGE),
    "415": "check `compression`, `format` and, where there is one, `batch: {encoding}`",
}
"""Advice by rejection code, where the format is not the cause."""


@click.command()
@config_option()
@click.option("--as", "person", metavar="NAME", help="The test event's actor; by default the "
              "person who runs this, also through sudo.")  # fmt: skip
@click.option("--all", "every", is_flag=True, help="Test every enabled sink at the same time.")
@click.option("--through", is_flag=True, help="Put the event through the running relay, and follow "
              "it to the confirmation of SINK or of every sink.")  # fmt: skip
@click.option("--timeout", "timeout_s", metavar="SECONDS", default=30.0, show_default=True,
              type=click.FloatRange(0, 3600, min_open=True),
              help="With --through: how long to wait for the confirmations.")  # fmt: skip
@json_option()
@click.argument("sink", required=False, shell_complete=complete_sinks)
def test(
    config: str, person: str | None, every: bool, through: bool, timeout_s: float, as_json: bool,
    sink: str | None,
) -> None:  # fmt: skip
    """Send one marked test event to SINK along its real path and report every step.

    The event skips the sink's `events` filter and the buffer and takes its format, framing and
    connection. The running relay is not touched. Exits with 0 only if the receiver (with --all:
    every receiver) accepted the event; then prints the search that finds it in the SIEM.

    With --through the running relay stores the event like any other, so every sink gets it that
    takes events of its type; exits with 0 only if each sink confirmed it or its `events` leave it
    out, with 69 when no relay runs.

    \b
    Examples:
      siemrelay test splunk
      siemrelay test qradar --as "Ada Adams"
      siemrelay test --all
      siemrelay test --through
    """
    if through:
        if every:
            raise click.UsageError("--through follows every sink without --all")
        test_through(config, [sink] if sink else [], timeout_s, person=person, as_json=as_json)
    try:
        # The secrets of other sinks are no concern of a test, and often not at hand.
        loaded = load(config, only_sinks=None if every else [sink] if sink else [])
    except ConfigurationRefused as refused:
        exit_with_faults(refused, "nothing was sent")
    names = _chosen(loaded.config, sink, every=every)
    redactor = Redactor(loaded.secrets)
    configure("warning", "auto", redactor, config)
    assembly = Assembly(loaded.config)
    width = max(map(len, names)) if every else 0
    trials = [
        _Trial(assembly.sink(name), person or this_person(),
               _Steps(redactor, silent=as_json, prefix=name.ljust(width) if every else ""))
        for name in names
    ]  # fmt: skip
    for name in names:
        audit(loaded.config, TEST_SENT, name, f"sent a test event to sink {name}")
    trio.run(_run_all, trials)
    for trial in trials:
        _report(trial, as_json=as_json)
    raise SystemExit(0 if all(trial.taken for trial in trials) else 1)


def _chosen(config: RelayConfig, sink: str | None, *, every: bool) -> list[str]:
    known = ", ".join(config.sinks)
    if every:
        if sink is not None:
            raise click.UsageError("give a sink's name or --all, not both")
        enabled = [name for name, settings in config.sinks.items() if settings.enabled]
        if not enabled:
            raise click.UsageError(f"no sink is enabled; the sinks are {known}")
        return enabled
    if sink is None:
        raise click.UsageError(f"name a sink ({known}) or give --all")
    if sink not in config.sinks:
        raise click.UsageError(f"unknown sink `{sink}`; the sinks are {known}")
    return [sink]


def _report(trial: _Trial, *, as_json: bool) -> None:
    name, event = trial.parts.name, trial.event
    if as_json:
        result = {"sink": name, "taken": trial.taken, "event_id": event.id, "mark": trial.mark,
                  "search": trial.search, "steps": trial.steps.done}  # fmt: skip
        click.echo(json.dumps({**result, "advice": trial.advice} if trial.advice else result))
    elif trial.taken:
        click.secho(f"{name} accepted the test event {event.id}.", fg="green")
        click.echo(f"Find it there: {trial.search}")
    else:
        click.secho(f"{name} did not accept the test event: {trial.advice}", fg="red", err=True)


async def _run_all(trials: list[_Trial]) -> None:
    async with trio.open_nursery() as nursery:
        for trial in trials:
            nursery.start_soon(trial.run)


class _Steps:
    """Prints each step as it happens, without secrets."""

    def __init__(self, redactor: Redactor, *, silent: bool, prefix: str = "") -> None:
        self._redactor, self._silent, self._prefix = redactor, silent, prefix
        self.done: list[dict[str, Any]] = []

    def __call__(self, step: str, detail: str) -> None:
        detail = self._redactor.text(detail)
        self.done.append({"step": step, "detail": detail})
        if not self._silent:
            click.echo(f"  {self._prefix}{'  ' if self._prefix else ''}{step:10} {detail}")
            sys.stdout.flush()

    def clean(self, text: str) -> str:
        return self._redactor.text(text)


class _Trial:
    """One sink's test: the event, the steps, and the verdict once it has run."""

    def __init__(self, parts: SinkParts, person: str, steps: _Steps) -> None:
        self.parts, self.steps, self.mark = parts, steps, new_test_mark()
        self.event = marked_event(person, parts.name, self.mark)
        self.search = search_text(parts.config.siem, self.mark)
        self.taken, self.advice = False, ""

    async def run(self) -> None:
        """Send the event; sets `taken` if the receiver accepted it, else `advice`."""
        self.advice = f"no verdict within {_PATIENCE_S:.0f} s; is the receiver alive?"
        try:
            with trio.move_on_after(_PATIENCE_S):
                await self._send()
        except DeliveryError as error:
            self.advice = self._why(error)
        except BaseExceptionGroup as group:
            failed, rest = group.split(DeliveryError)
            if failed is None or rest is not None:
                raise
            self.advice = self._why(leaves(failed)[0])

    async def _send(self) -> None:
        # `format: raw` sends the record itself.
        record = msgspec.json.encode(self.event) + b"\n"
        batch = Batch(1, 1, "test", time.time(), record)
        decoded, parts = DecodedBatch(batch, [self.event]), self.parts
        selection = Selection(decoded)
        if parts.transform is not None:
            selection, _ = parts.transform.apply(selection)
        (message,) = parts.format.encode(selection)
        limit = parts.max_message_bytes
        if limit is not None and len(message) > limit:
            message = truncated(parts.format, selection, 0, message, limit)
        self.steps("message", message.decode("utf-8"))
        async with self.parts.sink.session(self.steps) as session:
            settlement = await session.confirm(await session.send([message]))
        if settlement:
            self.advice = self.steps.clean(_refused(settlement[0].code, settlement[0].reason))
        else:
            self.taken, self.advice = True, ""

    def _why(self, error: BaseException) -> str:
        if isinstance(error, SinkHolds):
            self.steps("refused", error.reason)
        if isinstance(error, BatchRefused):
            return self.steps.clean(_refused(error.code, error.reason))
        return self.steps.clean(str(error))


def _refused(code: str, reason: str) -> str:
    advice = _REFUSED_ADVICE.get(code, "check that it expects this `format`")
    return f"the receiver answered {code} {reason}; {advice}"


def marked_event(person: str, sink: str, mark: str) -> AuditEvent:
    """The test event of a person for a sink; its message begins with the mark."""
    now = time.time()
    return AuditEvent(
        id=str(uuid.uuid4()), time=rfc3339(now), type=TEST, category="relay", severity=1,
        outcome="success", actor=Actor(name=person, address=_address()),
        target=Target(type="sink", name=sink),
        message=f"{mark}: siemrelay test event for sink {sink}, sent by {person}",
        attributes={"test": True},
    )  # fmt: skip


def _address() -> str | None:
    # Over ssh, the address of the person's own machine.
    came_from = os.environ.get("SSH_CONNECTION", "").split(" ")[0]
    return came_from or (socket.gethostname() or None)
