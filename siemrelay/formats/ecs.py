"""Elastic Common Schema 8: one nested JSON object an event.

Rules: ECS 8.11 field reference; the values of `event.kind`, `event.category` and `event.type` are
those of "ECS Categorization Fields", the types those that its category expects. What ECS has no
field for stands in `labels`, flat and as text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from operator import attrgetter
from typing import Any, Final, Literal, NamedTuple

import msgspec
from pydantic import Field

from siemrelay.catalogue import UNPARSED
from siemrelay.event import FIELDS, NOTHING, AuditEvent, Selection, Target, attributes_of
from siemrelay.formats.address import are_ip, is_ip
from siemrelay.formats.attributes import Named, as_texts, attribute_column, flattened
from siemrelay.formats.columns import FEW, Column, Lines, told
from siemrelay.formats.contract import FormatKind
from siemrelay.formats.meaning import Action, meaning
from siemrelay.formats.objects import inside, member, message_of, without_clashes
from siemrelay.formats.remembered import Remembered
from siemrelay.formats.syslog_header import HeaderOptions
from siemrelay.formats.text import text_of
from siemrelay.times import rfc3339

VERSION: Final = "8.11.0"

# A dot in a label's name would make it an object; blanks and controls make names hard to ask for.
_NOT_IN_LABELS: Final = re.compile(r"[\x00-\x20.*\"\\\x7f]")


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


_CHANGES: Final[dict[Action, str]] = {
    "create": "creation", "delete": "deletion", "": "info", "read": "info",
}  # fmt: skip
"""The event type of what was done; whatever is not here is a change."""


class Sorted(NamedTuple):
    """`event.category` and `event.type`, both None where none fits, and what the target is."""

    category: list[str] | None = None
    type: list[str] | None = None
    of: Literal["user", "group", ""] = ""


def categorised(kind: str, category: str) -> Sorted:
    """Where ECS has events of that type and category."""
    subject, action = meaning(kind, category)
    change = _CHANGES.get(action, "change")
    if subject == "account":
        return Sorted(["iam"], ["user", change], "user")
    if subject == "group":
        return Sorted(["iam"], ["group", change], "group")
    if subject == "entity":
        return Sorted(["iam"], ["admin", change])
    if subject == "session":
        if action == "logon":
            return Sorted(["authentication"], ["start"])
        if action == "logoff":
            return Sorted(["authentication", "session"], ["end"])
        return Sorted(["session"], ["info"])
    if subject in ("api", "configuration"):
        return Sorted([str(subject)], ["access" if action == "read" else change])
    return Sorted()


class _Placed(NamedTuple):
    """What the type and category of events decide: texts of the document, and `Sorted.of`."""

    before_outcome: str
    after_created: str
    of: str


def _placed(kind: str, category: str) -> _Placed:
    found = categorised(kind, category)
    after = ""
    if found.category:
        lists = {"category": found.category, "type": found.type}
        after = f",{message_of(lists)[1:-1].decode()}"
    before = f'"kind":"{_kind(kind)}","action":"{inside(kind)}"'
    return _Placed(before, after, found.of)


_before_outcome, _after_created, _of = map(attrgetter, _Placed._fields)

_SEVERITIES: Final = {
    severity: f',"severity":{"null" if severity is None else severity},"sequence":'
    for severity in (None, *range(11))
}
_ALWAYS: Final = ("time", "id", "category", "outcome")
_OWN_LABELS: Final = frozenset({"category", "target_type", "target_name", "target_id"})


class _Clash(Exception):
    """An attribute has the name of a label of the event's own."""


def _kind(kind: str) -> str:
    return "pipeline_error" if kind == UNPARSED else "event"


