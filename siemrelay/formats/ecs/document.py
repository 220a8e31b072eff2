"""Elastic Common Schema 8: one nested JSON object an event.

Rules: ECS 8.11 field reference; the values of `event.kind`, `event.category` and `event.type` are
those of "ECS Categorization Fields", the types those that its category expects. What ECS has no
field for stands in `labels`, flat and as text.
"""

from __future__ import annotations

from typing import Final

import msgspec
from pydantic import Field

from siemrelay.core.event import FIELDS, NOTHING, AuditEvent, Selection, Target, attributes_of
from siemrelay.core.memo import BoundedMemo
from siemrelay.core.times import rfc3339
from siemrelay.formats.contract import FormatKind
from siemrelay.formats.ecs.categories import (
    USERS,
    VERSION,
    Sorted,
    categorised,
    event_kind,
    label_name,
)
from siemrelay.formats.ecs.columns import EcsColumns
from siemrelay.formats.syslog_header import HeaderOptions
from siemrelay.formats.writing.address import is_ip
from siemrelay.formats.writing.attributes import flattened
from siemrelay.formats.writing.columns import FEW
from siemrelay.formats.writing.json_text import message_of, without_clashes
from siemrelay.formats.writing.text import text_of


class EcsOptions(HeaderOptions):
    """What an ECS sink may set."""

    original: bool = Field(
        False, description="also send the record as it was received, in `event.original`"
    )


class _Ecs(msgspec.Struct, gc=False):
    version: str


class _Event(msgspec.Struct, gc=False, omit_defaults=True):
    id: str | None
    kind: str
    action: str
    outcome: str | None
    severity: int | None
    sequence: int
    provider: str
    created: str
    category: list[str] | None = None
    type: list[str] | None = None
    original: str | None = None


class _Named(msgspec.Struct, gc=False, omit_defaults=True):
    name: str | None = None
    id: str | None = None


class _User(msgspec.Struct, gc=False, omit_defaults=True):
    name: str | None = None
    id: str | None = None
    target: _Named | None = None


class _Source(msgspec.Struct, gc=False, omit_defaults=True):
    address: str
    ip: str | None = None


class _Message(msgspec.Struct, gc=False, omit_defaults=True, rename={"timestamp": "@timestamp"}):
    timestamp: str | None
    ecs: _Ecs
    event: _Event
    message: str | None = None
    user: _User | None = None
    group: _Named | None = None
    source: _Source | None = None
    labels: dict[str, str] | None = None


class Ecs:
    """Events → ECS documents.

    Two ways to the same document (test_many_events_become_what_each_becomes_alone): structs for a
    few events, columns for many.
    """

    fields = frozenset({*FIELDS, "attributes"})

    def __init__(self, options: EcsOptions) -> None:
        self._original = options.original
        self._ecs = _Ecs(VERSION)
        self._categorised = BoundedMemo[tuple[str, str], Sorted](lambda pair: categorised(*pair))
        self._labels = BoundedMemo(label_name)
        self._columns = EcsColumns(original=options.original)

    def encode(self, selection: Selection) -> list[bytes]:
        """See `formats.contract.Format`."""
        batch = selection.decoded.batch
        received = rfc3339(batch.received_at)
        if len(selection) >= FEW:
            messages = self._columns.encode(selection)
            if messages is not None:
                return messages
        documents = [
            self._message(event, sequence, batch.source, received)
            for sequence, event in zip(selection.sequences, selection.events, strict=True)
        ]
        if self._original:
            for message, record in zip(documents, selection.records, strict=True):
                message.event.original = record.decode("utf-8", "replace")
        return list(map(message_of, documents))

    def _message(self, event: AuditEvent, sequence: int, source: str, received: str) -> _Message:
        kind, actor, target = event.type, event.actor, event.target
        sorted_as = self._categorised[kind, event.category or ""]
        made = _Message(
            event.time, self._ecs,
            _Event(event.id, event_kind(kind), kind, event.outcome, event.severity, sequence,
                   source, received, sorted_as.category, sorted_as.type),
            event.message,
        )  # fmt: skip
        name, uid = actor.name, actor.id
        if name or uid:
            made.user = _User(name or None, uid or None)
        if address := actor.address:
            made.source = _Source(address, address if is_ip(address) else None)
        labels = [("category", event.category)] if event.category else []
        if target is not NOTHING:
            labels += _place(made, target, sorted_as.of)
        if event.attributes:
            names = self._labels
            labels += [
                (names[name], value if type(value) is str else text_of(value))
                for name, value in flattened(attributes_of(event))
                if value is not None
            ]
        if labels:
            made.labels = without_clashes(labels)
        return made


def _place(made: _Message, target: Target, of: str) -> list[tuple[str, str]]:
    """Puts the target where its kind belongs; gives the labels for what has no place."""
    kind, name, uid = target.type, target.name, target.id
    labels = [("target_type", kind)] if kind else []
    if not name and not uid:
        return labels
    if of == "user" or kind in USERS:
        made.user = made.user or _User()
        made.user.target = _Named(name or None, uid or None)
    elif of == "group":
        made.group = _Named(name or None, uid or None)
    else:
        labels += [
            (of_it, said) for of_it, said in (("target_name", name), ("target_id", uid)) if said
        ]
    return labels


ECS: Final = FormatKind(
    EcsOptions, lambda options, host: Ecs(options), "Elastic Common Schema 8", headers=True
)
