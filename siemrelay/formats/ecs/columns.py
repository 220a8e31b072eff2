"""ECS documents of many events, column by column."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import Any, Final, NamedTuple

from siemrelay.core.event import Selection
from siemrelay.core.memo import BoundedMemo
from siemrelay.core.times import rfc3339
from siemrelay.formats.ecs.categories import (
    USERS,
    VERSION,
    categorised,
    event_kind,
    label_name,
)
from siemrelay.formats.writing.address import are_ip
from siemrelay.formats.writing.attributes import Named, attribute_column, flattened
from siemrelay.formats.writing.columns import Column, Lines, told
from siemrelay.formats.writing.json_text import inside, member, message_of, without_clashes
from siemrelay.formats.writing.text import text_of


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
    before = f'"kind":"{event_kind(kind)}","action":"{inside(kind)}"'
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


class EcsColumns:
    """Events → the very documents that `Ecs` makes of each."""

    def __init__(self, *, original: bool) -> None:
        self._original = original
        self._placed = BoundedMemo[tuple[str, str], _Placed](lambda pair: _placed(*pair))
        self._labels = BoundedMemo(label_name)

    def encode(self, selection: Selection) -> list[bytes] | None:
        """The documents; None where an event lacks what all have, or an attribute has the name of
        a label of the event's own: these are made one by one.
        """
        column = selection.column
        if not all(Column(column(field)).complete for field in _ALWAYS):
            return None
        try:
            labels = attribute_column(selection, self._attributes, self._members)
        except _Clash:
            return None
        batch = selection.decoded.batch
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
        lines.each(map(repr, selection.sequences))
        lines.text(f',"provider":"{inside(batch.source)}","created":"{rfc3339(batch.received_at)}"')
        lines.each(map(_after_created, placed))
        if self._original:
            records = [record.decode("utf-8", "replace") for record in selection.records]
            lines.pair(*member("original", Column(records), ","))
        lines.text("}")
        lines.pair(*member("message", Column(column("message")), ","))
        kinds, names, ids = (told(column(f"target.{part}")) for part in ("type", "name", "id"))
        places = _places(kinds, list(map(_of, placed)))
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

    def _members(self, lines: Lines, own: Sequence[Named]) -> bool:
        labels = [self._labels[named.name] for named in own]
        if len(set(labels)) < len(labels):
            return False
        if not _OWN_LABELS.isdisjoint(labels):
            raise _Clash
        lines.pairs([
            member(inside(label), _texts(named)) for label, named in zip(labels, own, strict=True)
        ], ",")  # fmt: skip
        return True


def _texts(named: Named) -> Column:
    if type(None) not in named.types:
        return Column(named.texts())
    return Column([None if value is None else text_of(value) for value in named.values])


def _places(kinds: Column, of: list[str]) -> list[str]:
    """Where targets of these types belong, of events that are about these."""
    if kinds.empty:
        return of
    if USERS.issuperset(kinds.texts):
        return ["user"] * len(of)
    return ["user" if kind in USERS else said for kind, said in zip(kinds.texts, of, strict=True)]
