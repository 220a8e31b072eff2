"""Which field of an event is found where in a JSON record: each product's spellings, in order.

A path is dotted (`user.email`). For each field the first path that holds a usable value wins
(`reading.Finder`); a whole object under `actor` or `target` is looked into, never taken as a name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

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
                   "performed_by", "initiator", "principal", "userEmail", "user_email", "email"),
    "actor.id": (*_inside(_ACTORS, "id uid userId user_id"), "actorId", "actor_id", "userId",
                 "user_id", "uid"),
    "actor.address": (*_inside(_ACTORS, "address ip ipAddress ip_address"), "sourceIp", "source_ip",
                      "sourceIP", "source.ip", "ip", "ipAddress", "ip_address", "clientAddress",
                      "client_address", "clientIp", "client_ip", "client.ip", "remoteAddress",
                      "remote_addr", "address"),
    "target.type": (*_inside(_TARGETS, "type kind"), "targetType", "target_type", "objectType",
                    "resourceType", "resource_type", "entityType"),
    "target.name": (*_inside(_TARGETS, "name displayName email"), "target", "targetName",
                    "target_name", "object", "objectName", "resource", "resourceName", "entity",
                    "entityName"),
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
