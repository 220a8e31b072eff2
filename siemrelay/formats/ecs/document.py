"""Elastic Common Schema 8: one nested JSON object an event.

Rules: ECS 8.11 field reference; the values of `event.kind`, `event.category` and `event.type` are
those of "ECS Categorization Fields", the types those that its category expects. Everything for
which ECS has no field stands in `labels`, flat and as text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from operator import attrgetter
from typing import Any, Final, NamedTuple

from pydantic import Field

from siemrelay.core.event import FIELDS, Selection
from siemrelay.core.memo import BoundedMemo
from siemrelay.core.times import rfc3339
from siemrelay.formats.contract import FormatKind
from siemrelay.formats.ecs.categories import USERS, VERSION, categorize, event_kind
from siemrelay.formats.syslog_header import HeaderOptions
from siemrelay.formats.writing.address import are_ip, is_ip
from siemrelay.formats.writing.attributes import FlatAttributes, Written
from siemrelay.formats.writing.columns import (
    FEW_EVENTS,
    Column,
    Lines,
    Pair,
    column_of,
    nonempty,
)
from siemrelay.formats.writing.json_text import (
    json_escape,
    json_members,
    member,
    members,
    message_of,
)
from siemrelay.formats.writing.text import text_of

# A dot in a label's name would make it an object; blanks and controls make names hard to ask for.
_NOT_IN_LABELS: Final = re.compile('[\x00-\x20.*"\\\\\x7f]')
_OWN_LABELS: Final = ("category", "target_type", "target_name", "target_id")


class EcsOptions(HeaderOptions):
    """The options of a sink with ECS documents."""

    original: bool = Field(
        False, description="also send the record as it was received, in `event.original`"
    )


class Ecs:
    """Events → ECS documents.

    An attribute is a label of its name; one that has the name of a label of the event's own
    (`category`, `target_type` and so on), or of another attribute, ends with `_2`, `_3` and so on.
    """

    fields = frozenset({*FIELDS, "attributes"})
    members = frozenset({"@timestamp"})

    def __init__(self, options: EcsOptions) -> None:
        self._original = options.original
        self._placed = BoundedMemo[tuple[str, str], _Placed](lambda pair: _placed(*pair))
        self._labels = FlatAttributes(
            '"{}":"', lambda name: _NOT_IN_LABELS.sub("_", name) or "_", _label_values,
            between=",", taken=_OWN_LABELS,
        )  # fmt: skip

    def encode(self, selection: Selection) -> list[bytes]:
        """See `formats.contract.Format`."""
        if len(selection) <= FEW_EVENTS:
            return [self._document(selection, at) for at in range(len(selection))]
        column, lines = selection.column, Lines(len(selection))
        categories = nonempty(column("category"))
        placed = list(map(
            self._placed.__getitem__,
            zip(column("type"), [text or "" for text in categories.texts], strict=True),
        ))  # fmt: skip
        kinds, names, ids = (nonempty(column(f"target.{part}")) for part in ("type", "name", "id"))
        targets = _target_objects(kinds, list(map(_about, placed)))
        to_user, to_group, to_labels = (
            {f"{prefix}name": names.where(targets, about), f"{prefix}id": ids.where(targets, about)}
            for about, prefix in (("user", ""), ("group", ""), ("", "target_"))
        )
        addresses = nonempty(column("actor.address"))
        lines.pair(*member("@timestamp", column_of(column("time")), "{"))
        lines.text(f',"ecs":{{"version":"{VERSION}"}}')
        lines.group(',"event":{', self._event(selection, placed), "}")
        lines.pair(*member("message", column_of(column("message")), ","))
        lines.group(',"user":{', [
            *members({"name": nonempty(column("actor.name")), "id": nonempty(column("actor.id"))}),
            ('"target":', lines.objects(members(to_user)), ""),
        ], "}")  # fmt: skip
        lines.group(',"group":{', members(to_group), "}")
        ips = addresses.where(addresses.map_present(are_ip), True)
        lines.group(',"source":{', members({"address": addresses, "ip": ips}), "}")
        labels = {"category": categories, "target_type": kinds, **to_labels}
        lines.group(
            ',"labels":{', [*members(labels), ("", self._labels.column(selection), "")], "}"
        )
        if selection.number:
            lines.text(f',"siemrelay":{{"n":"{selection.number}"}}')
        lines.text("}")
        return lines.encoded()

    def _document(self, selection: Selection, at: int) -> bytes:
        """One event's document: what the columns are for many, in a few steps."""
        event, batch = selection.events[at], selection.decoded.batch
        actor, target = event.actor, event.target
        placed = self._placed[event.type, event.category or ""]
        about = "user" if target.type in USERS else placed.about
        own: dict[str, Any] = json_members(f"{{{placed.event_members}}}")
        for name in ("id", "outcome", "severity"):
            if (value := getattr(event, name)) is not None:
                own[name] = value
        own |= {"sequence": selection.sequences[at], "provider": batch.source}
        own["created"] = rfc3339(batch.received_at)
        if self._original:
            own["original"] = selection.records[at].decode("utf-8", "replace")
        document = {"@timestamp": event.time, "ecs": {"version": VERSION}, "event": own}
        if event.message is not None:
            document["message"] = event.message
        named = _present(name=target.name, id=target.id)
        address = actor.address
        labels = _present(category=event.category, target_type=target.type)
        if not about:
            labels |= {f"target_{name}": text for name, text in named.items()}
        for name, value in self._labels.alone(event):
            if value is not None:
                labels[name] = text_of(value)
        document |= _present(
            user=_present(name=actor.name, id=actor.id, target=named if about == "user" else None),
            group=named if about == "group" else None,
            source=_present(address=address, ip=address if address and is_ip(address) else None),
            labels=labels,
        )
        if selection.number:
            document["siemrelay"] = {"n": selection.number}
        return message_of(document)

    def _event(self, selection: Selection, placed: Sequence[_Placed]) -> list[Pair]:
        column, batch = selection.column, selection.decoded.batch
        created = (
            f',"provider":"{json_escape(batch.source)}","created":"{rfc3339(batch.received_at)}"'
        )
        pairs = [
            ("", Column(list(map(_event_members, placed))), ""),
            member("id", column_of(column("id"))),
            member("outcome", column_of(column("outcome"))),
            ('"severity":', column_of(list(map(_SEVERITIES.__getitem__, column("severity")))), ""),
            ('"sequence":', Column(list(map(repr, selection.sequences))), created),
        ]
        if self._original:
            records = [record.decode("utf-8", "replace") for record in selection.records]
            pairs.append(member("original", Column(records)))
        return pairs


