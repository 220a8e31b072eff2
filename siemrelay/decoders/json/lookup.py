"""Records → events, by looking up every spelling of every field.

Records with the same spellings among their keys are looked up together, column by column, and give
the events that each gives alone (test_records_looked_up_together_give_what_each_gives_alone).
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from itertools import compress, repeat
from operator import itemgetter
from typing import Any, Final

from siemrelay.core.event import FIELDS, NOBODY, NOTHING, Actor, AuditEvent, Target
from siemrelay.core.memo import BoundedMemo
from siemrelay.decoders.fields import (
    NO_VALUES,
    TEXT_FIELDS,
    Spellings,
    Template,
    Where,
    element,
    event_of,
    is_usable,
    rest_of,
    steps,
    steps_of,
    text_of,
)

# Peers decide which keys come together; plans for so many sets of them are kept at a time.
_PLANS_KEPT: Final = 512

# Fewer records with the same keys than this are faster one by one.
_FEW: Final = 8

_TEXT: Final = {str}
_ALONE: Final = tuple(field for field in FIELDS if "." not in field)

Place = Where | Template

Plan = list[tuple[str, list[Place]]]
"""For each field where it may be in records with the same of the keys that are spellings."""

Found = list[tuple[str, Place, Sequence[Any]]]
"""(field, where, the value of each record)."""


class FieldLookup:
    """Finds the fields of an event in records.

    A record has a dozen keys, and there are a hundred spellings. Which of these can match depends
    only on the keys that are spellings, so it is worked out once for each set of such keys.
    """

    def __init__(self, spellings: Spellings, kept: Container[str] = ()) -> None:
        """The values of the fields in `kept` stay among the attributes."""
        self._spellings, self._kept = spellings, kept
        self._templates = {
            path: Template(path) for paths in spellings.values() for path in paths if "{" in path
        }
        parts = {key for template in self._templates.values() for key in template.keys}
        paths = parts | {path for paths in spellings.values() for path in paths}
        # `_rests` needs to know whether there is an `attributes` object.
        self._names = paths | {steps_of(path)[0] for path in paths} | {"attributes"}
        self._plans = BoundedMemo(self._plan, most=_PLANS_KEPT)

    def find(self, record: dict[str, Any]) -> list[tuple[str, Place, Any]]:
        """(field, where, value) for every field that the record has a usable value for.

        At a dotted path, a key with these dots in it comes before objects in objects. Null, an
        empty text, an object and a list are no usable values: the next spelling is tried.
        """
        found, templates = [], bool(self._templates)
        for field, tried in self._plans[self._known(record)]:
            for where in tried:
                value: Any = record
                if templates and isinstance(where, Template):
                    value = where.text(record)
                else:
                    for name in where:  # type: ignore[union-attr]  # no template
                        if type(value) is dict:
                            value = value.get(name)
                        else:
                            value = element(value, name) if type(value) is list else None
                if is_usable(value):
                    found.append((field, where, value))
                    break
        return found

    def _known(self, record: dict[str, Any]) -> tuple[str, ...]:
        return tuple(filter(self._names.__contains__, record))

    def event(self, record: dict[str, Any]) -> tuple[AuditEvent, list[Where]]:
        """The event of a record, not normalised yet, and where its values were found."""
        found = self.find(record)
        values = {field: text_of(v) if field in TEXT_FIELDS else v for field, _, v in found}
        return event_of(*map(values.get, FIELDS)), list(self._used(found))

    def _used(self, found: Iterable[tuple[str, Place, Any]]) -> Iterator[Where]:
        """Where the values are that are no attributes any more."""
        for field, where, _ in found:
            if not isinstance(where, Template) and field not in self._kept:
                yield where

    def events(self, records: list[dict[str, Any]], *, attributes: bool) -> list[AuditEvent]:
        """The event of each record, as `event`; with `attributes`, these are what `rest_of` leaves.

        The records are consumed: used values are removed from them.
        """
        groups: dict[tuple[str, ...], list[int]] = {}
        for i, keys in enumerate(map(self._known, records)):
            groups.setdefault(keys, []).append(i)
        events: dict[int, AuditEvent] = {}
        for keys, places in groups.items():
            alike = [records[i] for i in places] if len(groups) > 1 else records
            events |= zip(places, self._alike(alike, self._plans[keys], attributes), strict=True)
        return [events[i] for i in range(len(records))]

    def _alike(
        self, records: list[dict[str, Any]], plan: Plan, attributes: bool
    ) -> list[AuditEvent]:
        """As `events`, of records in which the same spellings are keys."""
        if len(records) < _FEW:
            return [self._alone(record, attributes) for record in records]
        found, apart = _found(records, plan)
        if apart:
            kinds = (apart, [not yes for yes in apart])
            halves = [iter(self._alike(list(compress(records, kind)), plan, attributes))
                      for kind in kinds]  # fmt: skip
            return [next(halves[not yes]) for yes in apart]
        events = _events(len(records), found)
        if attributes:
            for event, rest in zip(events, _rests(records, {*self._used(found)}), strict=True):
                event.attributes = rest
        return events

    def _alone(self, record: dict[str, Any], attributes: bool) -> AuditEvent:
        event, used = self.event(record)
        if attributes:
            event.attributes = rest_of(record, used)
        return event

    def _plan(self, keys: tuple[str, ...]) -> Plan:
        present, plan = frozenset(keys), Plan()
        for field, paths in self._spellings.items():
            tried: list[Place] = []
            for path in paths:
                template = self._templates.get(path)
                if template is not None:
                    if template.may_be_in(present):
                        tried.append(template)
                    continue
                steps = steps_of(path)
                if path in present:
                    tried.append((path,))
                if len(steps) > 1 and steps[0] in present:
                    tried.append(steps)
            if tried:
                plan.append((field, tried))
        return plan


def _found(records: list[dict[str, Any]], plan: Plan) -> tuple[Found, list[bool]]:
    """The fields that all these records have at the same places; else how to split the records.

    The second value is empty, or says of each record whether it has a usable value where others
    have none: then the two kinds are to be looked up apart.
    """
    found: Found = []
    for field, tried in plan:
        for where in tried:
            values: list[Any]
            if isinstance(where, Template):
                values = where.texts(records)
            else:
                values = list(map(itemgetter(where[0]), records))
                for name in where[1:]:
                    values = steps(values, name)
            types = set(map(type, values))
            if types <= NO_VALUES:
                continue
            if not NO_VALUES.isdisjoint(types) or "" in values:
                usable = list(map(is_usable, values))
                if any(usable):
                    return found, usable
                continue
            found.append((field, where, values))
            break
    return found, []


def _events(count: int, found: Found) -> list[AuditEvent]:
    columns: dict[str, Iterable[Any]] = {}
    for field, _, values in found:
        texts = field in TEXT_FIELDS and set(map(type, values)) != _TEXT
        columns[field] = list(map(text_of, values)) if texts else values

    def column(field: str) -> Iterable[Any]:
        return columns.get(field) or repeat(None, count)

    def parts(kind: Callable[..., Any], nothing: Any, *fields: str) -> Iterable[Any]:
        if columns.keys().isdisjoint(fields):
            return repeat(nothing, count)
        return map(kind, *map(column, fields))

    return [
        AuditEvent(
            id=id, time=time, type=type, category=category, severity=severity, outcome=outcome,
            actor=actor, target=target, message=message,
        )
        for id, time, type, category, severity, outcome, message, actor, target in zip(
            *map(column, _ALONE),
            parts(Actor, NOBODY, "actor.name", "actor.id", "actor.address"),
            parts(Target, NOTHING, "target.type", "target.name", "target.id"),
            strict=True,
        )
    ]  # fmt: skip


def _rests(records: list[dict[str, Any]], used: set[Where]) -> list[dict[str, Any]]:
    """`rest_of` records that all have the used keys."""
    if any(len(where) > 1 for where in used) or "attributes" in records[0]:
        return [rest_of(record, used) for record in records]
    keys = [where[0] for where in used]
    for record in records:
        for key in keys:
            del record[key]
    return records
