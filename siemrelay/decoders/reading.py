"""One JSON record → one event, by looking through every spelling of every field."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from siemrelay.decoders.mapping import Spellings
from siemrelay.event import FIELDS, Actor, AuditEvent, Target

Where = tuple[str, ...]
"""The keys that lead to a value: one for each object on the way."""

TEXT_FIELDS: Final = frozenset(FIELDS) - {"time", "type", "category", "severity", "outcome"}
"""Fields that are texts whatever the record has there; the others are normalised later."""

# Sets of keys come from outside; so many of them, of so many characters, are remembered at a time.
_PLANS_KEPT: Final = 512
_PLAN_CHARACTERS: Final = 2048


class Finder:
    """Finds the fields of an event in records.

    A record has a dozen keys, the spellings are a hundred: which of them records with the same keys
    can have at all is worked out once.
    """

    def __init__(self, spellings: Spellings) -> None:
        self._spellings = spellings
        self._plans: dict[tuple[str, ...], list[tuple[str, list[Where]]]] = {}

    def find(self, record: dict[str, Any]) -> list[tuple[str, Where, Any]]:
        """(field, where, value) for every field that the record has a usable value for.

        At a dotted path, a key with these dots in it comes before objects in objects. Null, an
        empty text, an object and a list are no usable values: the next spelling is tried.
        """
        keys = tuple(record)
        plan = self._plans.get(keys)
        if plan is None:
            plan = self._plan(keys)
        found = []
        for field, tried in plan:
            for where in tried:
                value: Any = record
                for name in where:
                    value = value.get(name) if type(value) is dict else None
                if value is not None and value != "" and type(value) not in (dict, list):
                    found.append((field, where, value))
                    break
        return found

    def _plan(self, keys: tuple[str, ...]) -> list[tuple[str, list[Where]]]:
        present, plan = frozenset(keys), []
        for field, paths in self._spellings.items():
            tried: list[Where] = []
            for path in paths:
                steps = tuple(path.split("."))
                if path in present:
                    tried.append((path,))
                if len(steps) > 1 and steps[0] in present:
                    tried.append(steps)
            if tried:
                plan.append((field, tried))
        if sum(map(len, keys)) <= _PLAN_CHARACTERS:
            if len(self._plans) >= _PLANS_KEPT:
                self._plans.clear()
            self._plans[keys] = plan
        return plan

    def event(self, record: dict[str, Any]) -> tuple[AuditEvent, list[Where]]:
        """The event of a record, not normalised yet, and where its values were found."""
        found = self.find(record)
        values = {field: text_of(v) if field in TEXT_FIELDS else v for field, _, v in found}
        return event_of(*map(values.get, FIELDS)), [where for _, where, _ in found]


def rest_of(record: dict[str, Any], used: Iterable[Where]) -> dict[str, Any]:
    """What the record says beside the used values; takes the record apart for it.

    The members of an `attributes` object become the record's own, unless one would hide another.
    """
    for where in used:
        _take(record, where)
    own = record.get("attributes")
    if type(own) is dict and record.keys().isdisjoint(own):
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
