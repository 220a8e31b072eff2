"""Which field of an event is found where in a record, and how the values become an event.

A path is dotted (`user.email`). For each field the first path that holds a usable value wins
(`json.lookup`); a whole object under `actor` or `target` is looked into, never taken as a name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar

from siemrelay.core.event import FIELDS, Actor, AuditEvent, Target

Spellings = Mapping[str, tuple[str, ...]]

_ACTORS: Final = (
    "actor", "user", "performedBy", "performed_by", "initiator", "principal", "subject",
)  # fmt: skip
_TARGETS: Final = ("target", "object", "resource", "entity")


def _inside(parents: tuple[str, ...], names: str) -> tuple[str, ...]:
    return tuple(f"{parent}.{name}" for parent in parents for name in names.split())


GENERIC: Final[Spellings] = {
    "id": ("id", "eventId", "event_id", "uuid", "guid", "auditId", "audit_id", "event.id",
           "recordId", "_id"),
    "time": ("time", "timestamp", "@timestamp", "createdAt", "created_at", "eventTime",
             "event_time", "occurredAt", "occurred_at", "date", "datetime", "event.created",
             "created", "ts"),
    "type": ("type", "eventType", "event_type", "eventName", "event_name", "action", "event.action",
             "event.type", "event", "operation", "activity", "name"),
    "category": ("category", "eventCategory", "event_category", "event.category", "group"),
    "severity": ("severity", "event.severity", "level", "priority", "risk"),
    "outcome": ("outcome", "result", "status", "success", "event.outcome", "succeeded"),
    "actor.name": (*_inside(_ACTORS, "name username userName displayName login email"),
                   "actor", "user", "username", "userName", "user_name", "performedBy",
                   "performed_by", "initiator", "principal", "userEmail", "user_email", "email",
                   "suser", "usrName", "srcuser", "src_user", "src_user_name"),
    "actor.id": (*_inside(_ACTORS, "id uid userId user_id"), "actorId", "actor_id", "userId",
                 "user_id", "uid"),
    "actor.address": (*_inside(_ACTORS, "address ip ipAddress ip_address"), "sourceIp", "source_ip",
                      "sourceIP", "source.ip", "ip", "ipAddress", "ip_address", "clientAddress",
                      "client_address", "clientIp", "client_ip", "client.ip", "remoteAddress",
                      "remote_addr", "address", "srcip", "src_ip", "src", "remip"),
    "target.type": (*_inside(_TARGETS, "type kind"), "targetType", "target_type", "objectType",
                    "resourceType", "resource_type", "entityType"),
    "target.name": (*_inside(_TARGETS, "name displayName email"), "target", "targetName",
                    "target_name", "object", "objectName", "resource", "resourceName", "entity",
                    "entityName", "duser", "dstuser", "dst_user", "dstname", "dhost", "dstip",
                    "dst_ip", "dst"),
    "target.id": (*_inside(_TARGETS, "id uid"), "targetId", "target_id", "objectId", "resourceId",
                  "resource_id", "entityId"),
    "message": ("message", "msg", "description", "summary", "text", "details"),
}  # fmt: skip
"""The spellings in common use. Order decides between two that are both there."""


def _first(own: dict[str, tuple[str, ...]]) -> Spellings:
    """The product's own spellings before the common ones."""
    return {field: tuple(dict.fromkeys((*own.get(field, ()), *paths)))
            for field, paths in GENERIC.items()}  # fmt: skip


