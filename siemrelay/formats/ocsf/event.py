"""Open Cybersecurity Schema Framework: one JSON object an event, of the class that fits it.

Rules: OCSF schema 1.5.0. An event is of class Account Change (3001), Authentication (3002), Entity
Management (3004) or API Activity (6003) if it has what that class requires, else a Base Event (0).
What its class has no attribute for stands in `unmapped`.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Final

import msgspec
from pydantic import Field

from siemrelay.core.event import FIELDS, Actor, AuditEvent, Selection, Target
from siemrelay.core.memo import BoundedMemo
from siemrelay.formats.contract import FormatKind
from siemrelay.formats.ocsf.classes import (
    ACCOUNT_CHANGE,
    API_ACTIVITY,
    BASE_EVENT,
    ENTITY_MANAGEMENT,
    OTHER,
    SEVERITIES,
    STATUSES,
    VERSION,
    Class,
    classified,
    typed,
)
from siemrelay.formats.ocsf.columns import OcsfColumns
from siemrelay.formats.syslog_header import HeaderOptions
from siemrelay.formats.writing.columns import FEW
from siemrelay.formats.writing.epoch import EpochMs
from siemrelay.formats.writing.json_text import message_of


class OcsfOptions(HeaderOptions):
    """What an OCSF sink may set."""

    vendor: str = Field("siemrelay", min_length=1, description="`metadata.product.vendor_name`")
    product: str = Field("audit", min_length=1, description="`metadata.product.name`")
    version: str | None = Field(None, min_length=1, description="`metadata.product.version`")


class _Product(msgspec.Struct, gc=False, omit_defaults=True):
    name: str
    vendor_name: str
    version: str | None = None


class _Metadata(msgspec.Struct, gc=False):
    version: str
    product: _Product
    uid: str | None
    event_code: str
    log_name: str
    sequence: int


class _Named(msgspec.Struct, gc=False, omit_defaults=True):
    """A user, an entity, a resource: a name, a uid and a type in each of them."""

    name: str | None = None
    uid: str | None = None
    type: str | None = None


class _Actor(msgspec.Struct, gc=False, omit_defaults=True):
    user: _Named | None = None
    app_name: str | None = None


class _Endpoint(msgspec.Struct, gc=False, omit_defaults=True):
    ip: str | None = None
    name: str | None = None
    svc_name: str | None = None


class _Api(msgspec.Struct, gc=False):
    operation: str


class _Message(msgspec.Struct, gc=False, omit_defaults=True):
    class_uid: int
    category_uid: int
    activity_id: int
    type_uid: int
    severity_id: int
    status_id: int
    time: int
    metadata: _Metadata
    activity_name: str | None = None
    message: str | None = None
    actor: _Actor | None = None
    user: _Named | None = None
    entity: _Named | None = None
    service: _Named | None = None
    src_endpoint: _Endpoint | None = None
    api: _Api | None = None
    resources: list[_Named] | None = None
    unmapped: dict[str, Any] | None = None


class Ocsf:
    """Events → OCSF events.

    Two ways to the same event (test_many_events_become_what_each_becomes_alone): structs for a few,
    columns for many, which are sorted by their class first.
    """

    fields = frozenset({*FIELDS, "attributes"})

    def __init__(self, options: OcsfOptions) -> None:
        self._product = _Product(options.product, options.vendor, options.version)
        self._service = _Named(options.product)
        self._epoch = EpochMs()
        self._classes = BoundedMemo[tuple[str, str], Class](lambda pair: classified(*pair))
        self._columns = OcsfColumns(options.product, message_of(self._product).decode())

    def encode(self, selection: Selection) -> list[bytes]:
        """See `formats.contract.Format`."""
        if len(selection) >= FEW:
            with suppress(UnicodeEncodeError):  # half surrogate pairs
                return self._columns.encode(selection)
        source = selection.decoded.batch.source
        return [
            message_of(self._message(event, sequence, source))
            for sequence, event in zip(selection.sequences, selection.events, strict=True)
        ]

    def _message(self, event: AuditEvent, sequence: int, source: str) -> _Message:
        kind, severity = event.type, event.severity or 0
        uid, category_uid, activity = chosen = self._classes[kind, event.category or ""]
        made = _Message(
            uid, category_uid, activity, chosen.type_uid, SEVERITIES[severity],
            STATUSES.get(event.outcome or "", 0), int(self._epoch(event.time or "")),
            _Metadata(VERSION, self._product, event.id, kind, source, sequence),
            message=event.message,
        )  # fmt: skip
        rest: dict[str, Any] = {}
        if event.category:
            rest["category"] = event.category
        if event.attributes:
            rest["attributes"] = event.attributes
        if not uid or not self._fill(made, event, rest):
            made.class_uid, made.category_uid, made.activity_id = BASE_EVENT
            made.type_uid = BASE_EVENT.type_uid
            _keep(rest, "actor", event.actor)
            _keep(rest, "target", event.target)
        if made.activity_id == OTHER:
            made.activity_name = kind
        made.unmapped = rest or None
        return made

    def _fill(self, made: _Message, event: AuditEvent, rest: dict[str, Any]) -> bool:
        """Give it what its class has; False, and nothing done, without what the class requires."""
        who, target = event.actor, event.target
        by = to = None
        if who.name or who.id:
            by = _Named(who.name or None, who.id or None)
        if target.name or target.id:
            to = _Named(target.name or None, target.id or None, target.type or None)
        uid = made.class_uid
        if uid == API_ACTIVITY:
            if by is None and not who.address:
                return False
            made.api = _Api(event.type)
            made.actor = _Actor(by) if by else _Actor(app_name=self._product.name)
            made.resources = [to] if to else None
            made.src_endpoint = _endpoint(who.address) or _Endpoint(svc_name=self._product.name)
            return True
        if uid == ENTITY_MANAGEMENT:
            if to is None:
                return False
            made.entity = to
        elif to is None and by is None:
            return False
        elif uid == ACCOUNT_CHANGE:
            made.user = to or by
        else:
            made.user, made.service = by or to, self._service
            if by and to:
                _keep(rest, "target", target)
        made.actor = _Actor(by) if by else None
        made.src_endpoint = _endpoint(who.address)
        return True


def _endpoint(address: str | None) -> _Endpoint | None:
    if not address:
        return None
    return _Endpoint(ip=address) if typed(address) else _Endpoint(name=address)


def _keep(rest: dict[str, Any], name: str, part: Actor | Target) -> None:
    # Made anew: a decoded one is encoded with the names that its source uses.
    said = {field: said for field in part.__struct_fields__ if (said := getattr(part, field))}
    if said:
        rest[name] = said


OCSF: Final = FormatKind(
    OcsfOptions, lambda options, host: Ocsf(options),
    "Open Cybersecurity Schema Framework 1.5", headers=True,
)  # fmt: skip
