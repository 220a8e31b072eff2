"""Which field of an event is found where in a record, and how the values become an event.

A path is dotted (`user.email`); a name with dots in it stands between quotation marks
(`claims."http://example.com/upn"`). In a list, a number takes an element (`resources.0.name`), and
`NAME=VALUE` the first one that has it (`parameters.name=USER.value`). A text with braces is made of
several values, if all are there (`{verb} {object.kind}`); `{user if code=1,2}` is there only where
the record has one of these codes, `{user if user!=-}` where it has another value. `{client as
address}` is the value without the port behind it.

For each field the first path that holds a usable value wins (`json.lookup`); a whole object under
`actor` or `target` is looked into, never taken as a name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeVar

from siemrelay.core.event import FIELDS, Actor, AuditEvent, Target

Spellings = Mapping[str, tuple[str, ...]]

Where = tuple[str, ...]
"""The keys that lead to a value: one for each object on the way, or a step into a list."""


_NAME: Final = re.compile(r'"([^"]*)"(?:\.|$)|([^.]*)(?:\.|$)')


def steps_of(path: str) -> Where:
    """The names along a path."""
    if '"' not in path:
        return tuple(path.split("."))
    # A path that does not end in a dot has an empty match behind its last name.
    return tuple(quoted or name for quoted, name in _NAME.findall(path))[:-1]


def is_plain(path: str) -> bool:
    """Whether a path leads through objects alone, by names without dots."""
    return "{" not in path and '"' not in path and not any(map(_is_into_list, path.split(".")))


def _is_into_list(step: str) -> bool:
    return step.isdecimal() or "=" in step


def element(values: list[Any], step: str) -> Any:
    """The element of a list that a step of a path takes, None if there is none."""
    if step.isascii() and step.isdecimal() and len(step) < 6:
        return values[int(step)] if int(step) < len(values) else None
    name, sign, wanted = step.partition("=")
    if not sign:
        return None
    for each in values:
        if type(each) is dict:
            value = each.get(name)
            if value == wanted or (type(value) is not str and text_of(value) == wanted):
                return each
    return None


_PART: Final = re.compile(r"\{([^{}]+)\}")


# `192.0.2.1:443`, `[2001:db8::1]:443`, `[2001:db8::1]`; an IPv6 address alone has more colons.
# Samba names the family: `ipv4:192.0.2.1:443`, `ipv6:2001:db8::1:443`.
_WITH_PORT: Final = re.compile(r"\[([^\]]+)\](?::\d+)?|([^:\[\]]+):\d+|ipv[46]:(.+):\d+")


def _without_port(address: str) -> str:
    found = _WITH_PORT.fullmatch(address)
    return next(filter(None, found.groups())) if found else address


_AS_ADDRESS: Final = " as address"


class _Part(NamedTuple):
    """One value of a template: where it is, on what condition, and the text behind it.

    The condition is that the value at `at` is one of `wanted`, or none of them if it `is_negated`;
    without `at` there is none.
    """

    path: list[Where]
    at: list[Where]
    wanted: frozenset[str]
    is_negated: bool
    is_address: bool
    behind: str


class Template:
    """A text made of several values of a record."""

    __slots__ = ("_before", "_parts", "keys")

    def __init__(self, text: str) -> None:
        pieces = _PART.split(text)
        self._before = pieces[0]
        self._parts: list[_Part] = []
        for part, behind in zip(pieces[1::2], pieces[2::2], strict=True):
            value, _, condition = part.partition(" if ")
            path = value.removesuffix(_AS_ADDRESS)
            where, _, values = condition.partition("=")
            at, wanted = where.removesuffix("!"), frozenset(values.split(","))
            self._parts.append(_Part(
                _places(path), _places(at) if at else [], wanted, is_negated=at != where,
                is_address=path != value, behind=behind,
            ))  # fmt: skip
        self.keys = {keys[0] for part in self._parts for keys in (*part.path, *part.at)}
        """The keys of a record that it may need."""

    def may_be_in(self, keys: frozenset[str]) -> bool:
        """Whether a record with just these keys, of those in `keys`, may have the text."""
        return all(
            any(where[0] in keys for where in part.path)
            and (not part.at or part.is_negated or any(where[0] in keys for where in part.at))
            for part in self._parts
        )

    def text(self, record: Mapping[str, Any]) -> str | None:
        """The text; None if the record lacks one of the values, or a condition is not met."""
        found = self._before
        for path, at, wanted, is_negated, is_address, behind in self._parts:
            if at:
                value = _usable_at(record, at)
                if ((value if type(value) is str else text_of(value)) in wanted) is is_negated:
                    return None
            value = _usable_at(record, path)
            if value is None:
                return None
            text = value if type(value) is str else str(text_of(value))
            found += (_without_port(text) if is_address else text) + behind
        return found

    def texts(self, records: Sequence[dict[str, Any]]) -> list[str | None]:
        """The text of each record, column by column; as `text`."""
        found: list[str | None] = [self._before] * len(records)
        for path, at, wanted, is_negated, is_address, behind in self._parts:
            values = _column(records, path)
            if is_address:
                values = [
                    None if value is None else _without_port(str(text_of(value)))
                    for value in values
                ]
            if at:
                values = [
                    None if value is None or (text_of(given) in wanted) is is_negated else value
                    for value, given in zip(values, _column(records, at), strict=True)
                ]
            found = [
                None if before is None or value is None
                else before + (value if type(value) is str else str(text_of(value))) + behind
                for before, value in zip(found, values, strict=True)
            ]  # fmt: skip
        return found


def _column(records: Sequence[dict[str, Any]], places: list[Where]) -> list[Any]:
    """The first usable value of each record at these places; None where it has none."""
    found: list[Any] = [None] * len(records)
    for where in places:
        values: list[Any] = [record.get(where[0]) for record in records]
        for name in where[1:]:
            values = steps(values, name)
        if set(map(type, values)) <= NO_VALUES:
            continue
        found = [
            before if before is not None else value if is_usable(value) else None
            for before, value in zip(found, values, strict=True)
        ]
        if None not in found:
            break
    return found


def steps(values: Iterable[Any], name: str) -> list[Any]:
    """One step further from each of these values."""
    return [
        v.get(name) if type(v) is dict else element(v, name) if type(v) is list else None
        for v in values
    ]


NO_VALUES: Final = {type(None), dict, list}
"""Types of what is no usable value, as is an empty text."""


def _places(path: str) -> list[Where]:
    return [(path,), steps_of(path)] if "." in path else [(path,)]


def _usable_at(record: Mapping[str, Any], places: list[Where]) -> Any:
    for where in places:
        value: Any = record
        for name in where:
            if type(value) is dict:
                value = value.get(name)
            elif type(value) is list:
                value = element(value, name)
            else:
                value = None
                break
        if (
            value is not None
            and value != ""
            and type(value) is not dict
            and type(value) is not list
        ):
            return value
    return None


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
    """The fields of a header and a dictionary, with the other values of the message beside them.

    A key that has the name of a field which is taken already goes into an object under the name of
    the form: `CEF:…|Login|…|type=Logout` keeps its type, and has an attribute `cef.type`.
    """
    taken = [name for name in more if name in fields or name == form]
    if taken:
        fields[form] = {name: more.pop(name) for name in taken}
    return fields | more
