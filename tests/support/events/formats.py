"""Formats as a configuration names them, for tests: made, asked about one event, about many."""

from __future__ import annotations

from typing import Any

from siemrelay.core.event import Actor, AuditEvent, Batch, Target
from siemrelay.formats.contract import Format
from siemrelay.formats.writing.text import CONTROL_PICTURES
from siemrelay.pipeline.formatting.formatter import Formatter, replaced_of
from siemrelay.pipeline.formatting.messages import InternalError, SinkMessages, messages_of
from siemrelay.registry import FORMATS, build_format
from tests.support.events.strategies import selection_of

HOST = "relay.example.com"
PLAIN = AuditEvent(
    id="e1", time="2024-03-01T08:00:00.123Z", type="Account Provisioned", category="account",
    severity=5, outcome="success", actor=Actor("Ada Lovelace", "u1", "10.0.0.1"),
    target=Target("account", "svc", "t1"), message="done", attributes={"region": "eu"},
)  # fmt: skip
"""An event with every field, none of which needs an escape."""


def made(name: str, header: Any = "none", **options: Any) -> Format:
    return build_format(name, header, FORMATS[name].options.model_validate(options), HOST)


def alone(form: Format, event: AuditEvent) -> str:
    (message,) = form.encode(selection_of([event]))
    return message.decode()


def carried(text: str, *, breaks: bool = False) -> str:
    """What a text is when it comes out: controls as pictures, half surrogate pairs as `?`."""
    kept = {ord("\n"), ord("\r")} if breaks else set()
    pictures = {code: p for code, p in CONTROL_PICTURES.items() if code not in kept}
    return text.translate(pictures).encode("utf-8", "replace").decode()


def messages_for(formatter: Formatter, sink: str, batch: Batch) -> SinkMessages:
    """One sink's messages of a batch, made for it alone."""
    errors: list[InternalError] = []
    group, view = formatter.places[sink]
    decoded = formatter.decode(batch, errors)
    made = formatter.format(decoded, group, [view], errors)
    return messages_of(made, view, decoded.unparsed, replaced_of(decoded))