PRODUCTS: Final[Mapping[str, Spellings]] = {
    "generic": GENERIC,
    "alm": _first({
        "type": ("type", "auditType", "AuditType", "eventType"),
        "time": ("time", "auditDate", "AuditDate", "timestamp"),
        "actor.name": ("actor.name", "user.name", "createdBy", "CreatedBy"),
        "actor.address": ("actor.ip", "actor.address"),
        "target.name": ("target.name", "accountName", "AccountName"),
        "target.id": ("target.id", "accountId", "AccountId"),
        "message": ("message", "notes", "Notes"),
    }),
    "lightrun": _first({
        "type": ("eventType", "type", "action", "eventName"),
        "time": ("timestamp", "time", "eventTime"),
        "actor.name": ("userEmail", "user.email", "actor.email", "actor.name"),
        "actor.address": ("sourceIp", "actor.address", "actor.ip"),
        "target.name": ("resourceName", "target.name"),
        "target.type": ("resourceType", "target.type"),
        "target.id": ("resourceId", "target.id"),
        "message": ("description", "message"),
    }),
    # Not PRIORITY: it runs the other way (0 is the worst).
    "journal": {
        "id": ("__CURSOR",),
        "time": ("_SOURCE_REALTIME_TIMESTAMP", "__REALTIME_TIMESTAMP"),
        "type": ("SYSLOG_IDENTIFIER", "_COMM", "_TRANSPORT"),
        "category": ("_SYSTEMD_UNIT",),
        "actor.id": ("_UID",),
        "target.name": ("_HOSTNAME",),
        "message": ("MESSAGE",),
    },
}  # fmt: skip
"""A product's name in the configuration → its spellings."""

Where = tuple[str, ...]
"""The keys that lead to a value: one for each object on the way."""

MOST_PAIRS: Final = 20_000
"""A message with more pairs than this is text: reading it would hold up everybody else."""

_Value = TypeVar("_Value")

TEXT_FIELDS: Final = frozenset(FIELDS) - {"time", "type", "category", "severity", "outcome"}
"""Fields that become text whatever type the record has there; the others are normalised later."""

_ATTRIBUTES: Final = {"attributes"}


def rest_of(record: dict[str, Any], used: Iterable[Where]) -> dict[str, Any]:
    """The record without the used values, which are removed from it.

    The members of an `attributes` object move up into the record, unless one would hide another.
    """
    for where in used:
        _take(record, where)
    own = record.get("attributes")
    if type(own) is dict and own.keys().isdisjoint(record.keys() - _ATTRIBUTES):
        del record["attributes"]
        record.update(own)
    return record


def _take(record: dict[str, Any], where: Where) -> None:
    if len(where) == 1:
        record.pop(where[0], None)
        return
    inner = record.get(where[0])
    if type(inner) is dict:
        _take(inner, where[1:])
        if not inner:
            del record[where[0]]


def text_of(value: Any) -> str | None:
    """A scalar as text, None as None; booleans as JSON writes them."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def event_of(
    id: Any, time: Any, type: Any, category: Any, severity: Any, outcome: Any,
    actor_name: Any, actor_id: Any, actor_address: Any,
    target_type: Any, target_name: Any, target_id: Any, message: Any,
) -> AuditEvent:  # fmt: skip
    """An event from values in the order of `FIELDS`: texts as texts, the others as received."""
    return AuditEvent(
        id=id, time=time, type=type, category=category, severity=severity, outcome=outcome,
        actor=Actor(actor_name, actor_id, actor_address),
        target=Target(target_type, target_name, target_id), message=message,
    )  # fmt: skip


def first_of_each(names: Sequence[str], values: Sequence[_Value]) -> dict[str, _Value]:
    """Name → value, in order; where a name comes twice the first value counts.

    What an attacker appends to a value that is not escaped changes nothing that stands before it.
    """
    found = dict(zip(names, values, strict=True))
    if len(found) < len(names):
        firsts = dict(zip(reversed(names), reversed(values), strict=True))
        found = {name: firsts[name] for name in found}
    return found


def with_extension(fields: dict[str, Any], more: dict[str, Any], form: str) -> dict[str, Any]:
    """What a header and a dictionary gave, and what else a message says beside it.

    A key that has the name of a field which is taken already goes into an object under the name of
    the form: `CEF:…|Login|…|type=Logout` keeps its type, and has an attribute `cef.type`.
    """
    taken = [name for name in more if name in fields or name == form]
    if taken:
        fields[form] = {name: more.pop(name) for name in taken}
    return fields | more
