"""One JSON object an event: the event's own vocabulary, nested, and what the relay knows of it."""

from __future__ import annotations

import json
from typing import Any, Final

import msgspec
from pydantic import Field

from siemrelay.core.event import (
    FIELDS,
    NOBODY,
    NOTHING,
    Actor,
    AuditEvent,
    Selection,
    Target,
    attributes_of,
)
from siemrelay.core.times import rfc3339
from siemrelay.formats.contract import FormatKind
from siemrelay.formats.reshaped import DottedNames, Reshaped
from siemrelay.formats.syslog_header import HeaderOptions


class JsonOptions(HeaderOptions):
    """What a JSON sink may set."""

    map: DottedNames = Field(
        default_factory=dict,
        description="members to add or replace, each with the event field it takes "
        "(`who.login: actor.name`); null leaves a member out",
    )


class _Relay(msgspec.Struct, gc=False):
    sequence: int
    source: str
    received: str


class _Out(msgspec.Struct, gc=False, omit_defaults=True):
    id: str | None
    time: str | None
    type: str
    category: str | None
    severity: int | None
    outcome: str | None
    actor: Actor = NOBODY
    target: Target = NOTHING
    message: str | None = None
    attributes: Any = None
    siemrelay: _Relay | None = None


_encode: Final = msgspec.json.Encoder().encode


class Json:
    """Events → JSON objects with exactly the fields that they have."""

    fields = frozenset({*FIELDS, "attributes"})

    def __init__(self, options: JsonOptions) -> None:
        self._reshaped = Reshaped(options.map) if options.map else None

    def encode(self, selection: Selection) -> list[bytes]:
        """See `formats.contract.Format`."""
        batch = selection.decoded.batch
        source, received = batch.source, rfc3339(batch.received_at)
        messages = []
        for sequence, event in zip(selection.sequences, selection.events, strict=True):
            out = _out(event, _Relay(sequence, source, received))
            try:
                messages.append(_encode(out))
            except UnicodeEncodeError:
                out.attributes = attributes_of(event) or None
                messages.append(_forgiving(out))
        if self._reshaped:
            return list(map(self._reshaped, messages, selection.events))
        return messages


def _out(event: AuditEvent, relay: _Relay) -> _Out:
    actor, target = event.actor, event.target
    # Made anew: a decoded one is encoded with the names that its source uses.
    by = (actor.name, actor.id, actor.address)
    to = (target.type, target.name, target.id)
    return _Out(
        event.id, event.time, event.type, event.category, event.severity, event.outcome,
        NOBODY if by == _NONE else Actor(*by), NOTHING if to == _NONE else Target(*to),
        event.message, event.attributes or None, relay,
    )  # fmt: skip


_NONE: Final = (None, None, None)


def _forgiving(out: _Out) -> bytes:
    """What msgspec refuses, half surrogate pairs: they become `?`."""
    return json.dumps(_plain(out), ensure_ascii=False, separators=(",", ":")).encode()


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {_plain(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    if isinstance(value, msgspec.Struct):
        named = zip(value.__struct_fields__, msgspec.structs.astuple(value), strict=True)
        return {
            name: _plain(inner) for name, inner in named if inner not in (None, NOBODY, NOTHING)
        }
    return value


JSON: Final = FormatKind(
    JsonOptions, lambda options, host: Json(options), "one JSON object an event", headers=True
)
