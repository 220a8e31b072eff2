"""Which field of an event is found where in a record, and how the values become an event.

A path is dotted (`user.email`). In a list, a number takes an element (`resources.0.name`), and
`NAME=VALUE` the first one that has it (`parameters.name=USER.value`). A text with braces is made of
several values, if all are there (`{verb} {object.kind}`); `{user if code=1,2}` is there only where
the record has one of these codes, `{user if user!=-}` where it has another value.

For each field the first path that holds a usable value wins (`json.lookup`); a whole object under
`actor` or `target` is looked into, never taken as a name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar

from siemrelay.core.event import FIELDS, Actor, AuditEvent, Target

Spellings = Mapping[str, tuple[str, ...]]

Where = tuple[str, ...]
"""The keys that lead to a value: one for each object on the way, or a step into a list."""


def is_plain(path: str) -> bool:
    """Whether a path leads through objects alone."""
    return "{" not in path and not any(map(_is_into_list, path.split(".")))


def _is_into_list(step: str) -> bool:
    return step.isdecimal() or "=" in step


def value_at(record: Mapping[str, Any], where: Where) -> Any:
    """The value that these keys lead to, None if there is none."""
    value: Any = record
    for name in where:
        value = (
            value.get(name)
            if type(value) is dict
            else element(value, name)
            if type(value) is list
            else None
        )
    return value


def element(values: list[Any], step: str) -> Any:
    """The element of a list that a step of a path takes, None if there is none."""
    if step.isascii() and step.isdecimal() and len(step) < 6:
        return values[int(step)] if int(step) < len(values) else None
    name, sign, wanted = step.partition("=")
    if not sign:
        return None
    return next(
        (each for each in values if type(each) is dict and text_of(each.get(name)) == wanted), None
    )


_PART: Final = re.compile(r"\{([^{}]+)\}")


class Template:
    """A text made of several values of a record."""

    __slots__ = ("_form", "_parts", "keys")

    def __init__(self, text: str) -> None:
        pieces = _PART.split(text)
        self._form = [*pieces[::2]]
        self._parts: list[tuple[list[Where], list[Where], frozenset[str], bool]] = []
        for part in pieces[1::2]:
            path, _, condition = part.partition(" if ")
            where, _, values = condition.partition("=")
            at, wanted = where.removesuffix("!"), frozenset(values.split(","))
            self._parts.append(
                (_places(path), _places(at) if at else [], wanted, not where.endswith("!"))
            )
        self.keys = {keys[0] for path, at, *_ in self._parts for keys in (*path, *at)}
        """The keys of a record that it may need."""

    def text(self, record: Mapping[str, Any]) -> str | None:
        """The text; None if the record lacks one of the values, or a condition is not met."""
        found = [self._form[0]]
        for (path, at, wanted, yes), behind in zip(self._parts, self._form[1:], strict=True):
            if at and (text_of(_first_usable(record, at)) in wanted) is not yes:
                return None
            value = _first_usable(record, path)
            if value is None:
                return None
            found += (str(text_of(value)), behind)
        return "".join(found)


def _places(path: str) -> list[Where]:
    return [(path,), tuple(path.split("."))] if "." in path else [(path,)]


def _first_usable(record: Mapping[str, Any], places: list[Where]) -> Any:
    return next(filter(is_usable, (value_at(record, where) for where in places)), None)


def is_usable(value: Any) -> bool:
    """Whether a value can be a field's: no null, empty text, object or list."""
    return value is not None and value != "" and type(value) not in (dict, list)


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
