"""One record → one event: what its values become, and what is left of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from siemrelay.core.event import FIELDS, Actor, AuditEvent, Target

Where = tuple[str, ...]
"""The keys that lead to a value: one for each object on the way."""

TEXT_FIELDS: Final = frozenset(FIELDS) - {"time", "type", "category", "severity", "outcome"}
"""Fields that are texts whatever the record has there; the others are normalised later."""

_ATTRIBUTES: Final = {"attributes"}


def rest_of(record: dict[str, Any], used: Iterable[Where]) -> dict[str, Any]:
    """What the record says beside the used values; takes the record apart for it.

    The members of an `attributes` object become the record's own, unless one would hide another.
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
    """An event from values in the order of `FIELDS`: texts made already, the rest as said."""
    return AuditEvent(
        id=id, time=time, type=type, category=category, severity=severity, outcome=outcome,
        actor=Actor(actor_name, actor_id, actor_address),
        target=Target(target_type, target_name, target_id), message=message,
    )  # fmt: skip