class Ecs:
    """Events → ECS documents.

    Two ways to the same document (test_many_events_become_what_each_becomes_alone): structs for a
    few events, columns for many.
    """

    fields = frozenset({*FIELDS, "attributes"})

    def __init__(self, options: EcsOptions) -> None:
        self._original = options.original
        self._ecs = _Ecs(VERSION)
        self._categorised = Remembered[tuple[str, str], Sorted](lambda pair: categorised(*pair))
        self._placed = Remembered[tuple[str, str], _Placed](lambda pair: _placed(*pair))
        self._labels = Remembered[str, str](lambda name: _NOT_IN_LABELS.sub("_", name) or "_")

    def encode(self, selection: Selection) -> list[bytes]:
        """See `formats.contract.Format`."""
        batch = selection.decoded.batch
        received = rfc3339(batch.received_at)
        if len(selection) >= FEW and all(
            Column(selection.column(field)).complete for field in _ALWAYS
        ):
            with suppress(_Clash):
                labels = attribute_column(selection, self._attributes, self._named)
                return self._together(selection, batch.source, received, labels)
        messages = [
            self._message(event, sequence, batch.source, received)
            for sequence, event in zip(selection.sequences, selection.events, strict=True)
        ]
        if self._original:
            for message, record in zip(messages, selection.records, strict=True):
                message.event.original = record.decode("utf-8", "replace")
        return list(map(message_of, messages))

    def _together(
        self, selection: Selection, source: str, received: str, labels: Column
    ) -> list[bytes]:
        column = selection.column
        placed = list(map(
            self._placed.__getitem__, zip(column("type"), column("category"), strict=True)
        ))  # fmt: skip
        lines = Lines(len(selection))
        lines.pair(*member("@timestamp", Column(column("time")), "{"))
        lines.text(f',"ecs":{{"version":"{VERSION}"}},"event":{{')
        lines.pair(*member("id", Column(column("id"))))
        lines.text(",")
        lines.each(map(_before_outcome, placed))
        lines.pair(*member("outcome", Column(column("outcome")), ","))
        lines.each(map(_SEVERITIES.__getitem__, column("severity")))
        lines.each(map(str, selection.sequences))
        lines.text(f',"provider":"{inside(source)}","created":"{received}"')
        lines.each(map(_after_created, placed))
        if self._original:
            records = [record.decode("utf-8", "replace") for record in selection.records]
            lines.pair(*member("original", Column(records), ","))
        lines.text("}")
        lines.pair(*member("message", Column(column("message")), ","))
        kinds, names, ids = (told(column(f"target.{part}")) for part in ("type", "name", "id"))
        places = _places(kinds.texts, list(map(_of, placed)))
        to_user, to_group, to_labels = (
            [member(prefix + "name", names.where(places, of)),
             member(prefix + "id", ids.where(places, of))]
            for of, prefix in (("user", ""), ("group", ""), ("", "target_"))
        )  # fmt: skip
        lines.group(',"user":{', [
            member("name", told(column("actor.name"))), member("id", told(column("actor.id"))),
            ('"target":', lines.objects(to_user), ""),
        ], "}")  # fmt: skip
        lines.group(',"group":{', to_group, "}")
        addresses = told(column("actor.address"))
        typed = addresses.where(addresses.made(are_ip), True)
        lines.group(',"source":{', [member("address", addresses), member("ip", typed)], "}")
        lines.group(',"labels":{', [
            member("category", told(column("category"))), member("target_type", kinds),
            *to_labels, ("", labels, ""),
        ], "}")  # fmt: skip
        lines.text("}")
        return lines.encoded()

    def _attributes(self, attributes: dict[str, Any]) -> str | None:
        pairs = [
            (self._labels[name], value if type(value) is str else text_of(value))
            for name, value in flattened(attributes)
            if value is not None
        ]
        labels = without_clashes(pairs)
        if not _OWN_LABELS.isdisjoint(labels):
            raise _Clash
        return message_of(labels)[1:-1].decode() or None

    def _named(self, lines: Lines, named: Named) -> bool:
        labels = [self._labels[name] for name, _ in named]
        if len(set(labels)) < len(labels):
            return False
        if not _OWN_LABELS.isdisjoint(labels):
            raise _Clash
        lines.pairs([
            member(label, Column(Column(values).made(as_texts)))
            for label, (_, values) in zip(labels, named, strict=True)
        ], ",")  # fmt: skip
        return True

    def _message(self, event: AuditEvent, sequence: int, source: str, received: str) -> _Message:
        kind, actor, target = event.type, event.actor, event.target
        sorted_as = self._categorised[kind, event.category or ""]
        made = _Message(
            event.time, self._ecs,
            _Event(event.id, "event", kind, event.outcome, event.severity, sequence, source,
                   received, sorted_as.category, sorted_as.type),
            event.message,
        )  # fmt: skip
        if kind == UNPARSED:
            made.event.kind = "pipeline_error"
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
    if of == "user" or kind in _USERS:
        made.user = made.user or _User()
        made.user.target = _Named(name or None, uid or None)
    elif of == "group":
        made.group = _Named(name or None, uid or None)
    else:
        labels += [
            (of_it, said) for of_it, said in (("target_name", name), ("target_id", uid)) if said
        ]
    return labels


def _places(kinds: Sequence[str | None], of: list[str]) -> list[str]:
    """Where targets of these types belong, of events that are about these."""
    if _USERS.issuperset(kinds):
        return ["user"] * len(of)
    return ["user" if kind in _USERS else said for kind, said in zip(kinds, of, strict=True)]


# Target types that are users wherever they are met.
_USERS: Final = frozenset({"user", "User", "USER", "account", "Account", "ACCOUNT"})


ECS: Final = FormatKind(
    EcsOptions, lambda options, host: Ecs(options), "Elastic Common Schema 8", headers=True
)
