"""One JSON object an event: the event's own vocabulary, nested, and what the relay knows of it.

`map:` renames, adds and leaves out members.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

import msgspec
from pydantic import AfterValidator, Field

from siemrelay.core.canonical_json import parsed_lines
from siemrelay.core.event import FIELDS, Actor, AuditEvent, Selection, Target, field_getter
from siemrelay.core.times import rfc3339
from siemrelay.formats.contract import FormatKind
from siemrelay.formats.field_map import fields_of_events
from siemrelay.formats.syslog_header import HeaderOptions
from siemrelay.formats.writing.json_text import json_members, message_of


def _dotted_names(chosen: dict[str, str | None]) -> dict[str, str | None]:
    for name in chosen:
        if not all(name.split(".")):
            raise ValueError(
                f"{name!r} is not a name: write names, with dots for objects in objects"
            )
        if any(other != name and other.startswith(name + ".") and chosen[name] is not None
               for other in chosen):  # fmt: skip
            raise ValueError(f"{name!r} cannot be a value and an object with members of its own")
    return fields_of_events(chosen)


class JsonOptions(HeaderOptions):
    """The options of a sink with JSON messages."""

    map: Annotated[dict[str, str | None], AfterValidator(_dotted_names)] = Field(
        default={},
        description="members to add or replace, each with the event field it takes "
        "(`who.login: actor.name`; `syslog_severity` is the severity as syslog's 0 to 7); null "
        "leaves a member out",
    )


class _Relay(msgspec.Struct, gc=False, omit_defaults=True):
    sequence: int
    source: str
    received: str
    n: str | None = None


class _Out(msgspec.Struct, gc=False, omit_defaults=True):
    id: str | None
    time: str | None
    type: str
    category: str | None
    severity: int | None
    outcome: str | None
    actor: Actor | None = None
    target: Target | None = None
    message: str | None = None
    attributes: Any = None
    siemrelay: _Relay | None = None


_encode: Final = msgspec.json.Encoder().encode
_encode_sorted: Final = msgspec.json.Encoder(order="sorted").encode


class Json:
    """Events → JSON objects with exactly the fields that they have.

    Attributes are the bytes that were received.
    """

    fields = frozenset({*FIELDS, "attributes"})
    members = frozenset[str]()

    def __init__(self, options: JsonOptions) -> None:
        self._map = MemberMap(options.map) if options.map else None
        self.canonical = self._map is None

    def encode(self, selection: Selection) -> list[bytes]:
        """See `formats.contract.Format`."""
        batch = selection.decoded.batch
        source, received = batch.source, rfc3339(batch.received_at)
        messages = []
        number = selection.number
        # Under a seal, JSON is hashed in its canonical form: written so, nothing is parsed again.
        canonical = number is not None and self.canonical
        encode = _encode_sorted if canonical else _encode
        every = [event.attributes or None for event in selection.events]
        if canonical:
            every = _in_canonical_form(every)
        rows = zip(selection.sequences, selection.events, every, strict=True)
        for sequence, event, attributes in rows:
            by, to = event.actor, event.target
            # Made anew: a decoded one is encoded with the names that its source uses.
            actor = target = None
            if not by.name is by.id is by.address is None:
                actor = Actor(by.name, by.id, by.address)
            if not to.type is to.name is to.id is None:
                target = Target(to.type, to.name, to.id)
            out = _Out(
                event.id, event.time, event.type, event.category, event.severity, event.outcome,
                actor, target, event.message, attributes,
                _Relay(sequence, source, received, number),
            )  # fmt: skip
            messages.append(encode(out))
        return list(map(self._map, messages, selection.events)) if self._map else messages


def _in_canonical_form(attributes: Sequence[Any]) -> list[Any]:
    """Attributes of events; those that have one name twice have no such form, and stay."""
    texts = [
        bytes(each) if type(each) is msgspec.Raw else _encode(each)
        for each in attributes
        if each is not None
    ]
    forms = map(msgspec.Raw, parsed_lines(texts)[1])
    return [None if each is None else next(forms) for each in attributes]


_Members = dict[str, Any]  # each msgspec.Raw, or another one of these


class MemberMap:
    """Changes JSON objects as a `map:` says; members that it does not name stay byte for byte."""

    def __init__(self, chosen: Mapping[str, str | None]) -> None:
        self._removed = [name.split(".") for name, field in chosen.items() if field is None]
        self._added = [
            (name.split("."), field_getter(field)) for name, field in chosen.items() if field
        ]

    def __call__(self, message: bytes, event: AuditEvent) -> bytes:
        """The object with what `map:` removes removed, and then with what it adds.

        A field that the event lacks adds nothing. An object without members left goes too.
        """
        members: _Members = json_members(message)
        for path in self._removed:
            _remove(members, path)
        for path, get in self._added:
            value = get(event)
            if value is not None:
                _put(members, path, msgspec.Raw(message_of(value)))
        return message_of(members)


def _opened(members: _Members, name: str) -> _Members | None:
    """The object of that name, opened in its place; None if there is no object."""
    inner = members.get(name)
    if isinstance(inner, msgspec.Raw):
        if not bytes(inner).lstrip().startswith(b"{"):
            return None
        inner = members[name] = json_members(inner)
    return inner


def _remove(members: _Members, path: list[str]) -> None:
    name, *rest = path
    if not rest:
        members.pop(name, None)
        return
    inner = _opened(members, name)
    if inner is not None:
        _remove(inner, rest)
        if not inner:
            del members[name]


def _put(members: _Members, path: list[str], value: msgspec.Raw) -> None:
    name, *rest = path
    if not rest:
        members[name] = value
        return
    inner = _opened(members, name)
    if inner is None:
        inner = members[name] = {}
    _put(inner, rest, value)


JSON: Final = FormatKind(
    JsonOptions,
    lambda options, host: Json(options),
    "one JSON object an event",
    headers=True,
    numbered=True,
)
