"""OCSF events of many events, class by class and column by column."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import Final, NamedTuple

import msgspec

from siemrelay.event import Selection
from siemrelay.formats.address import dotted_quads
from siemrelay.formats.columns import Column, Lines, Pair, told
from siemrelay.formats.epoch import EpochMs
from siemrelay.formats.objects import inside, member, message_of, strictly_inside
from siemrelay.formats.ocsf_classes import (
    ACCOUNT_CHANGE,
    API_ACTIVITY,
    AUTHENTICATION,
    BASE_EVENT,
    ENTITY_MANAGEMENT,
    OTHER,
    SEVERITIES,
    STATUSES,
    VERSION,
    Class,
    classified,
    typed,
)
from siemrelay.formats.remembered import Remembered
from siemrelay.formats.text import replaced


class _Placed(NamedTuple):
    """What the type and category of events decide: their class, and texts of the event."""

    uid: int
    start: str
    activity_name: str


def _placed(kind: str, chosen: Class) -> _Placed:
    start = (
        f'{{"class_uid":{chosen.uid},"category_uid":{chosen.category_uid},'
        f'"activity_id":{chosen.activity_id},"type_uid":{chosen.type_uid}'
    )
    name = f',"activity_name":"{strictly_inside(kind)}"' if chosen.activity_id == OTHER else ""
    return _Placed(chosen.uid, start, name)


_uid, _start, _activity_name = map(attrgetter, _Placed._fields)

_SEVERITIES: Final = {
    severity: f',"severity_id":{SEVERITIES[severity or 0]},"status_id":'
    for severity in (None, *range(11))
}


class OcsfColumns:
    """Events → the very events that `Ocsf` makes of each.

    Raises UnicodeEncodeError for texts with half surrogate pairs, which are left to it.
    """

    def __init__(self, product: str, metadata_product: str) -> None:
        self._product = f'"{inside(product)}"'
        self._metadata = f'"metadata":{{"version":"{VERSION}","product":{metadata_product}'
        self._epoch = EpochMs()
        self._placed = Remembered[tuple[str, str], _Placed](
            lambda pair: _placed(pair[0], classified(*pair))
        )
        self._base = Remembered(lambda kind: _placed(kind, BASE_EVENT))
        self._statuses = Remembered(lambda outcome: str(STATUSES.get(outcome, 0)))

    def encode(self, selection: Selection) -> list[bytes]:
        """The events, in order."""
        column, lines = selection.column, Lines(len(selection))
        categories, types = told(column("category")), Column(column("type"))
        name, uid, addresses, of, to_name, to_uid = (told(column(field)) for field in _PEOPLE)
        said = categories.or_else(lines.all(""))
        pairs = zip(types.texts, said.texts, strict=True)
        placed = list(map(self._placed.__getitem__, pairs))
        by, to = name.or_else(uid), to_name.or_else(to_uid)
        if not (by.complete and to.complete):
            placed = [
                place if _fits(*at) else self._base[kind]
                for place, kind, *at in zip(
                    placed, types.texts, map(_uid, placed), by.texts, to.texts, addresses.texts,
                    strict=True,
                )
            ]  # fmt: skip
        kinds = list(map(_uid, placed))
        types = types.escaped(strictly_inside)
        lines.each(map(_start, placed))
        lines.each(map(_SEVERITIES.__getitem__, column("severity")))
        lines.each(map(self._statuses.__getitem__, column("outcome")))
        lines.text(',"time":')
        lines.each(self._epoch.column(column("time")))
        lines.text(f",{self._metadata}")
        lines.pair(*_member("uid", Column(column("id")), ","))
        lines.pair(',"event_code":"', types, '"')
        source = inside(selection.decoded.batch.source)
        lines.text(f',"log_name":"{source}","sequence":')
        lines.each(map(str, selection.sequences))
        lines.text("}")
        lines.each(map(_activity_name, placed))
        lines.pair(*_member("message", Column(column("message")), ","))
        typed = addresses.made(_typed)
        endpoints = lines.objects([
            _member("ip", addresses.where(typed, True)),
            _member("name", addresses.where(typed, False)),
        ])  # fmt: skip
        users = lines.objects([_member("name", name), _member("uid", uid)])
        targets = lines.objects([
            _member("name", to_name), _member("uid", to_uid),
            _member("type", of.where(to.there, True)),
        ])  # fmt: skip
        lines.each(map(
            self._of_class, kinds, users.texts, targets.texts, endpoints.texts, types.texts
        ))  # fmt: skip
        rest = [_member("category", categories), ('"attributes":', _attributes(selection), "")]
        if 0 in kinds:
            who = [_member("name", name), _member("id", uid), _member("address", addresses)]
            rest.append(('"actor":', lines.objects(who).where(kinds, 0), ""))
        if 0 in kinds or AUTHENTICATION in kinds:
            whom = [_member("type", of), _member("name", to_name), _member("id", to_uid)]
            kept = list(map(_keeps_target, kinds, by.there, to.there))
            rest.append(('"target":', lines.objects(whom).where(kept, True), ""))
        lines.group(',"unmapped":{', rest, "}")
        lines.text("}")
        return lines.encoded()

    def _of_class(
        self, kind: int, by: str | None, to: str | None, endpoint: str | None, operation: str
    ) -> str:
        """The members that differ by class, of objects in JSON."""
        if not kind:
            return ""
        said = f',"actor":{{"user":{by}}}' if by else ""
        if kind == API_ACTIVITY:
            said = said or f',"actor":{{"app_name":{self._product}}}'
            endpoint = endpoint or f'{{"svc_name":{self._product}}}'
            resources = f',"resources":[{to}]' if to else ""
            return (
                f'{said},"src_endpoint":{endpoint},"api":{{"operation":"{operation}"}}{resources}'
            )
        if kind == ENTITY_MANAGEMENT:
            said = f'{said},"entity":{to}'
        elif kind == ACCOUNT_CHANGE:
            said = f'{said},"user":{to or by}'
        else:
            said = f'{said},"user":{by or to},"service":{{"name":{self._product}}}'
        return f'{said},"src_endpoint":{endpoint}' if endpoint else said


_PEOPLE: Final = (
    "actor.name", "actor.id", "actor.address", "target.type", "target.name", "target.id"
)  # fmt: skip


def _fits(kind: int, by: str | None, to: str | None, address: str | None) -> bool:
    """Whether an event has what its class requires."""
    if kind == ENTITY_MANAGEMENT:
        return to is not None
    if kind == API_ACTIVITY:
        return by is not None or address is not None
    return by is not None or to is not None


def _keeps_target(kind: int, by: bool, to: bool) -> bool:
    """Whether the target has no place in the event's class."""
    return not kind or (kind == AUTHENTICATION and by and to)


def _member(name: str, column: Column, before: str = "") -> Pair:
    return member(name, column, before, strictly_inside)


def _typed(addresses: Sequence[str]) -> list[bool]:
    return [True] * len(addresses) if dotted_quads(addresses) else list(map(typed, addresses))


def _attributes(selection: Selection) -> Column:
    own = selection.column("attributes")
    if all(own) and set(map(type, own)) == {msgspec.Raw}:
        # Raw attributes have no line feed. JSON lets DEL stand as it is; terminals do not.
        texts: list[str | None] = []
        texts += replaced(b"\n".join(own).decode(), "\x7f", "\\u007f").split("\n")
    else:
        texts = [message_of(attributes).decode() if attributes else None for attributes in own]
    return Column(texts)