class _Placed(NamedTuple):
    """Decided by an event's type and category: members of `event`, and `Categorization.of`."""

    event_members: str
    about: str


def _present(**members: Any) -> dict[str, Any]:
    """Those members that have something in them."""
    return {name: value for name, value in members.items() if value}


def _placed(kind: str, category: str) -> _Placed:
    found = categorize(kind, category)
    event: dict[str, Any] = {"kind": event_kind(kind), "action": kind}
    if found.category:
        event |= {"category": found.category, "type": found.type}
    return _Placed(message_of(event)[1:-1].decode(), found.of)


_event_members, _about = map(attrgetter, _Placed._fields)

_SEVERITIES: Final[dict[int | None, str | None]] = {
    severity: None if severity is None else str(severity) for severity in (None, *range(11))
}


def _label_values(values: Sequence[Any], types: set[type]) -> Written:
    if types != {str}:
        values = [
            value if type(value) is str or value is None else text_of(value) for value in values
        ]
    return "", column_of(values).escaped(json_escape), '"'


def _target_objects(kinds: Column, about: list[str]) -> list[str]:
    """`user`, `group` or neither for each target, by its type and by the event's subject."""
    if kinds.empty:
        return about
    if USERS.issuperset(kinds.texts):
        return ["user"] * len(about)
    return [
        "user" if k in USERS else subject for k, subject in zip(kinds.texts, about, strict=True)
    ]


ECS: Final = FormatKind(
    EcsOptions,
    lambda options, host: Ecs(options),
    "Elastic Common Schema 8",
    headers=True,
    numbered=True,
)
